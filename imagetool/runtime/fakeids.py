"""Pretend that files can have other owners where a user namespace has one id only.

A seccomp filter answers 0 to the system calls that would change an owner or an identity, or make a
device, and does not do them. Package managers then run through; what they make belongs to root.
apt alone looks whether it has become the user that it downloads as, and is told to stay root.

Source: seccomp(2); include/uapi/linux/bpf_common.h and filter.h; apt.conf(5).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import Any, Final

from imagetool.safefs.openat2 import open_in_root

#: Per machine: its audit number, calls that change owner or identity, and (mknod, position of its mode).
_CALLS: Final = {
    # chown fchown lchown fchownat, set{uid,gid,reuid,regid,groups,resuid,resgid,fsuid,fsgid}
    "x86_64": (0xC000003E, (92, 93, 94, 260, 105, 106, 113, 114, 116, 117, 119, 122, 123), ((133, 1), (259, 2))),
    "aarch64": (0xC00000B7, (55, 54, 146, 144, 145, 143, 159, 147, 149, 151, 152), ((33, 2),)),
}
_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _ERRNO_ZERO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
#: In the container's own /dev, so that it is neither part of the image nor in the way there.
_APT: Final = "apt.conf"
_APT_TEXT: Final = b'APT::Sandbox::User "root";\n'


def keep_apt_root(root: int, spec: dict[str, Any]) -> None:
    """Have an apt of the image stay root, by a file and a variable, unless the image sets that itself.

    Args:
        root: of the container, mounted and with its /dev. Raises OSError.
        spec: the container's, whose environment gains the variable.
    """
    if any(mount["destination"].rstrip("/") == "/dev" and mount["type"] != "tmpfs" for mount in spec["mounts"]):
        return
    folder = os.O_PATH | os.O_DIRECTORY
    try:
        os.close(open_in_root(root, b"etc/apt", folder))
    except OSError:
        return
    dev = open_in_root(root, b"dev", folder)
    try:
        fd = os.open(_APT, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=dev)
    finally:
        os.close(dev)
    os.write(fd, _APT_TEXT)
    os.close(fd)
    spec["process"]["env"].insert(0, f"APT_CONFIG=/dev/{_APT}")


def fake_ids_filter() -> bytes:
    """Return the BPF program for this machine; b"" on an architecture it does not know."""
    known = _CALLS.get(os.uname().machine)
    return b"".join(_program(*known)) if known else b""


def _program(architecture: int, owners: tuple[int, ...], devices: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    yield instruction(_LOAD, _ARCHITECTURE)
    yield instruction(_JUMP_EQUAL, architecture, 1)
    yield instruction(_RETURN, _ALLOW)
    yield instruction(_LOAD, _NUMBER)
    for number in owners:
        yield instruction(_JUMP_EQUAL, number, 0, 1)
        yield instruction(_RETURN, _ERRNO_ZERO)
    for number, position in devices:  # FIFOs and sockets are made for real
        yield instruction(_JUMP_EQUAL, number, 0, 6)
        yield instruction(_LOAD, _ARGUMENTS + 8 * position)
        yield instruction(_AND, stat.S_IFMT(0o177777))
        yield instruction(_JUMP_EQUAL, stat.S_IFCHR, 2)
        yield instruction(_JUMP_EQUAL, stat.S_IFBLK, 1)
        yield instruction(_RETURN, _ALLOW)
        yield instruction(_RETURN, _ERRNO_ZERO)
    yield instruction(_RETURN, _ALLOW)
