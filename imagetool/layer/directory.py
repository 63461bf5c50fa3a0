"""What a directory tree holds, as a value that can be kept and compared with the tree of later.

A scan costs one lstat a path. What lstat cannot tell (attributes, targets of symlinks) is read
only where the tree is new or changed since a scan that is known; files are never read.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from imagetool.errors import StorageError
from imagetool.layer.scan import read_xattrs
from imagetool.safefs.openat2 import open_beneath
from imagetool.values import dataclass, field

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_PLACE: Final = os.O_PATH | os.O_NOFOLLOW
_64_BITS: Final = (1 << 64) - 1
_READABLE: Final = 0o500
_OPENED: Final = (stat.S_IFREG, stat.S_IFDIR)  # what `unpack` has open when it gives them attributes
_ENCODING: Final = sys.getfilesystemencoding()
_NODE: Final = 0o130000  # of the type bits: these are a character device's in those of both kinds of devices
_new: Final = tuple.__new__  # of a NamedTuple, without going through its own constructor


class Record(NamedTuple):
    """What lstat says of one path; times in nanoseconds. Equal records mean: nobody touched it.

    mode: with the type bits. inode: also tells file systems apart, within one scan.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    inode: int
    nlink: int
    device: int


@dataclass(frozen=True, slots=True)
class Scan:
    """A directory tree at one moment; the root is b".". Paths are relative bytes, as `Entry.name`.

    xattrs: of the paths that have any. targets: of the symlinks.
    """

    records: dict[bytes, Record] = field(default_factory=dict)
    xattrs: dict[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)
    targets: dict[bytes, bytes] = field(default_factory=dict)


def scan_directory(root: Path, *, known: Scan | None = None, attributed: Set[int] | None = None) -> Scan:
    """Scan a tree that nobody changes meanwhile.

    Args:
        known: an earlier scan of the same tree; what it says is taken over for untouched paths.
        attributed: inodes of the files and directories that have extended attributes, when that is
            known (`unpack`); the others are not asked for them.

    Raises StorageError.
    """
    known = known or Scan()
    found = Scan()
    try:
        with _opened(root) as fd:
            devices = {os.fstat(fd).st_dev: 0}
            found.records[b"."] = _record(os.fstat(fd), devices)
            if xattrs := read_xattrs(fd):
                found.xattrs[b"."] = xattrs
            waiting = [b""]
            while waiting:
                waiting += _scan_folder(fd, waiting.pop(), devices, known, attributed, found)
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError) and root.exists()
        why = "it changed meanwhile; try again" if is_gone else error.strerror
        raise StorageError(f"cannot scan {root}: {why}") from error
    return found


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _scan_folder(
    root: int, prefix: bytes, devices: dict[int, int], known: Scan, attributed: Set[int] | None, found: Scan
) -> list[bytes]:
    """Record what is in a directory; return the prefixes of the directories in it."""
    deeper = []
    records, before = found.records, known.records.get
    with readable(root, prefix or b".", _FOLDER) as (fd, was_closed), os.scandir(fd) as children:
        for child in children:
            base = child.name.encode(_ENCODING, "surrogateescape")
            name = prefix + base
            status = child.stat(follow_symlinks=False)
            records[name] = record = _record(status, devices)
            kind = record[0] & 0o170000
            if kind == stat.S_IFDIR:
                deeper.append(name + b"/")
            if attributed is not None and kind in _OPENED and status.st_ino not in attributed:
                continue
            if record == before(name):
                if name in known.xattrs:
                    found.xattrs[name] = known.xattrs[name]
                if name in known.targets:
                    found.targets[name] = known.targets[name]
                continue
            _look_into(root, fd, base, name, devices, found)
    if was_closed and prefix:  # its ctime is another one now
        records[prefix[:-1]] = _record(_lstat(root, prefix[:-1]), devices)
    return deeper


def _look_into(root: int, folder: int, base: bytes, name: bytes, devices: dict[int, int], found: Scan) -> None:
    """Record what lstat does not say of a path that was touched."""
    if stat.S_ISLNK(found.records[name].mode):
        found.targets[name] = os.readlink(base, dir_fd=folder)
    try:
        xattrs = read_xattrs(b"/proc/self/fd/%d/%b" % (folder, base))
    except PermissionError:  # to read them needs what to read the file needs
        with readable(root, name, _FILE) as (file, _):
            xattrs = read_xattrs(file)
        found.records[name] = _record(_lstat(root, name), devices)
    if xattrs:
        found.xattrs[name] = xattrs


def _record(status: os.stat_result, devices: dict[int, int]) -> Record:
    number = devices.get(status.st_dev)
    if number is None:
        number = devices[status.st_dev] = len(devices)
    place = status.st_ino
    if number:  # not the file system of the root
        place = (place ^ number << 48) & _64_BITS
    mode = status.st_mode
    fields = (
        mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        place,
        status.st_nlink,
        status.st_rdev if mode & _NODE == stat.S_IFCHR else 0,
    )
    return _new(Record, fields)


def _lstat(root: int, name: bytes) -> os.stat_result:
    fd = open_beneath(root, name, _PLACE)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


@contextmanager
def readable(root: int, name: bytes, flags: int) -> Iterator[tuple[int, bool]]:
    """Open what an ordinary user owns but may not read, with its mode put back at the end.

    Yields the descriptor, and whether the mode had to be changed. Raises OSError.
    """
    mode = -1
    try:
        fd = open_beneath(root, name, flags)
    except PermissionError:
        place = open_beneath(root, name, _PLACE)
        try:
            mode = stat.S_IMODE(os.fstat(place).st_mode)
            os.chmod(f"/proc/self/fd/{place}", mode | _READABLE)
            fd = open_beneath(root, name, flags)
        finally:
            os.close(place)
    try:
        yield fd, mode >= 0
    finally:
        if mode >= 0:
            os.fchmod(fd, mode)
        os.close(fd)
