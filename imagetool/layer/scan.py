"""What an overlay's upper directory says changed, as the entries of a layer.

The scan costs what the change costs, not what the image costs.

Source: kernel Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from imagetool.errors import InvalidArchive, StorageError
from imagetool.layer.entry import Entry, Item, Kind, display
from imagetool.layer.whiteout import OPAQUE, PREFIX
from imagetool.limits import CHUNK

_KIND: Final[dict[int, Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}
_OVERLAY: Final = (b"trusted.overlay.", b"user.overlay.")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Attributes that describe the host or its file system, not the file.
_HOST_XATTRS: Final = (b"security.selinux", b"security.ima", b"security.evm", b"system.nfs4_acl")

Warn = Callable[[str], None]


def scan_upper(upper: Path, *, clamp: int | None, warn: Warn) -> Iterator[Item]:
    """Yield the layer that turns the lower directories into the merged view of an overlay.

    Entries come in depth-first order, names sorted; a directory before what is in it. Kernel
    whiteouts become `.wh.` entries, opaque directories get an opaque marker. Files with several
    names become hard links to the first. Sockets are left out with a warning.

    Args:
        upper: the overlay's upper directory, no longer mounted.
        clamp: the latest time, in nanoseconds, that an entry may have; None keeps all times.
            Later times are set back in the directory too, so that a later build step sees what
            one that starts from the finished layer would see.
        warn: called with a line for whatever was left out.
    """
    fd = os.open(upper, _FOLDER)
    try:
        yield from _folder(fd, b"", _Scan(clamp, warn))
    finally:
        os.close(fd)


class _Scan:
    def __init__(self, clamp: int | None, warn: Warn) -> None:
        self.clamp = clamp
        self.warn = warn
        self.links: dict[tuple[int, int], bytes] = {}

    def time(self, status: os.stat_result, name: bytes, folder: int) -> int:
        mtime = status.st_mtime_ns
        if self.clamp is None or mtime <= self.clamp:
            return mtime
        os.utime(name, ns=(self.clamp, self.clamp), dir_fd=folder, follow_symlinks=False)
        return self.clamp


def _folder(fd: int, prefix: bytes, scan: _Scan) -> Iterator[Item]:
    for base in sorted(map(os.fsencode, os.listdir(fd))):
        name = prefix + base
        status = os.stat(base, dir_fd=fd, follow_symlinks=False)
        kind = _KIND.get(stat.S_IFMT(status.st_mode))
        if kind == "char" and status.st_rdev == 0:
            yield Entry(prefix + PREFIX + base, "file", 0, mtime=scan.clamp or 0), ()
            continue
        if base.startswith(PREFIX):
            raise InvalidArchive(f"{display(name)}: a layer cannot hold a file whose name begins with .wh.")
        if kind is None:
            scan.warn(f"{display(name)} is a socket and is left out of the layer")
            continue
        if kind == "dir":
            yield from _subfolder(fd, base, name, status, scan)
        else:
            yield _leaf(fd, base, name, kind, status, scan)


def _subfolder(above: int, base: bytes, name: bytes, status: os.stat_result, scan: _Scan) -> Iterator[Item]:
    fd = os.open(base, _FOLDER, dir_fd=above)
    try:
        xattrs = read_xattrs(fd)
        opaque = any(xattrs.pop(prefix + b"opaque", b"") == b"y" for prefix in _OVERLAY)
        mtime = status.st_mtime_ns if scan.clamp is None else min(status.st_mtime_ns, scan.clamp)
        yield (
            Entry(
                name, "dir", stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, 0, mtime, xattrs=_own(xattrs)
            ),
            (),
        )
        if opaque:
            yield Entry(name + b"/" + OPAQUE, "file", 0, mtime=scan.clamp or 0), ()
        yield from _folder(fd, name + b"/", scan)
    finally:
        os.close(fd)
    scan.time(status, base, above)


def _leaf(folder: int, base: bytes, name: bytes, kind: Kind, status: os.stat_result, scan: _Scan) -> Item:
    mtime = scan.time(status, base, folder)
    mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    if status.st_nlink > 1:
        first = scan.links.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            return Entry(name, "link", mode, uid, gid, 0, mtime, first), ()
    if kind == "file":
        fd = os.open(base, _FILE, dir_fd=folder)
        xattrs = _own(read_xattrs(fd))
        return Entry(name, kind, mode, uid, gid, status.st_size, mtime, xattrs=xattrs), file_content(fd, status.st_size)
    linkname = os.readlink(base, dir_fd=folder) if kind == "symlink" else b""
    device = status.st_rdev if kind in ("char", "block") else 0
    return Entry(name, kind, mode, uid, gid, 0, mtime, linkname, os.major(device), os.minor(device)), ()


def read_xattrs(fd: int) -> dict[bytes, bytes]:
    """Return the extended attributes of an open file that belong to it rather than to the host."""
    try:
        names = os.listxattr(fd)
    except OSError:  # a file system without extended attributes
        return {}
    found = {}
    for name in map(os.fsencode, names):
        if name not in _HOST_XATTRS:
            found[name] = os.getxattr(fd, name)
    return found


def _own(xattrs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in xattrs.items() if not name.startswith(_OVERLAY)}


def file_content(fd: int, size: int) -> Iterable[bytes]:
    """Return the content of an open file and close it: small ones at once, others as they are asked for."""
    if size <= CHUNK:
        try:
            data = os.read(fd, size + 1) if size else b""
        finally:
            os.close(fd)
        return (data,)
    return _chunks(fd, size)


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    try:
        left = size
        while left > 0 and (data := os.read(fd, min(CHUNK, left))):
            left -= len(data)
            yield data
    except OSError as error:
        raise StorageError(f"cannot read a file for the layer: {error.strerror}") from error
    finally:
        os.close(fd)
