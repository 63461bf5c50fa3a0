"""Uploads: in one request or in chunks; a blob of another repository is mounted without an upload."""

from __future__ import annotations

import re
from typing import Final

from imagetool.errors import InvalidReference
from imagetool.oci.digest import Digest
from imagetool.oci.reference import check_repository
from registry_server.handlers.stores import Stores, read_digest
from registry_server.message import ApiError, Request, Response
from registry_server.storage import Conflict

_CHUNK: Final = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/\S+)?\Z")


def begin(stores: Stores, request: Request, repository: str, _: str) -> Response:
    """Answer POST: mount, single-request upload, or a new session."""
    mounted = request.query.get("mount")
    if mounted:
        digest = read_digest(mounted)
        size = _mountable(stores, request.query.get("from", ""), digest)
        if size is not None:
            stores.metadata.add_blob(repository, digest, size)
            return _created(repository, digest)
    if "digest" in request.query:
        digest = read_digest(request.query["digest"])
        upload = stores.blobs.begin()
        try:
            stores.blobs.append(upload, 0, request.body)
            size = stores.blobs.commit(upload, digest)
        finally:
            stores.blobs.cancel(upload)
        stores.metadata.add_blob(repository, digest, size)
        return _created(repository, digest)
    upload = stores.blobs.begin()
    stores.metadata.begin_upload(repository, upload)
    return _accepted(repository, upload, 0)


def _mountable(stores: Stores, source: str, digest: Digest) -> int | None:
    try:
        return stores.metadata.blob(check_repository(source), digest) if source else None
    except InvalidReference:
        return None


def status(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer GET: how far an upload has come."""
    size = _size(stores, repository, upload)
    return Response(204, (*_place(repository, upload), ("Range", f"0-{max(size - 1, 0)}")))


def append(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer PATCH: one more chunk."""
    size = _append(stores, request, repository, upload)
    return _accepted(repository, upload, size)


def finish(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer PUT: the last chunk or the whole blob, then verify and publish."""
    if "digest" not in request.query:
        raise ApiError("DIGEST_INVALID", "the digest parameter is missing")
    digest = read_digest(request.query["digest"])
    _append(stores, request, repository, upload)
    try:
        size = stores.blobs.commit(upload, digest)
    except Conflict as error:
        raise ApiError("BLOB_UPLOAD_UNKNOWN", str(error)) from None
    finally:
        stores.blobs.cancel(upload)
        stores.metadata.end_upload(upload)
    stores.metadata.add_blob(repository, digest, size)
    return _created(repository, digest)


def cancel(stores: Stores, request: Request, repository: str, upload: str) -> Response:
    """Answer DELETE: give an upload up."""
    _size(stores, repository, upload)
    stores.blobs.cancel(upload)
    stores.metadata.end_upload(upload)
    return Response(204)


def _size(stores: Stores, repository: str, upload: str) -> int:
    try:
        size = stores.blobs.size(upload) if stores.metadata.has_upload(repository, upload) else None
    except Conflict:
        size = None
    if size is None:
        raise ApiError("BLOB_UPLOAD_UNKNOWN", f"{repository} has no such upload")
    return size


def _append(stores: Stores, request: Request, repository: str, upload: str) -> int:
    size = _size(stores, repository, upload)
    stated = request.headers.get("content-range")
    if stated is not None:
        match = _CHUNK.match(stated)
        if not match or int(match[1]) != size:
            raise _out_of_order(repository, upload, size, f"the chunk begins elsewhere: the upload has {size} bytes")
    try:
        return stores.blobs.append(upload, size, request.body)
    except Conflict as error:
        raise _out_of_order(repository, upload, size, str(error)) from None


def _out_of_order(repository: str, upload: str, size: int, text: str) -> ApiError:
    headers = (*_place(repository, upload), ("Range", f"0-{max(size - 1, 0)}"))
    return ApiError("BLOB_UPLOAD_INVALID", text, status=416, headers=headers)


def _place(repository: str, upload: str) -> tuple[tuple[str, str], ...]:
    return (("Location", f"/v2/{repository}/blobs/uploads/{upload}"), ("Docker-Upload-UUID", upload))


def _accepted(repository: str, upload: str, size: int) -> Response:
    return Response(202, (*_place(repository, upload), ("Range", f"0-{max(size - 1, 0)}"), ("Content-Length", "0")))


def _created(repository: str, digest: Digest) -> Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return Response(201, (("Location", location), ("Docker-Content-Digest", str(digest)), ("Content-Length", "0")))
