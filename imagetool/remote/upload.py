"""Send one blob to a registry: in one PUT, or in chunks where a registry or a proxy refuses that.

Source: distribution-spec v1.1, "Pushing blobs".
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Final

from imagetool import limits
from imagetool.distribution.auth import Scope
from imagetool.distribution.headers import parse_uploaded
from imagetool.errors import DigestMismatch, ImagetoolError, InvalidDocument, NetworkError
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.remote.answer import Answer
from imagetool.remote.faults import ConnectionBroken
from imagetool.remote.http import RETRIED, Body
from imagetool.remote.registry import Registry
from imagetool.streams.pump import reblock
from imagetool.values import dataclass

_STORED: Final = frozenset({201, 204})
_REFUSED_WHOLE: Final = frozenset({405, 411, 413, 415, 501})  # of one large PUT; chunks may be taken
_LOST: Final = frozenset({404, 416})  # the registry does not know the upload, or not as far as we think
_CHUNK: Final = 8 * limits.MIB
_WHOLE_TRIES: Final = 2  # connections that may break over a whole PUT before chunks are tried


@dataclass(frozen=True, slots=True)
class Upload:
    """What is being sent, and to where."""

    registry: Registry
    repository: str
    descriptor: Descriptor

    @property
    def what(self) -> str:
        """The upload's name for errors."""
        return f"blob {self.descriptor.digest} of {self.repository}"

    @property
    def scopes(self) -> frozenset[Scope]:
        """What the token must allow."""
        return frozenset({Scope.repository(self.repository, "pull", "push")})


def push_blob(upload: Upload, chunks: Iterable[bytes], *, location: str = "") -> None:
    """Send a blob; after a return the registry has it, verified by both sides.

    Args:
        chunks: tried again from the start after a broken connection when it can be iterated
            again, that is when it is not itself an iterator.
        location: an upload session that is open already, as after a mount that was declined.

    Raises NetworkError, AuthError, DigestMismatch, SizeMismatch, and what `chunks` raises.
    """
    body = Body(upload.descriptor, chunks, where=f"{upload.descriptor.digest} for {upload.registry}")
    in_chunks = False
    tries = 0
    while True:
        tries += 1
        session = location or _start(upload)
        location = ""
        try:
            answer = _send_chunks(upload, session, body) if in_chunks else _send_whole(upload, session, body)
        except ConnectionBroken:
            in_chunks = in_chunks or tries >= _WHOLE_TRIES
            if not body.repeatable or body.failure is not None or not upload.registry.http.wait(tries):
                raise
            continue
        except ImagetoolError:
            _cancel(upload, session)
            raise
        if answer.status in _STORED:
            with answer:
                return check_digest(answer, upload.descriptor.digest)
        refused = answer.status in _REFUSED_WHOLE and not in_chunks
        in_chunks = in_chunks or refused
        worth_it = refused or (answer.status in RETRIED | _LOST and upload.registry.http.wait(tries, answer))
        if not body.repeatable or not worth_it:
            raise answer.error()
        answer.close()


def _start(upload: Upload) -> str:
    """Open an upload session and return its URL."""
    target = f"/v2/{upload.repository}/blobs/uploads/"
    with _request(upload, "POST", target, expect=(202,)) as answer:
        return upload.registry.locate(answer, upload.what)


def check_digest(answer: Answer, expected: Digest) -> None:
    """Compare what a registry says it has stored; raises DigestMismatch. A digest of another algorithm says nothing."""
    said = answer.header("Docker-Content-Digest")
    if not said:
        return
    try:
        got = Digest.parse(said)
    except InvalidDocument:
        raise NetworkError(f"{answer.where}: the registry answers with a digest that is none: {said[:100]!r}") from None
    if got.algorithm == expected.algorithm and got != expected:
        raise DigestMismatch(f"{answer.where}: the registry stored something else", expected=str(expected), got=said)


def _request(
    upload: Upload,
    method: str,
    target: str,
    *,
    expect: Iterable[int],
    headers: dict[str, str] | None = None,
    body: bytes | Body = b"",
    retry: bool = True,
) -> Answer:
    return upload.registry.request(
        method,
        target,
        what=upload.what,
        repository=upload.repository,
        scopes=upload.scopes,
        expect=frozenset(expect),
        headers=headers,
        body=body,
        retry=retry,
    )


def _finish(upload: Upload, session: str, body: bytes | Body) -> Answer:
    target = f"{session}{'&' if '?' in session else '?'}digest={upload.descriptor.digest}"
    expect = _STORED | RETRIED | _REFUSED_WHOLE | _LOST
    headers = {"Content-Type": "application/octet-stream"}
    return _request(upload, "PUT", target, expect=expect, headers=headers, body=body, retry=False)


def _send_whole(upload: Upload, session: str, body: Body) -> Answer:
    if len(body) == 0:  # requests would send an empty stream with chunked transfer encoding
        collections.deque(body.verified(), maxlen=0)
        return _finish(upload, session, b"")
    return _finish(upload, session, body)


def _send_chunks(upload: Upload, session: str, body: Body) -> Answer:
    """Send PATCHes and the closing PUT; a chunk that broke is continued where the registry has it."""
    offset = 0
    for chunk in reblock(body.verified(), _CHUNK):
        session = _send_chunk(upload, session, offset, chunk)
        offset += len(chunk)
    return _finish(upload, session, b"")


def _send_chunk(upload: Upload, session: str, offset: int, chunk: bytes) -> str:
    """Send one chunk that begins at `offset` of the blob; return the session's new URL."""
    sent = tries = 0
    while sent < len(chunk):
        tries += 1
        try:
            answer = _patch(upload, session, offset + sent, chunk[sent:])
        except ConnectionBroken:
            if not upload.registry.http.wait(tries):
                raise
        else:
            with answer:
                if answer.status in (202, 201, 204):
                    return upload.registry.locate(answer, upload.what)
                if not upload.registry.http.wait(tries, answer):
                    raise answer.error()
        session, stored = _status(upload, session)
        sent = _resume_at(upload, stored, offset, len(chunk))
    return session


def _patch(upload: Upload, session: str, first: int, data: bytes) -> Answer:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Range": f"{first}-{first + len(data) - 1}",
    }
    expect = {201, 202, 204, 416} | RETRIED
    return _request(upload, "PATCH", session, expect=expect, headers=headers, body=data, retry=False)


def _status(upload: Upload, session: str) -> tuple[str, int]:
    """Ask how many bytes of an upload arrived; return its URL and that."""
    with _request(upload, "GET", session, expect=(200, 204)) as answer:
        stored = parse_uploaded(answer.header("Range")) or 0
        return (upload.registry.locate(answer, upload.what) if answer.header("Location") else session), stored


def _resume_at(upload: Upload, stored: int, offset: int, length: int) -> int:
    """Return how much of the chunk at `offset` is stored; "0-0" of a new upload means none."""
    if offset == 0 and stored == 1:
        return 0
    if not offset <= stored <= offset + length:
        raise NetworkError(
            f"{upload.registry}: upload of {upload.what}: the registry has {stored} bytes, we sent {offset + length}"
        )
    return stored - offset


def _cancel(upload: Upload, session: str) -> None:
    """Tell the registry that an upload will not go on; it forgets by itself when this fails."""
    try:
        _request(upload, "DELETE", session, expect=(200, 202, 204, 404, 405), retry=False).close()
    except ImagetoolError:
        return
