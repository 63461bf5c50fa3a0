"""The Linux system calls of containers that Python does not have, through ctypes.

Errors are OSError whose text names the call. Needs Linux 5.12 (mount_setattr); numbers are
the same on every architecture unless the C library has the call by name.

Source: the man pages of each; include/uapi/linux/mount.h, prctl.h, sched.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_CLOSE_RANGE: Final = 436
_MOUNT_SETATTR: Final = 442

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_O_CLOEXEC: Final = os.O_CLOEXEC
_ATTRIBUTES: Final = struct.Struct("QQQQ")

#: Mount attributes of mount_setattr and fsmount.
MOUNT_ATTR: Final = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
}
CLONE: Final = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _syscall(what: str, number: int, *args: int | bytes | None) -> int:
    words = [arg if arg is None or isinstance(arg, bytes) else ctypes.c_long(arg) for arg in args]
    return _check(int(_libc.syscall(ctypes.c_long(number), *words)), what)


def kernel() -> tuple[int, ...]:
    """Return the first two numbers of this kernel's release."""
    parts = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def unshare(flags: int) -> None:
    """Move this process into new namespaces, by CLONE flags."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(namespace: int, kind: int) -> None:
    """Move this process into a namespace, by its descriptor and CLONE flag."""
    _check(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(kind)), "setns")


def set_file_ids(number: int) -> None:
    """Be this user and group for files alone; with root go the capabilities in force for files."""
    _libc.setfsgid(ctypes.c_uint(number))
    _libc.setfsuid(ctypes.c_uint(number))


def prctl(option: int, *args: int) -> int:
    """Change an attribute of this process."""
    words = [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4]]
    return _check(int(_libc.prctl(ctypes.c_int(option), *words)), "prctl")


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Make a mount the root of this mount namespace."""
    _check(_libc.pivot_root(new_root, put_old), "pivot_root")


def detach_mount(path: bytes) -> None:
    """Unmount lazily, never through a symlink."""
    detach_nofollow = 0x2 | 0x8
    _check(_libc.umount2(path, ctypes.c_int(detach_nofollow)), "umount2")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every file descriptor from `first` to `last`."""
    if first <= last:
        _syscall("close_range", _CLOSE_RANGE, first, last, 0)


def make_mounts_private(tree: int | None = None) -> None:
    """Cut mounts off: what is mounted there is seen nowhere else, nor the other way round.

    Args:
        tree: the descriptor of a detached mount, with what is below it; None for all of this mount namespace.
    """
    private = 1 << 18
    attributes = _ATTRIBUTES.pack(0, 0, private, 0)
    where, path, flags = (_AT_FDCWD, b"/", 0) if tree is None else (tree, b"", _AT_EMPTY_PATH)
    _syscall("mount_setattr", _MOUNT_SETATTR, where, path, flags | _AT_RECURSIVE, attributes, len(attributes))


def set_mount_attributes(fd: int, attributes: int, *, recursive: bool) -> None:
    """Set attributes on the mount that `fd` is the root of, and on those below it."""
    changed = _ATTRIBUTES.pack(attributes, _atime_mask(attributes), 0, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr", _MOUNT_SETATTR, fd, b"", flags, changed, len(changed))


def map_mount(fd: int, namespace: int, *, recursive: bool) -> None:
    """Show the files of a detached mount with owners mapped as a user namespace does. Raises OSError."""
    idmap = 0x00100000
    changed = _ATTRIBUTES.pack(idmap, 0, 0, namespace)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr idmap", _MOUNT_SETATTR, fd, b"", flags, changed, len(changed))


def _atime_mask(attributes: int) -> int:
    atime = 0x70
    return atime if attributes & atime else 0


def clone_mount(path: bytes, *, dir_fd: int = _AT_FDCWD, recursive: bool) -> int:
    """Return a detached copy of what is mounted at `path`, or of the file there; b"" means `dir_fd` itself."""
    clone = 0x1
    flags = clone | _O_CLOEXEC | (_AT_EMPTY_PATH if not path else 0) | (_AT_RECURSIVE if recursive else 0)
    return _syscall(f"open_tree {os.fsdecode(path)}", _OPEN_TREE, dir_fd, path, flags)


def new_mount(kind: str, options: list[tuple[str, str | None]], attributes: int) -> int:
    """Return a detached mount of a new filesystem.

    Args:
        kind: the filesystem's name.
        options: in order; None as value for a flag. A value has at most 255 bytes.
        attributes: of MOUNT_ATTR.
    """
    flag, string, create = 0, 1, 6
    fd = _syscall(f"fsopen {kind}", _FSOPEN, os.fsencode(kind), 1)
    try:
        for key, value in options:
            what = f"{kind} option {key}" if value is None else f"{kind} option {key}={value}"
            if value is None:
                _syscall(what, _FSCONFIG, fd, flag, os.fsencode(key), None, 0)
            else:
                _syscall(what, _FSCONFIG, fd, string, os.fsencode(key), os.fsencode(value), 0)
        _syscall(f"mount {kind}", _FSCONFIG, fd, create, None, None, 0)
        return _syscall(f"fsmount {kind}", _FSMOUNT, fd, 1, attributes)
    finally:
        os.close(fd)


def attach_mount(mount: int, target: int) -> None:
    """Attach a detached mount on what the descriptor `target` stands for."""
    both_empty = 0x4 | 0x40
    _syscall("move_mount", _MOVE_MOUNT, mount, b"", target, b"", both_empty)


def mount_by_options(kind: str, target: bytes, options: str) -> None:
    """Mount a filesystem the old way; a page of options in all."""
    arguments = (os.fsencode(kind), target, os.fsencode(kind), ctypes.c_ulong(0), os.fsencode(options))
    _check(_libc.mount(*arguments), f"mount {kind}")


def capget() -> int:
    """Return the permitted capabilities of this process as a mask."""
    header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    words = struct.unpack("6I", data.raw)
    return int(words[1] | words[4] << 32)


def capset(mask: int) -> None:
    """Hold exactly these capabilities, permitted and effective, none inheritable."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", low, low, 0, high, high, 0)
    _check(_libc.capset(header, data), "capset")


def install_seccomp_filter(program: bytes, flags: int = 0) -> None:
    """Put a classic BPF program over all later system calls of this process and its children.

    Needs CAP_SYS_ADMIN or no_new_privs. Flags are those of seccomp(2).
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    if not flags:
        filter_mode = 2
        prctl(PR_SET_SECCOMP, filter_mode, ctypes.addressof(header))
        return
    set_mode_filter, number = 1, {"x86_64": 317, "aarch64": 277}[os.uname().machine]
    _syscall("seccomp", number, set_mode_filter, flags, ctypes.addressof(header))
