"""Programs of other architectures: whether this host runs them, and how it can be made to.

The kernel starts an interpreter (qemu-user) for a program whose header matches an entry of
binfmt_misc. The entry must have flag F: then the interpreter was opened when it was registered,
and need not be in the container. As root the host's entries are used and never changed. In a user
namespace, since Linux 6.7, there are entries of its own: of ours without root, which vanish with us, and as root,
where the host has none, of each container's, which it registers itself.

Source: Linux Documentation/admin-guide/binfmt-misc.rst; elf(5).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imagetool.errors import HostError
from imagetool.oci.platform import Platform
from imagetool.runtime import syscalls
from imagetool.values import dataclass

#: Architecture -> (64 bits, little endian, e_machine of ELF, what qemu calls it).
_MACHINES: Final = {
    "386": (False, True, 3, "i386"),
    "amd64": (True, True, 62, "x86_64"),
    "arm": (False, True, 40, "arm"),
    "arm64": (True, True, 183, "aarch64"),
    "loong64": (True, True, 258, "loongarch64"),
    "mips64le": (True, True, 8, "mips64el"),
    "ppc64le": (True, True, 21, "ppc64le"),
    "riscv64": (True, True, 243, "riscv64"),
    "s390x": (True, False, 22, "s390x"),
}
#: What a processor runs besides its own.
_ALSO: Final = {"amd64": ("386",), "arm64": ("arm",)}
_MASK: Final = bytes([255] * 7 + [0] * 9 + [254, 255, 255, 255])  # any ABI; executables, position-independent or not
_NAME: Final = "imagetool-"
_START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from imagetool.runtime.emulation import send; send()"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of binfmt_misc: what it is called, for which first bytes, and whether it works in containers."""

    name: str
    interpreter: str
    flags: str
    magic: bytes
    mask: bytes
    enabled: bool

    def matches(self, header: bytes) -> bool:
        """Say whether a program that begins so is started by it."""
        size = len(self.magic)
        return len(header) >= size and all(
            have & mask == want & mask for have, want, mask in zip(header[:size], self.magic, self.mask, strict=True)
        )


def read_entry(name: str, text: str) -> Entry | None:
    """Read what the kernel shows of an entry; None for one that goes by the name of a file, or is not understood."""
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    fields = {line[0].rstrip(":"): line[1] if len(line) > 1 else "" for line in lines}
    try:
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
        if fields.get("offset", "0") != "0" or len(mask) != len(magic):
            return None
        return Entry(name, fields["interpreter"], fields.get("flags", ""), magic, mask, lines[0][0] == "enabled")
    except (KeyError, ValueError):
        return None


def header_of(architecture: str) -> bytes:
    """Return the first 20 bytes of a static program of an architecture."""
    wide, little, machine, _ = _MACHINES[architecture]
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if little else 2, 1]) + bytes(9)
    return identity + struct.pack("<HH" if little else ">HH", 2, machine)


def registration(architecture: str, interpreter: str) -> bytes:
    """Return the line that registers an interpreter."""
    magic, mask = ("".join(f"\\x{byte:02x}" for byte in data) for data in (header_of(architecture), _MASK))
    return f":{_NAME}{architecture}:M::{magic}:{mask}:{interpreter}:F".encode()


def runs_natively(platform: Platform, host: Platform) -> bool:
    """Say whether the processor itself runs programs of a platform."""
    return platform.architecture in ("", host.architecture, *_ALSO.get(host.architecture, ()))


