"""Blobs: whether they are there, their bytes or a range of them, taking them out of a repository."""

from __future__ import annotations

import re
from typing import Final

from registry_server.handlers.stores import Stores, read_digest
from registry_server.message import ApiError, File, Request, Response

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


def get(stores: Stores, request: Request, repository: str, name: str) -> Response:
    """Answer GET and HEAD of a blob."""
    digest = read_digest(name)
    size = stores.metadata.blob(repository, digest)
    if size is None:
        raise ApiError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")
    headers: tuple[tuple[str, str], ...] = (
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", "max-age=31536000, immutable"),
        ("Content-Type", "application/octet-stream"),
    )
    if request.headers.get("if-none-match") in (f'"{digest}"', "*"):
        return Response(304, headers)
    start, end, status = 0, size, 200
    wanted = _RANGE.match(request.headers.get("range", ""))
    if wanted and (wanted[1] or wanted[2]):
        start, end = _part(wanted[1], wanted[2], size)
        status = 206
        headers = (*headers, ("Content-Range", f"bytes {start}-{end - 1}/{size}"))
    return Response(
        status, (*headers, ("Content-Length", str(end - start))), File(stores.blobs.path(digest), start, end)
    )


def _part(first: str, last: str, size: int) -> tuple[int, int]:
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise ApiError("RANGE_INVALID", "no such range", headers=(("Content-Range", f"bytes */{size}"),))
    return start, end


def delete(stores: Stores, request: Request, repository: str, name: str) -> Response:
    """Answer DELETE of a blob."""
    digest = read_digest(name)
    if not stores.metadata.remove_blob(repository, digest):
        raise ApiError("BLOB_UNKNOWN", f"{repository} has no blob {digest}")
    return Response(202)
