"""A repository of a registry as a store.

Source: distribution-spec v1.1.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

from imagetool import limits
from imagetool.distribution.auth import Scope
from imagetool.distribution.headers import parse_next_link
from imagetool.errors import (
    AuthError,
    DigestMismatch,
    InvalidDocument,
    InvalidReference,
    LimitExceeded,
    NetworkError,
    NotFound,
    Unsupported,
)
from imagetool.oci import document, mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import parse
from imagetool.oci.reference import check_repository, check_tag
from imagetool.remote.answer import Answer
from imagetool.remote.connect import Tls
from imagetool.remote.download import Download
from imagetool.remote.faults import ConnectionBroken
from imagetool.remote.registry import Registry, anonymous
from imagetool.remote.token import CredentialsFor
from imagetool.remote.upload import Upload, check_digest, push_blob
from imagetool.streams.verify import verified

_ACCEPT: Final = {"Accept": ", ".join(mediatype.ACCEPTED)}
_REMEMBERED: Final = 32  # documents kept in memory
_NO_HEAD: Final = (405, 501)


class Repository:
    """Blobs, documents and tags of one repository. Safe for several threads.

    Implements Fetcher, Pusher, Resolver, Tagger and Mounter. Documents (manifests and indexes)
    are told from blobs by the media type of their descriptor. A document that was read or
    written is remembered, so that fetching or tagging it next costs no further request for it.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self.registry = registry
        self.name = check_repository(name)
        self._lock = threading.Lock()
        self._documents: dict[Digest, bytes] = {}
        self._sessions: dict[Digest, str] = {}
        self._pull = frozenset({Scope.repository(name, "pull")})
        self._push = frozenset({Scope.repository(name, "pull", "push")})

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"

    @property
    def place(self) -> tuple[str, str]:
        """The registry's name and the repository's."""
        return self.registry.name, self.name

    def resolve(self, reference: str) -> Descriptor:
        """Return what a tag or digest points at, by HEAD (which registries do not count); raises NotFound.

        When it will be read next, `fetch_root` saves this request.
        """
        digest = _check_reference(reference)
        expect = (200, *_NO_HEAD)
        with self._request("HEAD", f"manifests/{reference}", self._pull, expect=expect, headers=_ACCEPT) as answer:
            found = _described(answer) if answer.status == 200 else None
        if found is None:
            return self.fetch_root(reference)
        if digest is not None and digest.algorithm == found.digest.algorithm and digest != found.digest:
            raise DigestMismatch(answer.where, expected=str(digest), got=str(found.digest))
        return Descriptor(found.media_type, digest or found.digest, found.size)

    def fetch_root(self, reference: str) -> Descriptor:
        """Return what a tag or digest points at, by GET, and remember it: `fetch` of it costs nothing more.

        Raises NotFound, and VerificationError when the document is not what the reference or the
        registry's headers say.
        """
        digest = _check_reference(reference)
        answer, raw = self._read(f"manifests/{reference}", headers=_ACCEPT)
        said = answer.header("Docker-Content-Digest")
        expected = digest or (_read_digest(answer, said) if said else None)
        got = Digest.of(raw, expected.algorithm if expected else "sha256")
        if expected is not None and got != expected:
            raise DigestMismatch(f"manifest {reference} from {self}", expected=str(expected), got=str(got))
        claimed = answer.content_type if answer.content_type in mediatype.DOCUMENTS else ""
        found = parse(raw, media_type=claimed, what=f"manifest {reference} from {self}")
        self._remember(got, raw)
        return Descriptor(found.media_type, got, len(raw))

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Open a blob or document; see `Fetcher`. A broken connection is resumed with a range request."""
        where = f"{descriptor.digest} from {self}"
        known = self._documents.get(descriptor.digest)
        if known is not None and descriptor.media_type in mediatype.DOCUMENTS:
            yield verified([known], descriptor, where=where)
            return

        def ask(offset: int) -> Answer:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            if descriptor.media_type in mediatype.DOCUMENTS:
                headers["Accept"] = descriptor.media_type
            return self._request("GET", _path(descriptor), self._pull, expect=(200, 206), headers=headers)

        with Download(descriptor, ask, self.registry.http.wait, where=where) as download:
            yield download.verified()

    def exists(self, descriptor: Descriptor) -> bool:
        """Say whether the blob or document is there, of the right size as far as the registry says."""
        headers = _ACCEPT if descriptor.media_type in mediatype.DOCUMENTS else {}
        with self._request("HEAD", _path(descriptor), self._push, expect=(200, 404), headers=headers) as answer:
            return answer.status == 200 and answer.length in (None, descriptor.size)

    def push(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob or document; see `Pusher`. Whether it is there already is for the caller to ask.

        `chunks` that can be iterated again (a list, an object whose `__iter__` opens the source) are
        sent again after a broken connection; an iterator is sent once.
        """
        if descriptor.media_type in mediatype.DOCUMENTS:
            self._put_document(descriptor, self._collect(descriptor, chunks), str(descriptor.digest))
            return
        with self._lock:
            location = self._sessions.pop(descriptor.digest, "")
        push_blob(Upload(self.registry, self.name, descriptor), chunks, location=location)

    def push_tagged(self, descriptor: Descriptor, chunks: Iterable[bytes], reference: str) -> None:
        """Store a document and point a tag at it in one request."""
        check_tag(reference)
        raw = self._collect(descriptor, chunks)
        if descriptor.digest.algorithm != "sha256":  # by tag, the registry would choose the algorithm
            self._put_document(descriptor, raw, str(descriptor.digest))
        self._put_document(descriptor, raw, reference)

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Point a tag at a document that is here; reads it first when it is not remembered."""
        check_tag(reference)
        if descriptor.size > limits.DOCUMENT_BYTES:
            raise LimitExceeded(
                f"{descriptor.digest} in {self}: {descriptor.size} bytes, more than {limits.named('DOCUMENT_BYTES')}"
            )
        with self.fetch(descriptor) as chunks:
            raw = b"".join(chunks)
        self._put_document(descriptor, raw, reference)

    def mount(self, descriptor: Descriptor, source: str) -> bool:
        """Take a blob from another repository of this registry; False when the registry would rather be sent it.

        Every refusal is a False: registries answer 401, 404, 405 and more, and the upload that
        follows meets any real trouble again. An upload session that is opened instead is kept for `push`.
        """
        check_repository(source)
        scopes = self._push | {Scope.repository(source, "pull")}
        target = f"blobs/uploads/?mount={quote(str(descriptor.digest), safe=':')}&from={quote(source, safe='')}"
        try:
            answer = self._request("POST", target, scopes, expect=(201, 202))
        except (AuthError, NotFound, NetworkError):
            return False
        with answer:
            if answer.status == 201:
                return True
            location = self.registry.locate(answer, descriptor.media_type)
        with self._lock:
            self._sessions[descriptor.digest] = location
        return False

    def tags(self) -> Iterator[str]:
        """Yield the tags, page by page, in the registry's order (sorted, by the spec)."""
        target: str | None = "tags/list"
        seen: set[str] = set()
        while target is not None:
            answer, raw = self._read(target)
            what = f"tags of {self}"
            for tag in document.get_strings(document.decode(raw, what=what), "tags", path="$", what=what):
                try:
                    yield check_tag(tag)
                except InvalidReference as error:
                    raise InvalidDocument(f"{what}: {error}") from None
            link = parse_next_link(answer.header_values("Link"))
            target = None if link is None else self.registry.follow(answer, link)
            if target in seen:
                raise NetworkError(f"{what}: the registry's pages go round in a circle")
            seen.add(target or "")

    def delete(self, digest: Digest) -> None:
        """Delete a manifest or index, and with it every tag that points at it; raises NotFound, Unsupported."""
        scopes = frozenset({Scope.repository(self.name, "delete", "pull", "push")})
        expect = (200, 202, 204, 405, 501)
        with self._request("DELETE", f"manifests/{digest}", scopes, expect=expect) as answer:
            self._documents.pop(digest, None)
            if answer.status in (405, 501):
                raise Unsupported(f"{answer.error()}; the registry does not allow deletion")

    def _put_document(self, descriptor: Descriptor, raw: bytes, reference: str) -> None:
        headers = {"Content-Type": descriptor.media_type}
        expect = (200, 201, 202, 204)
        path = f"manifests/{reference}"
        with self._request("PUT", path, self._push, expect=expect, headers=headers, body=raw) as answer:
            check_digest(answer, descriptor.digest)
        self._remember(descriptor.digest, raw)

    def _collect(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> bytes:
        if descriptor.size > limits.DOCUMENT_BYTES:
            raise LimitExceeded(
                f"{descriptor.digest} for {self}: {descriptor.size} bytes, more than {limits.named('DOCUMENT_BYTES')}"
            )
        return b"".join(verified(chunks, descriptor, where=f"{descriptor.digest} for {self}"))

    def _remember(self, digest: Digest, raw: bytes) -> None:
        with self._lock:
            self._documents[digest] = raw
            while len(self._documents) > _REMEMBERED:
                del self._documents[next(iter(self._documents))]

    def _read(self, path: str, *, headers: Mapping[str, str] | None = None) -> tuple[Answer, bytes]:
        """GET a small answer whole, again when the connection breaks in its body."""
        tries = 0
        while True:
            tries += 1
            with self._request("GET", path, self._pull, headers=headers) as answer:
                try:
                    return answer, answer.read()
                except ConnectionBroken:
                    if not self.registry.http.wait(tries):
                        raise

    def _request(
        self,
        method: str,
        path: str,
        scopes: frozenset[Scope],
        *,
        expect: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        return self.registry.request(
            method,
            path if "://" in path else f"/v2/{self.name}/{path}",
            what=_name(path, self.name),
            repository=self.name,
            scopes=scopes,
            expect=expect,
            headers=headers,
            body=body,
        )


def _path(descriptor: Descriptor) -> str:
    kind = "manifests" if descriptor.media_type in mediatype.DOCUMENTS else "blobs"
    return f"{kind}/{descriptor.digest}"


def _name(path: str, repository: str) -> str:
    """Name what a path stands for, as errors say it."""
    kind, _, rest = path.partition("/")
    if kind == "manifests":
        return f"manifest {rest} of {repository}"
    if kind == "blobs":
        return f"upload to {repository}" if rest.startswith("uploads") else f"blob {rest} of {repository}"
    return f"tags of {repository}"


def _check_reference(reference: str) -> Digest | None:
    """Return the digest that a reference is, None for a tag; raises InvalidReference for neither."""
    if ":" not in reference:
        check_tag(reference)
        return None
    try:
        return Digest.parse(reference)
    except InvalidDocument as error:
        raise InvalidReference(str(error)) from None


def _read_digest(answer: Answer, text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDocument as error:
        raise InvalidDocument(f"{answer.where}: Docker-Content-Digest: {error}") from None


def _described(answer: Answer) -> Descriptor | None:
    """Return the descriptor that the headers of a HEAD make, None when they are not enough."""
    said = answer.header("Docker-Content-Digest")
    if not said or not answer.length or answer.content_type not in mediatype.DOCUMENTS:
        return None
    return Descriptor(answer.content_type, _read_digest(answer, said), answer.length)


@contextmanager
def open_repository(
    registry: str,
    repository: str,
    *,
    credentials: CredentialsFor = anonymous,
    tls: Tls | None = None,
    trusted_realms: Collection[str] = (),
) -> Iterator[Repository]:
    """Open one repository of a registry that nothing else is asked of; see `Registry`."""
    with Registry(registry, credentials=credentials, tls=tls, trusted_realms=trusted_realms) as opened:
        yield Repository(opened, repository)
