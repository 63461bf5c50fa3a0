"""Files on their way into a store: written aside, synced, renamed into place, or swept.

A staged file is locked by the process that writes it, so a sweep can tell an abandoned file
(its writer is gone) from one in use without any record of who is alive.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from imagetool.errors import DigestMismatch, SizeMismatch, StorageError
from imagetool.oci.digest import Digest, new_hasher


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn the operating system's refusals into StorageError, naming what was being done."""
    try:
        yield
    except OSError as error:
        hint = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "; free some space, or choose another place (for the store: --root)"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "; choose a place you may write to (for the store: --root)"
        raise StorageError(f"{what}: {error.strerror or error}{hint}") from error


class StagedFile:
    """A file being written aside, locked while its writer lives; it is put in its place or removed.

    A context manager. `staging` is made when missing and removed when it is empty.
    """

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        self._placed = False

    def __enter__(self) -> StagedFile:
        with storage_errors(f"cannot stage a file in {self._staging}"):
            while True:  # until a sweep or a neighbour's rmdir has not come in between
                with contextlib.suppress(FileExistsError):  # Path.mkdir(exist_ok=True) has a race with rmdir
                    os.mkdir(self._staging)
                self._path = self._staging / os.urandom(8).hex()
                with contextlib.suppress(FileNotFoundError):
                    _staged.add(self._path)
                    self._file = open(self._path, "xb", buffering=0)
                    fcntl.flock(self._file, fcntl.LOCK_EX)
                    if os.fstat(self._file.fileno()).st_nlink:
                        return self
                    self._file.close()

    def write(self, data: bytes) -> None:
        """Append; raises StorageError when the disk refuses."""
        view = memoryview(data)
        with storage_errors(f"cannot write to {self._staging}"):
            while view:
                view = view[self._file.write(view) :]

    def place(self, target: Path, *, durable: bool = True) -> None:
        """Rename the file to `target`, whose directory exists; after a return it is there even after a power cut.

        Not `durable`: it is there for everybody, and after a power cut it may be gone, or empty.
        """
        with storage_errors(f"cannot write {target}"):
            if durable:
                os.fsync(self._file.fileno())
            os.chmod(self._path, 0o644)
            os.rename(self._path, target)
            self._placed = True
            if durable:
                sync_folder(target.parent)

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self._placed:
            with contextlib.suppress(OSError):  # the next sweep takes it
                os.unlink(self._path)
        _staged.discard(self._path)
        with contextlib.suppress(OSError):  # another writer is staging here
            os.rmdir(self._staging)


#: What this process is writing. A thread that waits for a dead network is left behind at the end of
#: the process; what it has staged is not.
_staged: set[Path] = set()


@atexit.register
def _remove_left() -> None:
    for path in list(_staged):
        with contextlib.suppress(OSError):  # placed or removed after all
            os.unlink(path)
        with contextlib.suppress(OSError):  # another writer is staging here
            os.rmdir(path.parent)


class StagedBlob:
    """A blob being written: hashed as it comes, committed under its digest or removed.

    A context manager; leaving it without `commit` leaves nothing behind.
    """

    def __init__(self, staging: Path, place: Path, *, algorithm: str = "sha256") -> None:
        self._file = StagedFile(staging)
        self._place = place
        self._hasher = new_hasher(algorithm)
        self._algorithm = algorithm
        self.size = 0

    def __enter__(self) -> StagedBlob:
        self._file.__enter__()
        return self

    def write(self, data: bytes) -> None:
        """Append; raises StorageError when the disk refuses."""
        self._hasher.update(data)
        self.size += len(data)
        self._file.write(data)

    def commit(self, *, expected: Digest | None = None, size: int | None = None) -> tuple[Digest, int]:
        """Make the blob durable and visible.

        Raises DigestMismatch or SizeMismatch when it is not what the caller expected; then nothing is visible.
        """
        digest = Digest(self._algorithm, self._hasher.hexdigest())
        if size is not None and size != self.size:
            raise SizeMismatch(str(expected or digest), expected=size, got=self.size)
        if expected is not None and digest != expected:
            raise DigestMismatch("blob", expected=str(expected), got=str(digest))
        place_blob(self._file, self._place, digest)
        return digest, self.size

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()


