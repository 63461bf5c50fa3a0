"""Resolve a path so that it cannot leave a directory, whatever symlinks it meets.

With the openat2 system call (Linux 5.6) the kernel does it in one step, free of races. Without
it the path is walked one component at a time, never following a symlink that the kernel would
follow for us.

Source: openat2(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

_SYS_OPENAT2: Final = 437  # the same on every architecture
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_BENEATH: Final = 0x08
_IN_ROOT: Final = 0x10
_HOW: Final = struct.Struct("QQQ")
_LINKS: Final = 40  # symlinks in one resolution, as in the kernel
_DEPTH: Final = 256  # directories held open by the walk; the system call has no such bound
_TRIES: Final = 128  # renames that may disturb one resolution

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]


class _Kernel:
    """Whether the kernel has openat2; found out at the first call."""

    has_openat2 = True


def open_in_root(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as a process chrooted to `root` would: ".." stops there, absolute links start there.

    Args:
        root: a directory's file descriptor.
        path: relative or absolute; a final symlink is followed unless flags hold O_NOFOLLOW.
        flags: as for os.open; O_CLOEXEC is added.

    Returns a file descriptor. Raises OSError.
    """
    return _open(root, path, flags, mode, _IN_ROOT | _NO_MAGICLINKS)


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open `path` below `root` without meeting any symlink at all. Raises OSError (ELOOP, EXDEV)."""
    return _open(root, path, flags, mode, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)


def _open(root: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    path = path.lstrip(b"/") or b"."
    flags |= os.O_CLOEXEC
    if b"\0" in path:
        raise OSError(errno.EINVAL, "a path with a NUL", path)
    if _Kernel.has_openat2:
        how = _HOW.pack(flags, mode if flags & (os.O_CREAT | os.O_TMPFILE) else 0, resolve)
        for _ in range(_TRIES):
            fd = int(_syscall(_SYS_OPENAT2, root, path, how, _HOW.size))
            if fd >= 0:
                return fd
            code = ctypes.get_errno()
            if code not in (errno.EINTR, errno.EAGAIN):  # EAGAIN: a rename elsewhere made the walk uncertain
                break
        if code not in (errno.ENOSYS, errno.EPERM) or (code == errno.EPERM and _answers(root)):
            raise OSError(code, os.strerror(code), path)
        _Kernel.has_openat2 = False
    return walk_open(root, path, flags, mode, follow=bool(resolve & _IN_ROOT))


def _answers(root: int) -> bool:
    """Say whether the system call works at all; an old seccomp filter answers EPERM to every use of it."""
    fd = int(_syscall(_SYS_OPENAT2, root, b".", _HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, 0), _HOW.size))
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def walk_open(root: int, path: bytes, flags: int, mode: int = 0, *, follow: bool) -> int:
    """Do the same one component at a time, for kernels without openat2.

    Every directory on the way is held open, so that ".." is answered from memory and a
    directory that is moved meanwhile cannot lead outside. Raises OSError, ENAMETOOLONG also for
    a path through more than 256 directories.
    """
    stack = [os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)]
    waiting = _parts(path)
    links = 0
    try:
        while waiting:
            part = waiting.pop()
            if part == b".":
                continue
            if part == b"..":
                if not follow and len(stack) == 1:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            target = _readlink(stack[-1], part)
            last = not waiting
            if target is not None and not (last and flags & os.O_NOFOLLOW):
                links += 1
                if not follow or links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith(b"/"):
                    for fd in stack[1:]:
                        os.close(fd)
                    del stack[1:]
                waiting += _parts(target)
                continue
            if len(stack) > _DEPTH:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
            if last:
                return os.open(part, flags | os.O_NOFOLLOW, mode, dir_fd=stack[-1])
            stack.append(os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1]))
        return os.open(b".", flags, mode, dir_fd=stack[-1])
    finally:
        for fd in stack:
            os.close(fd)


def _parts(path: bytes) -> list[bytes]:
    """Return the components of a path, the last one first. A "." stays: what stands before it must be a directory."""
    parts = [part for part in reversed(path.split(b"/")) if part]
    return [b".", *parts] if path.endswith(b"/") else parts


def _readlink(folder: int, name: bytes) -> bytes | None:
    """Return a symlink's target; None for anything else, also for what does not exist."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
