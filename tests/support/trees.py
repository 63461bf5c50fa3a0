"""What a directory tree holds, as a value that two trees can be compared by."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

#: Attributes of the host or of an overlay mount; no layer carries them.
_NOT_CARRIED = (b"trusted.overlay.", b"user.overlay.", b"security.selinux", b"security.ima", b"security.evm")


def describe(path: Path, *, owners: bool = True, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Return path -> (kind, mode, uid, gid, mtime, what it holds, xattrs, first name) of all below `path`.

    What it holds: a file's size and digest, a symlink's target, a node's device number. `first
    name` is the first path, in sorted order, of the same inode. The root itself is left out.
    Directories' sizes and inode numbers do not count.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], bytes] = {}
    for name in sorted(_walk(os.fsencode(path), b"")):
        full = os.path.join(os.fsencode(path), name)
        status = os.lstat(full)
        is_folder = stat.S_ISDIR(status.st_mode)
        first = name if is_folder else inodes.setdefault((status.st_dev, status.st_ino), name)
        found[name] = (
            stat.S_IFMT(status.st_mode),
            0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode),
            (status.st_uid, status.st_gid) if owners else None,
            status.st_mtime_ns if times else None,
            _held(full, status),
            _xattrs(full),
            first,
        )
    return found


def _walk(root: bytes, prefix: bytes) -> list[bytes]:
    found = []
    for base in os.listdir(os.path.join(root, prefix)):
        name = os.path.join(prefix, base)
        found.append(name)
        if stat.S_ISDIR(os.lstat(os.path.join(root, name)).st_mode):
            found += _walk(root, name)
    return found


def _held(full: bytes, status: os.stat_result) -> object:
    if stat.S_ISREG(status.st_mode):
        with open(full, "rb") as file:
            return status.st_size, hashlib.file_digest(file, "sha256").hexdigest()
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(full)
    return status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else None


def _xattrs(full: bytes) -> tuple[tuple[bytes, bytes], ...]:
    names = sorted(map(os.fsencode, os.listxattr(full, follow_symlinks=False)))
    return tuple(
        (name, os.getxattr(full, name, follow_symlinks=False)) for name in names if not name.startswith(_NOT_CARRIED)
    )