def place_blob(file: StagedFile, place: Path, digest: Digest) -> None:
    """Put a staged file, which the caller has verified, in a blob's place, durably."""
    folder = place / digest.algorithm
    with storage_errors(f"cannot store {digest} in {place}"):
        make_folder(folder)
    file.place(folder / digest.hex)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, durably where they are missing."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes) -> None:
    """Put a small file of ours in place atomically and durably; what it is written to first stands beside it.

    Not for names that users give, which may be those of devices: see `write_file`.
    """
    with storage_errors(f"cannot write {path}"), _beside(path) as file:
        file.write(data)


def open_stored(path: Path) -> BinaryIO:
    """Open a file of a store to read, unbuffered. A pipe or a device is refused, not waited for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):
        os.close(fd)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(fd, "rb", buffering=0)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name, durably, when the block ends without an error.

    A symbolic link stays, and what it leads to is written. What exists and is no regular file (a pipe, a device),
    and what a process has open (/dev/stdout, /dev/fd/3), whatever that is, is written to as it is.
    Raises StorageError when the disk refuses, the writes in the block included.
    """
    with storage_errors(f"cannot write {path}"):
        place = followed(path)
        if place.is_symlink() or (place.exists() and not place.is_file()):
            with _opened(place) as file:
                yield file
            return
        with _beside(place) as file:
            yield file


def _opened(place: Path) -> BinaryIO:
    """Open what is there; what is open in this process already is written to where it is, not from its beginning."""
    if str(place.parent) == f"/proc/{os.getpid()}/fd" and place.name.isdecimal():
        return open(os.dup(int(place.name)), "wb")
    return open(place, "ab")


def write_file(path: Path, data: bytes) -> None:
    """Write a small file that a user has named, as `new_file` does."""
    with new_file(path) as file:
        file.write(data)


def followed(path: Path) -> Path:
    """Follow symbolic links. One that is left is of /proc: what a process has open has no name that may be replaced.

    Raises OSError for links that lead in circles.
    """
    for _ in range(_LINKS):
        parent = os.path.realpath(path.parent)
        if not path.is_symlink() or parent.startswith("/proc/"):
            return Path(parent, path.name)
        path = Path(parent, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """Write to a hidden file beside `path` and rename it; what dead processes left of this sort goes first."""
    _sweep_beside(path)
    staged = path.with_name(f".{path.name}.{os.urandom(_TOKEN).hex()}")
    try:
        with _locked_file(staged) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.rename(staged, path)
    finally:
        with contextlib.suppress(OSError):  # renamed, as it should be, or left for the next sweep
            os.unlink(staged)
    sync_folder(path.absolute().parent)


def _locked_file(path: Path) -> BinaryIO:
    while True:  # until a sweep has not come between the making and the lock
        file = open(path, "xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


_LINKS: Final = 40  # links that lead to links, as in the kernel
_TOKEN: Final = 8  # random bytes in the name of a file that is being written


def _sweep_beside(path: Path) -> None:
    is_staged = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * _TOKEN}}}").fullmatch
    for name in filter(is_staged, os.listdir(path.absolute().parent)):
        left = path.with_name(name)
        with contextlib.suppress(OSError):  # in use, gone already, or not ours to remove
            fd = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink:  # else another sweep was first, and the name may be in use again
                    os.unlink(left)
            finally:
                os.close(fd)


def sweep(staging: Path) -> int:
    """Remove what writers that no longer exist left in a staging folder; return how many."""
    removed = 0
    try:
        names = os.listdir(staging)
    except FileNotFoundError:
        return 0
    for name in names:
        path = staging / name
        with contextlib.suppress(OSError), open(path, "rb") as file:  # gone already, or left for the next sweep
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if os.fstat(file.fileno()).st_nlink:  # else another sweep was first, and the name may be in use again
                os.unlink(path)
                removed += 1
    with contextlib.suppress(OSError):
        os.rmdir(staging)
    return removed


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock on a folder, against other processes and threads alike."""
    with storage_errors(f"cannot lock {folder}"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with storage_errors(f"cannot lock {folder}"):
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
