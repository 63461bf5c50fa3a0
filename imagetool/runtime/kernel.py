"""The system calls of containers that Python does not have, through ctypes.

Errors are OSError. Imported by the zygote, so it stays light.

Source: the man pages of each; kernel mount API, include/uapi/linux/mount.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Any, Final

_libc = ctypes.CDLL(None, use_errno=True)
_ARM: Final = platform.machine() == "aarch64"
_NUMBERS: Final = {
    "openat2": 437,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "move_mount": 429,
    "mount_setattr": 442,
    "close_range": 436,
    "execveat": 281 if _ARM else 322,
    "pivot_root": 41 if _ARM else 155,
    "capset": 91 if _ARM else 126,
}
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE, MS_STRICTATIME = 4096, 16384, 1 << 18, 1 << 24
MNT_DETACH: Final = 2
CLONE: Final = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}
CAPABILITIES: Final = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def call(name: str, *args: Any) -> int:
    """Make a system call by name with integers and bytes."""
    converted = [ctypes.c_char_p(arg) if isinstance(arg, bytes) else ctypes.c_long(arg or 0) for arg in args]
    return _check(int(_libc.syscall(ctypes.c_long(_NUMBERS[name]), *converted)), name)


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount a filesystem."""
    arguments = (os.fsencode(source), os.fsencode(target), os.fsencode(kind), ctypes.c_ulong(flags), os.fsencode(data))
    _check(_libc.mount(*arguments), f"mount {kind} on {target}")


def unmount(target: str, flags: int = 0) -> None:
    """Unmount a filesystem."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"unmount {target}")


def prctl(option: int, *args: int) -> int:
    """Change this process."""
    values = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(ctypes.c_int(option), *values), f"prctl {option}")


def set_mount_flags(fd: int, flags: int, *, recursive: bool = False) -> None:
    """Set read-only (1), nosuid (2), nodev (4) or noexec (8) on the mount an O_PATH descriptor stands on."""
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    call("mount_setattr", fd, b"", 0x1000 | (0x8000 if recursive else 0), attributes, len(attributes))


def mount_overlay(target: str, lowers: list[str], upper: str, work: str, *, userxattr: bool) -> None:
    """Mount an overlay, each lower directory in a call of its own: no option length, nothing to escape."""
    fd = call("fsopen", b"overlay", 1)
    try:
        for lower in lowers:
            call("fsconfig", fd, 1, b"lowerdir+", os.fsencode(lower), 0)
        call("fsconfig", fd, 1, b"upperdir", os.fsencode(upper), 0)
        call("fsconfig", fd, 1, b"workdir", os.fsencode(work), 0)
        if userxattr:
            call("fsconfig", fd, 0, b"userxattr", 0, 0)
        call("fsconfig", fd, 6, 0, 0, 0)
        mounted = call("fsmount", fd, 1, 0)
    except OSError:
        _mount_overlay_by_options(target, lowers, upper, work, userxattr)  # kernels before 6.5 have no lowerdir+
        return
    finally:
        os.close(fd)
    call("move_mount", mounted, b"", -100, os.fsencode(target), 4)
    os.close(mounted)


def _mount_overlay_by_options(target: str, lowers: list[str], upper: str, work: str, userxattr: bool) -> None:
    def escaped(path: str) -> str:
        return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")

    options = f"lowerdir={':'.join(map(escaped, lowers))},upperdir={escaped(upper)},workdir={escaped(work)}"
    mount("overlay", target, "overlay", 0, options + (",userxattr" if userxattr else ""))


def set_capabilities(names: list[str], uid: int, gid: int, groups: list[int]) -> None:
    """Become `uid`:`gid` with no more than the named capabilities, none of them inheritable or ambient.

    What this process does not hold cannot be asked for and is left out.
    """
    wanted = sum(1 << CAPABILITIES.index(name.removeprefix("CAP_")) for name in names)
    for number in range(64):
        if not wanted >> number & 1 and not _drop_bounding(number):
            break
    prctl(8, 1)  # PR_SET_KEEPCAPS
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:  # one-id user namespaces deny setgroups; then there are no other groups to have
            raise
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    permitted = _held() & wanted if uid == 0 else 0
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    call("capset", struct.pack("Ii", 0x20080522, 0), struct.pack("6I", low, low, 0, high, high, 0))
    prctl(47, 4)  # PR_CAP_AMBIENT_CLEAR_ALL


def _drop_bounding(number: int) -> bool:
    """Drop a capability from the bounding set; False past the last one the kernel knows."""
    try:
        prctl(24, number)
    except OSError as error:
        if error.errno == 22:
            return False
        raise
    return True


def _held() -> int:
    header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    words = struct.unpack("6I", data.raw)
    return int(words[1] | words[4] << 32)
