"""What an overlay's upper directory says changed, as the entries of a layer.

The scan costs what the change costs, not what the image costs.

Source: kernel Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

from imagetool import limits
from imagetool.errors import InvalidArchive, StorageError
from imagetool.layer import fuse
from imagetool.layer.entry import OVERLAY_XATTRS, Entry, Item, Kind, display, is_private
from imagetool.layer.whiteout import OPAQUE, PREFIX
from imagetool.limits import CHUNK
from imagetool.safefs.holes import ZEROS
from imagetool.safefs.openat2 import open_beneath

KIND_OF_TYPE: Final[dict[int, Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Warn = Callable[[str], None]
Dialect = Literal["kernel", "fuse"]


def scan_upper(
    upper: Path, *, clamp: int | None, warn: Warn, dialect: Dialect = "kernel", pretended: bool = False
) -> Iterator[Item]:
    """Yield the layer that turns the lower directories into the merged view of an overlay.

    Entries come in depth-first order, names sorted; a directory before what is in it. Kernel
    whiteouts become `.wh.` entries, opaque directories get an opaque marker. Files with several
    names become hard links to the first. Sockets are left out with a warning. The root itself
    is not an entry: what a step does to the mode or owner of / is not carried on.

    Args:
        upper: the overlay's upper directory, no longer mounted. It must have been mounted
            without redirect_dir and metacopy, whose marks a layer cannot express.
        clamp: the latest time, in nanoseconds, that an entry may have; None keeps all times.
            Later times are set back in the directory too, so that a later build step sees what
            one that starts from the finished layer would see.
        warn: called with a line for whatever was left out.
        dialect: whose upper directory it is, the kernel's (trusted.* or user.* attributes) or
            fuse-overlayfs's, which has marks of its own (`layer.fuse`).
        pretended: owners were (`runtime.fakeids`), so that all belongs to root: files that are set-group-id were
            meant for a lesser group, lose that bit, in the directory too, and `warn` is told of the first.

    Raises StorageError for what cannot be read, InvalidArchive for what a layer cannot say.
    """
    try:
        yield from _Scan(clamp, warn, is_fuse=dialect == "fuse", pretended=pretended).entries(upper)
    except OSError as error:
        raise StorageError(f"cannot read the changes in {upper}: {error.strerror}") from error


class _Scan:
    def __init__(self, clamp: int | None, warn: Warn, *, is_fuse: bool, pretended: bool) -> None:
        self._pretended = pretended
        self._told = False
        self._is_fuse = is_fuse
        self._clamp = clamp
        self._warn = warn
        self._links: dict[tuple[int, int], bytes] = {}

    def entries(self, upper: Path) -> Iterator[Item]:
        """Walk without recursion and with two directories open, for trees of any depth."""
        root = os.open(upper, _FOLDER)
        fd = os.dup(root)
        try:
            waiting = [(b"", self._names(fd)[0])]
            while waiting:
                prefix, names = waiting[-1]
                if not names:
                    waiting.pop()
                    if waiting:
                        fd = _instead(fd, open_beneath(root, waiting[-1][0], _FOLDER))
                    continue
                base = names.pop()
                name = prefix + base
                status = os.stat(base, dir_fd=fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    yield from self._leaf(fd, base, prefix, status)
                    continue
                check_name(name)
                mtime = self._time(status, base, fd)
                fd = _instead(fd, os.open(base, _FOLDER, dir_fd=fd))
                children, is_marked = self._names(fd)
                yield from self._folder(fd, name, status, mtime, is_marked=is_marked)
                waiting.append((name + b"/", children))
        finally:
            os.close(fd)
            os.close(root)

    def _leave_set_gid(self, fd: int, mode: int, name: bytes) -> None:
        os.fchmod(fd, mode)
        if not self._told:
            self._told = True
            self._warn(
                f"{display(name)} is set-group-id for a group that could not be set: with one id that is root's, so "
                "the bit is left out, here and wherever else it occurs"
            )

    def _leaf(self, folder: int, base: bytes, prefix: bytes, status: os.stat_result) -> Iterator[Item]:
        name = prefix + base
        kind = KIND_OF_TYPE.get(stat.S_IFMT(status.st_mode))
        if kind == "char" and status.st_rdev == 0:
            yield self._whiteout(prefix, base)
            return
        if self._is_fuse and base.startswith(PREFIX):
            yield self._whiteout(prefix, base[len(PREFIX) :])
            return
        check_name(name)
        if kind is None:
            self._warn(f"{display(name)} is a socket and is left out of the layer")
            return
        mtime = self._time(status, base, folder)
        mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                yield Entry(name, "link", mode, uid, gid, 0, mtime, first), ()
                return
        if kind == "file":
            fd = os.open(base, _FILE, dir_fd=folder)
            xattrs = read_xattrs(fd)
            if status.st_size == 0 and any(mark + b"whiteout" in xattrs for mark in OVERLAY_XATTRS):
                os.close(fd)  # how an overlay on an overlay marks them, since Linux 6.7
                yield self._whiteout(prefix, base)
                return
            if self._is_fuse:
                uid, gid, mode = fuse.stated(xattrs, (uid, gid, mode), name)
            xattrs = _own(xattrs, name)
            if self._pretended and mode & stat.S_ISGID:
                mode &= ~stat.S_ISGID
                self._leave_set_gid(fd, mode, name)
            content = file_content(fd, status.st_size)
            yield Entry(name, kind, mode, uid, gid, status.st_size, mtime, xattrs=xattrs), content
            return
        linkname = os.readlink(base, dir_fd=folder) if kind == "symlink" else b""
        device = status.st_rdev if kind in ("char", "block") else 0
        xattrs = read_xattrs(b"/proc/self/fd/%d/%b" % (folder, base))
        if self._is_fuse:
            uid, gid, mode = fuse.stated(xattrs, (uid, gid, mode), name)
        xattrs = _own(xattrs, name)
        yield Entry(name, kind, mode, uid, gid, 0, mtime, linkname, os.major(device), os.minor(device), xattrs), ()

    def _folder(self, fd: int, name: bytes, status: os.stat_result, mtime: int, *, is_marked: bool) -> Iterator[Item]:
        xattrs = read_xattrs(fd)
        opaque = is_marked or any(xattrs.pop(prefix + b"opaque", b"") == b"y" for prefix in OVERLAY_XATTRS)
        uid, gid, mode = status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
        if self._is_fuse:
            opaque = opaque or fuse.is_opaque(xattrs)
            uid, gid, mode = fuse.stated(xattrs, (uid, gid, mode), name)
        yield Entry(name, "dir", mode, uid, gid, 0, mtime, xattrs=_own(xattrs, name)), ()
        if opaque:
            yield Entry(name + b"/" + OPAQUE, "file", 0, mtime=self._clamp or 0), ()

    def _whiteout(self, prefix: bytes, base: bytes) -> Item:
        return Entry(prefix + PREFIX + base, "file", 0, mtime=self._clamp or 0), ()

    def _names(self, fd: int) -> tuple[list[bytes], bool]:
        """Return the names in a directory, the first one last, and whether a file there marks it as opaque."""
        names = sorted(map(os.fsencode, os.listdir(fd)), reverse=True)
        if not self._is_fuse or OPAQUE not in names:
            return names, False
        return [name for name in names if name not in fuse.MARKERS], True

    def _time(self, status: os.stat_result, base: bytes, folder: int) -> int:
        mtime = status.st_mtime_ns
        if self._clamp is None or mtime <= self._clamp:
            return mtime
        os.utime(base, ns=(self._clamp, self._clamp), dir_fd=folder, follow_symlinks=False)
        return self._clamp


def _instead(old: int, new: int) -> int:
    os.close(old)
    return new


def check_name(name: bytes) -> None:
    """Raise InvalidArchive for a path that a layer cannot hold."""
    if name.rpartition(b"/")[2].startswith(PREFIX):
        raise InvalidArchive(f"{display(name)}: a layer cannot hold a file whose name begins with .wh.")
    if len(name) >= limits.TAR_NAME_BYTES:
        raise InvalidArchive(f"{display(name)[:80]}…: a path of {len(name)} bytes is too long for a layer")


def read_xattrs(file: int | bytes) -> dict[bytes, bytes]:
    """Return the extended attributes of a file that belong to it, or to an overlay, rather than to the host.

    Args:
        file: a descriptor, or a path whose last component is not followed.
    """
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # a file system without extended attributes
            return {}
        raise
    found = {}
    for name in map(os.fsencode, names):
        if name.startswith(OVERLAY_XATTRS) or not is_private(name):
            found[name] = os.getxattr(file, name, follow_symlinks=follow)
    return found


def _own(xattrs: dict[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    """Leave out the overlay's own attributes; raises StorageError for those that say where a file's content is."""
    for attribute in xattrs:
        if attribute.startswith(OVERLAY_XATTRS) and attribute.endswith((b".redirect", b".metacopy")):
            raise StorageError(f"{display(name)} has {display(attribute)}: mount overlays without it")
    return {name: value for name, value in xattrs.items() if not is_private(name)}


def file_content(fd: int, size: int) -> Iterable[bytes]:
    """Return the content of an open file and close it: small ones at once, others as they are asked for.

    Holes are not read. Content that nobody reads closes the file all the same. Raises StorageError.
    """
    if size > CHUNK:
        content = _chunks(fd, size)
        next(content)  # started, so that dropping it closes the file
        return content
    try:
        data = os.read(fd, size + 1) if size else b""
    except OSError as error:
        raise StorageError(f"cannot read a file for the layer: {error.strerror}") from error
    finally:
        os.close(fd)
    return (data,)


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    try:
        yield b""
        for start, end, is_hole in _regions(fd, size):
            while is_hole and start < end:
                yield ZEROS[: end - start]
                start += CHUNK
            while start < end and (data := os.pread(fd, min(CHUNK, end - start), start)):
                start += len(data)
                yield data
            if start < end:
                return  # it was cut meanwhile, as the writer will notice
    except OSError as error:
        raise StorageError(f"cannot read a file for the layer: {error.strerror}") from error
    finally:
        os.close(fd)


def _regions(fd: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield where data and holes of a file start and end, and whether it is a hole."""
    at = 0
    while at < size:
        try:
            data = min(os.lseek(fd, at, os.SEEK_DATA), size)
        except OSError as error:
            if error.errno != errno.ENXIO or os.fstat(fd).st_size < size:
                raise
            data = size
        if data > at:
            yield at, data, True
        at = data
        if at < size:
            at = min(os.lseek(fd, data, os.SEEK_HOLE), size)
            yield data, at, False
