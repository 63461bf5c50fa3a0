"""Blobs: whether they are there, their bytes or a range of them, taking them out of a repository.

Source: distribution-spec v1.1, "Pulling blobs", "Checking if content exists", "Deleting Blobs".
"""

from __future__ import annotations

from imagetool.distribution.headers import names_entity, parse_range
from registry_server.handlers.stores import Stores, read_digest
from registry_server.message import ApiError, Request, Response
from registry_server.metadata import InUse


def get(stores: Stores, request: Request, repository: str, name: str) -> Response:
    """Answer GET and HEAD of a blob. A HEAD claims it: the client that asks will rely on it and not upload it."""
    digest = read_digest(name)
    find = stores.metadata.claim if request.method == "HEAD" else stores.metadata.blob
    blob = find(repository, digest)
    if blob is None:
        raise ApiError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")
    entity = f'"{digest}"'
    headers: tuple[tuple[str, str], ...] = (
        ("Docker-Content-Digest", str(digest)),
        ("ETag", entity),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", "max-age=31536000, immutable"),
        ("Content-Type", "application/octet-stream"),
    )
    if names_entity(request.headers.get("if-none-match", ""), entity):
        return Response(304, headers)
    start, end, status = 0, blob.size, 200
    part = _wanted(request, entity, blob.size)
    if part is not None:
        start, end = part
        if start == end:
            outside = (("Content-Range", f"bytes */{blob.size}"),)
            raise ApiError("RANGE_INVALID", f"the blob has {blob.size} bytes", headers=outside)
        status = 206
        headers = (*headers, ("Content-Range", f"bytes {start}-{end - 1}/{blob.size}"))
    return Response(
        status, (*headers, ("Content-Length", str(end - start))), stores.blobs.part(blob.locator, start, end)
    )


def _wanted(request: Request, entity: str, size: int) -> tuple[int, int] | None:
    """Return the part that is asked for; None for all: on HEAD, several ranges, or an If-Range of something else."""
    if request.method != "GET" or request.headers.get("if-range", entity) != entity:
        return None
    return parse_range(request.headers.get("range", ""), size)


def delete(stores: Stores, request: Request, repository: str, name: str) -> Response:
    """Answer DELETE of a blob; refused while a manifest refers to it."""
    digest = read_digest(name)
    try:
        gone = stores.metadata.remove_blob(repository, digest)
    except InUse as error:
        raise ApiError("UNSUPPORTED", f"manifest {error.user} refers to blob {digest}; delete it first") from None
    if not gone:
        raise ApiError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")
    return Response(202, (("Content-Length", "0"),))
