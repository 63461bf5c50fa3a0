"""Where the bytes of blobs are, behind one protocol."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from imagetool.oci.digest import Digest


class BlobStore(Protocol):
    def begin(self) -> str:
        """Start an upload and return its id, 128 random bits in hex."""
        ...

    def size(self, upload: str) -> int | None:
        """Return how many bytes an upload has, None for an unknown one."""
        ...

    def append(self, upload: str, offset: int, chunks: Iterable[bytes]) -> int:
        """Append to an upload that has exactly `offset` bytes; return the new size. Raises Conflict."""
        ...

    def commit(self, upload: str, digest: Digest) -> int:
        """Verify an upload, make it durable and visible, and return its size. Raises DigestMismatch."""
        ...

    def cancel(self, upload: str) -> None:
        """Forget an upload."""
        ...

    def path(self, digest: Digest) -> Path:
        """Return the file that holds a blob."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove a blob's bytes."""
        ...


class Conflict(Exception):
    """The upload does not have the size that the request is about."""
