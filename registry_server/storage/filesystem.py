"""Blobs as files.

ROOT/uploads/SESSION                        an upload, as far as it came; survives a restart
ROOT/blobs/ALGORITHM/AA/HEX-NONCE           a blob, renamed here once verified and synced
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from imagetool.content.staging import storage_errors, sync_folder
from imagetool.errors import DigestMismatch
from imagetool.limits import CHUNK
from imagetool.oci.digest import Digest, Hasher, new_hasher
from imagetool.streams.pump import read_chunks
from registry_server.message import File
from registry_server.storage import Conflict, Damaged

_SESSION: Final = re.compile(r"[0-9a-f]{32}\Z")
_ALGORITHMS: Final = ("sha256", "sha512")
_REMEMBERED: Final = 1024  # sessions whose running hash is kept


class FilesystemBlobs:
    """A BlobStore in a directory; safe for several threads, and for several processes on one host.

    The running hash of a session is in memory only. After a restart, or when another process
    wrote to the session, its bytes are read once more at commit.
    """

    def __init__(self, root: Path) -> None:
        self._uploads = root / "uploads"
        self._blobs = root / "blobs"
        self._lock = threading.Lock()
        self._hashes: dict[str, tuple[str, Hasher, int]] = {}
        with storage_errors(f"cannot make the registry's store {root}"):
            self._uploads.mkdir(parents=True, exist_ok=True)
            for algorithm in _ALGORITHMS:  # all made now, so that a commit syncs one folder, not its parents
                folder = self._blobs / algorithm
                folder.mkdir(parents=True, exist_ok=True)
                for missing in {f"{n:02x}" for n in range(256)} - set(os.listdir(folder)):
                    (folder / missing).mkdir(exist_ok=True)
                sync_folder(folder)
            for folder in (self._blobs, root, root.parent):
                sync_folder(folder)

    def begin(self) -> str:
        """Start a session; see `BlobStore`."""
        session = secrets.token_hex(16)
        with storage_errors("cannot start an upload"):
            (self._uploads / session).touch(exist_ok=False)
        return session

    def size(self, session: str) -> int | None:
        """Return a session's size; see `BlobStore`."""
        if not _SESSION.match(session):
            return None
        try:
            return os.stat(self._uploads / session).st_size
        except FileNotFoundError:
            return None

    def append(self, session: str, offset: int, chunks: Iterable[bytes], *, algorithm: str = "sha256") -> int:
        """Append to a session; see `BlobStore`."""
        with self._opened(session, "ab") as file:
            if os.fstat(file.fileno()).st_size != offset:
                raise Conflict(f"the upload does not have {offset} bytes")
            hasher, hashed = self._running(session, offset, algorithm)
            try:
                for chunk in chunks:
                    with storage_errors("cannot store an upload"):
                        _write(file, chunk)
                    if hasher is not None:
                        hasher.update(chunk)
                        hashed += len(chunk)
            finally:
                if hasher is not None:
                    self._remember(session, algorithm, hasher, hashed)
            return os.fstat(file.fileno()).st_size

    def commit(self, session: str, digest: Digest) -> tuple[str, int]:
        """Verify a session and give it its place; see `BlobStore`."""
        with self._opened(session, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            hasher, hashed = self._running(session, size, digest.algorithm)
            if hasher is None or hashed != size:
                hasher = digest.hasher()
                for chunk in read_chunks(file, CHUNK):
                    hasher.update(chunk)
            got = f"{digest.algorithm}:{hasher.hexdigest()}"
            if got != str(digest):
                raise DigestMismatch("upload", expected=str(digest), got=got)
            locator = f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}-{secrets.token_hex(8)}"
            target = self._blobs / locator
            with storage_errors(f"cannot store {digest}"):
                os.fsync(file.fileno())
                os.rename(self._uploads / session, target)
                sync_folder(target.parent)
        return locator, size

    def cancel(self, session: str) -> None:
        """Forget a session; see `BlobStore`."""
        with self._lock:
            self._hashes.pop(session, None)
        if _SESSION.match(session):
            (self._uploads / session).unlink(missing_ok=True)

    def expire(self, before: float) -> int:
        """Forget old sessions; see `BlobStore`."""
        expired = 0
        for session in os.listdir(self._uploads):
            try:
                with self._opened(session, "rb") as file:
                    if os.fstat(file.fileno()).st_mtime < before:
                        self.cancel(session)
                        expired += 1
            except Conflict:
                continue  # in use, or gone
        return expired

    def part(self, locator: str, start: int, end: int) -> File:
        """Return a part of a blob; see `BlobStore`."""
        path = self._blobs / locator
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            size = -1
        if size < end:
            raise Damaged(f"the file of blob {locator} is {'missing' if size < 0 else 'cut'}")
        return File(path, start, end)

    def delete(self, locator: str) -> None:
        """Remove a blob; see `BlobStore`."""
        with storage_errors(f"cannot remove blob {locator}"):
            (self._blobs / locator).unlink(missing_ok=True)

    def locators(self) -> Iterator[tuple[str, float]]:
        """Yield the blobs; see `BlobStore`."""
        for algorithm in _ALGORITHMS:
            for folder in sorted(os.listdir(self._blobs / algorithm)):
                with os.scandir(self._blobs / algorithm / folder) as entries:
                    for entry in entries:
                        yield f"{algorithm}/{folder}/{entry.name}", entry.stat(follow_symlinks=False).st_mtime

    @contextmanager
    def _opened(self, session: str, mode: str) -> Iterator[BinaryIO]:
        """Open a session's file for one user at a time."""
        if not _SESSION.match(session):
            raise Conflict("not an upload")
        try:
            file = open(self._uploads / session, mode, buffering=0, opener=_existing)
        except FileNotFoundError:
            raise Conflict("the upload is gone") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict("another request is writing to the upload") from None
            if os.fstat(file.fileno()).st_nlink == 0:
                raise Conflict("the upload is gone")
            yield file  # type: ignore[misc]

    def _running(self, session: str, offset: int, algorithm: str) -> tuple[Hasher | None, int]:
        """Take the hash of a session's first `offset` bytes; None when it is not known."""
        with self._lock:
            known = self._hashes.pop(session, None)
        if offset == 0:
            return new_hasher(algorithm), 0
        if known is None or known[0] != algorithm or known[2] != offset:
            return None, 0
        return known[1], offset

    def _remember(self, session: str, algorithm: str, hasher: Hasher, hashed: int) -> None:
        with self._lock:
            self._hashes[session] = (algorithm, hasher, hashed)
            while len(self._hashes) > _REMEMBERED:
                del self._hashes[next(iter(self._hashes))]


def _existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def _write(file: BinaryIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]
