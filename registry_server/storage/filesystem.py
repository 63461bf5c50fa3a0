"""Blobs as files.

ROOT/uploads/ID               an upload, as far as it came; survives a restart
ROOT/blobs/ALGORITHM/AA/HEX   a blob, renamed here once verified and synced
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from imagetool.content.staging import make_folder, storage_errors, sync_folder
from imagetool.errors import DigestMismatch
from imagetool.limits import CHUNK
from imagetool.oci.digest import Digest
from imagetool.streams.pump import read_chunks
from registry_server.storage import Conflict

_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_UPLOAD_SECONDS: Final = 7 * 24 * 3600


class FilesystemBlobs:
    """A BlobStore in a directory; safe for several threads."""

    def __init__(self, root: Path) -> None:
        self._uploads = root / "uploads"
        self._blobs = root / "blobs"
        with storage_errors(f"cannot make the registry's store {root}"):
            self._uploads.mkdir(parents=True, exist_ok=True)
            self._blobs.mkdir(exist_ok=True)
            for path in self._uploads.iterdir():
                if path.stat().st_mtime < time.time() - _UPLOAD_SECONDS:
                    path.unlink()

    def begin(self) -> str:
        """Start an upload; see `BlobStore`."""
        upload = secrets.token_hex(16)
        with storage_errors("cannot start an upload"):
            (self._uploads / upload).touch(exist_ok=False)
        return upload

    def size(self, upload: str) -> int | None:
        """Return an upload's size; see `BlobStore`."""
        try:
            return os.stat(self._upload(upload)).st_size
        except FileNotFoundError:
            return None

    def append(self, upload: str, offset: int, chunks: Iterable[bytes]) -> int:
        """Append to an upload; see `BlobStore`."""
        try:
            file = open(self._upload(upload), "ab", buffering=0)
        except FileNotFoundError:
            raise Conflict("the upload is gone") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict("another request is writing to the upload") from None
            if os.fstat(file.fileno()).st_size != offset:
                raise Conflict(f"the upload does not have {offset} bytes")
            with storage_errors("cannot store an upload"):
                for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                return os.fstat(file.fileno()).st_size

    def commit(self, upload: str, digest: Digest) -> int:
        """Verify and publish an upload; see `BlobStore`."""
        path, target = self._upload(upload), self.path(digest)
        hasher = digest.hasher()
        try:
            file = open(path, "rb", buffering=0)
        except FileNotFoundError:
            raise Conflict("the upload is gone") from None
        with file:
            for chunk in read_chunks(file, CHUNK):
                hasher.update(chunk)
            size = file.tell()
            got = f"{digest.algorithm}:{hasher.hexdigest()}"
            if got != str(digest):
                raise DigestMismatch("upload", expected=str(digest), got=got)
            with storage_errors(f"cannot store {digest}"):
                os.fsync(file.fileno())
                make_folder(target.parent)
                os.rename(path, target)
                sync_folder(target.parent)
        return size

    def cancel(self, upload: str) -> None:
        """Forget an upload; see `BlobStore`."""
        self._upload(upload).unlink(missing_ok=True)

    def path(self, digest: Digest) -> Path:
        """Return a blob's file; see `BlobStore`."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def delete(self, digest: Digest) -> None:
        """Remove a blob; see `BlobStore`."""
        self.path(digest).unlink(missing_ok=True)

    def _upload(self, upload: str) -> Path:
        if not _ID.match(upload):
            raise Conflict("not an upload id")
        return self._uploads / upload
