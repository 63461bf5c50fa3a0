"""Uploads: in one request or in chunks; a blob of another repository is mounted without an upload.

Source: distribution-spec v1.1, "Pushing blobs", "Mounting a blob from another repository".
"""

from __future__ import annotations

import hashlib
import hmac

from imagetool.distribution.headers import ContentRange
from imagetool.errors import InvalidDocument, InvalidReference
from imagetool.oci.digest import Digest
from imagetool.oci.reference import check_repository
from registry_server.handlers.stores import Stores, read_digest
from registry_server.message import ApiError, Request, Response
from registry_server.metadata import StoredBlob
from registry_server.storage import Conflict


def begin(stores: Stores, request: Request, repository: str, _: str) -> Response:
    """Answer POST: mount, single-request upload, or a new session."""
    mounted = request.parameter("mount")
    if mounted is not None:
        found = _mount(stores, repository, mounted, request.parameter("from"))
        if found is not None:
            return _created(repository, found.digest)
    whole = request.parameter("digest")
    if whole is None:
        return _accepted(repository, stores.blobs.begin(), 0)
    digest = read_digest(whole)
    session = stores.blobs.begin()
    try:
        stores.blobs.append(session, 0, request.body, algorithm=digest.algorithm)
        return _publish(stores, repository, session, digest)
    finally:
        stores.blobs.cancel(session)


def _mount(stores: Stores, repository: str, digest: str, source: str | None) -> StoredBlob | None:
    """Mount from `source`, or, as the spec allows when it is not said, from wherever the blob is.

    What cannot be mounted for any reason gets an upload session, as the spec wants.
    """
    try:
        known = None if source is None else check_repository(source)
        return stores.metadata.mount(repository, Digest.parse(digest), known)
    except (InvalidReference, InvalidDocument):
        return None


def status(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer GET: how far an upload has come."""
    session, size = _session(stores, repository, upload)
    return Response(204, (*_place(repository, session), ("Range", _range(size))))


def append(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer PATCH: one more chunk."""
    session, size = _session(stores, repository, upload)
    return _accepted(repository, session, _append(stores, request, repository, session, size, "sha256"))


def finish(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer PUT: the last chunk or the whole blob, then verify and publish."""
    session, size = _session(stores, repository, upload)
    text = request.parameter("digest")
    if text is None:
        raise ApiError("DIGEST_INVALID", "the digest parameter is missing")
    digest = read_digest(text)
    _append(stores, request, repository, session, size, digest.algorithm)
    try:
        response = _publish(stores, repository, session, digest)
    except Conflict as error:
        raise ApiError("BLOB_UPLOAD_UNKNOWN", str(error)) from None
    finally:
        stores.blobs.cancel(session)
    return response


def cancel(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer DELETE: give an upload up."""
    session, _ = _session(stores, repository, upload)
    stores.blobs.cancel(session)
    return Response(204)


def _publish(stores: Stores, repository: str, session: str, digest: Digest) -> Response:
    """Commit a session and let the repository hold it; of equal blobs the one that was there first is kept."""
    locator, size = stores.blobs.commit(session, digest)
    kept = stores.metadata.add_blob(repository, StoredBlob(digest, size, locator))
    if kept != locator:
        stores.blobs.delete(locator)
    return _created(repository, digest)


def _append(stores: Stores, request: Request, repository: str, session: str, size: int, algorithm: str) -> int:
    """Append a request's body at `size`; raises ApiError 416 when the client means another place."""
    stated = request.headers.get("content-range")
    if stated is not None:
        chunk = ContentRange.parse(stated)
        if chunk is None or chunk.first != size:
            raise _out_of_order(repository, session, size, f"the chunk begins elsewhere: the upload has {size} bytes")
        if request.length not in (None, chunk.last - chunk.first + 1):
            raise ApiError("SIZE_INVALID", "Content-Range and Content-Length disagree")
    try:
        return stores.blobs.append(session, size, request.body, algorithm=algorithm)
    except Conflict as error:
        now = stores.blobs.size(session)
        raise _out_of_order(repository, session, size if now is None else now, str(error)) from None


def _out_of_order(repository: str, session: str, size: int, text: str) -> ApiError:
    headers = (*_place(repository, session), ("Range", _range(size)))
    return ApiError("BLOB_UPLOAD_INVALID", text, status=416, headers=headers)


def _session(stores: Stores, repository: str, upload: str) -> tuple[str, int]:
    """Return the session of an upload of this repository, and its size; raises ApiError."""
    session, _, tie = upload.partition("-")
    size = stores.blobs.size(session) if hmac.compare_digest(tie.encode(), _tie(repository, session)) else None
    if size is None:
        raise ApiError("BLOB_UPLOAD_UNKNOWN", f"{repository} has no such upload")
    return session, size


def _tie(repository: str, session: str) -> bytes:
    """Bind a session to its repository, so that one for `a` is none for `b`, with no record kept."""
    return hashlib.sha256(f"{repository} {session}".encode()).hexdigest()[:16].encode()


def _place(repository: str, session: str) -> tuple[tuple[str, str], ...]:
    upload = f"{session}-{_tie(repository, session).decode()}"
    return (("Location", f"/v2/{repository}/blobs/uploads/{upload}"), ("Docker-Upload-UUID", upload))


def _range(size: int) -> str:
    """Say which bytes are here; the form cannot say none, so an empty upload has 0-0 as everywhere."""
    return f"0-{max(size - 1, 0)}"


def _accepted(repository: str, session: str, size: int) -> Response:
    return Response(202, (*_place(repository, session), ("Range", _range(size)), ("Content-Length", "0")))


def _created(repository: str, digest: Digest) -> Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return Response(201, (("Location", location), ("Docker-Content-Digest", str(digest)), ("Content-Length", "0")))