@contextmanager
def emulated(platform: Platform, host: Platform, *, register: Callable[[str], bool] = lambda _: False) -> Iterator[str]:
    """Make programs of a platform run while this is open; yield the interpreter, "" when none is needed.

    Args:
        register: has each container register an interpreter in its own user namespace; False when they have none.

    Raises HostError, naming what to install, when they cannot.
    """
    if runs_natively(platform, host):
        yield ""
        return
    if platform.architecture not in _MACHINES:
        raise HostError(f"there is no emulator for {platform} known here; build it on a machine of its own")
    instance = _instance()
    try:
        header = header_of(platform.architecture)
        known = [entry for entry in _entries(instance) if entry.enabled and entry.matches(header)]
        found = next((entry for entry in known if "F" in entry.flags), None)
        if found is not None:
            yield found.interpreter
            return
        if instance is not None and not _is_hosts():
            yield _register(instance, platform)
            return
        interpreter = _interpreter(platform) if has_instances() else None
        if interpreter is None or not register(registration(platform.architecture, interpreter).decode()):
            raise HostError(_advice(platform, host, known))
        yield interpreter
    finally:
        if instance is not None:
            os.close(instance)


def has_instances() -> bool:
    """Say whether a user namespace can have entries of its own on this kernel."""
    return syscalls.kernel() >= (6, 7)


def _qemu(platform: Platform) -> str:
    return f"qemu-{_MACHINES[platform.architecture][3]}-static"


def _interpreter(platform: Platform) -> str | None:
    found = shutil.which(_qemu(platform))
    return None if found is None else os.path.abspath(found)


def _register(instance: int, platform: Platform) -> str:
    interpreter = _interpreter(platform)
    if interpreter is None:
        raise HostError(
            f"programs for {platform} need {_qemu(platform)}, which is not installed: apt-get install qemu-user-static"
        )
    try:
        fd = os.open("register", os.O_WRONLY | os.O_CLOEXEC, dir_fd=instance)
        try:
            os.write(fd, registration(platform.architecture, interpreter))
        finally:
            os.close(fd)
    except FileExistsError:  # by an earlier stage of ours
        pass
    except OSError as error:
        raise HostError(f"{interpreter} cannot be registered for {platform}: {error.strerror}") from None
    return interpreter


def _advice(platform: Platform, host: Platform, known: list[Entry]) -> str:
    text = f"programs for {platform} do not run on this {host.architecture} machine"
    if known:
        return (
            f"{text}: {known[0].interpreter} is registered for them, but without flag F, so not for containers; "
            "install it again: apt-get install --reinstall qemu-user-static"
        )
    return (
        f"{text}: no emulator is registered for them. As root: apt-get install qemu-user-static binfmt-support; "
        "without root, or with --userns auto, qemu-user-static is enough, on Linux 6.7 or newer"
    )


def emulators(host: Platform) -> list[str]:
    """Return the architectures that would run here by emulation, without changing anything."""
    instance = _instance()
    if instance is None:
        return []
    try:
        entries = [entry for entry in _entries(instance) if entry.enabled and "F" in entry.flags]
    finally:
        os.close(instance)
    others = [name for name in _MACHINES if not runs_natively(Platform(architecture=name), host)]
    return [name for name in others if any(entry.matches(header_of(name)) for entry in entries)]


def _is_hosts() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _entries(instance: int | None) -> Iterator[Entry]:
    for name in sorted(os.listdir(instance)) if instance is not None else ():
        if name in ("register", "status"):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=instance)
            with open(fd, encoding="utf-8", errors="replace") as file:
                entry = read_entry(name, file.read())
            if entry is not None:
                yield entry


def _instance() -> int | None:
    """Return a descriptor of this user namespace's binfmt_misc, mounted nowhere; None where there is none.

    Mounting takes a mount namespace of one's own, so another process does it and sends the
    result. The entries live as long as the mount, and that as long as the descriptor.
    """
    package = str(Path(__file__).resolve().parents[2])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        command = [sys.executable, "-I", "-S", "-c", _START, package]
        done = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, check=False, env={})
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if done.returncode != 0 or not descriptors:
        return None
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def send() -> None:
    """Mount binfmt_misc and send a descriptor of it on stdin; in a process of its own."""
    channel = socket.socket(fileno=os.dup(0))
    try:
        syscalls.unshare(syscalls.CLONE["mount"])
        mount = syscalls.new_mount("binfmt_misc", [], 0)
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
    except OSError:
        os._exit(1)
    socket.send_fds(channel, [b"m"], [folder])
