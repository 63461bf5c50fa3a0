"""A network namespace that stands for the host, what listens in it, and the helpers that connect containers to it."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagetool.runtime.network import Network, choose
from imagetool.runtime.rootfs import Directory
from tests.support.containers import full_root, helpers

HELPERS = ("slirp4netns", "pasta")
#: An address of the network namespace that stands for the host; not on its loopback network.
OUTSIDE = "203.0.113.1"
CANARY = b"canary\n"
WARNING = "containers use the host's network"


@contextmanager
def standing_for_the_host() -> Iterator[None]:
    """Put this thread, and what it starts, in a network namespace with an address and a default route."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(ctypes.c_int(0x40000000)) == 0
        for words in (
            "link set lo up",
            f"address add {OUTSIDE}/32 dev lo",
            "link add name v0 type veth",
            "link set v0 up",
            "address add 198.51.100.2/24 dev v0",
            "route add default via 198.51.100.1",
        ):
            subprocess.run(["busybox", "ip", *words.split()], check=True)
        yield
    finally:
        libc.setns(before, 0x40000000)
        os.close(before)


@contextmanager
def greeter(address: str, family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """Run a server that greets whoever connects; yield its port. It is where this thread is."""
    with socket.socket(family) as server:
        server.bind((address, 0) if family == socket.AF_INET else address)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:  # closed
                    return
                with client:
                    client.sendall(CANARY)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1] if family == socket.AF_INET else 0
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def reach(address: str, port: int) -> str:
    return f"nc -w 3 {address} {port} </dev/null 2>/dev/null || echo unreachable"


def root_in(folder: Path) -> Directory:
    return Directory(full_root(folder / "root"))


def installed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    program = shutil.which(name)
    if program is None or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip(f"needs {name} and /dev/net/tun")
    folder = tmp_path / "programs"
    folder.mkdir()
    for path in Path(program).parent.glob(f"{name}*"):  # pasta becomes pasta.avx2
        (folder / path.name).symlink_to(path)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(folder))
        choice = choose()
    assert choice.lacking == ""
    return choice.network


def started() -> list[str]:
    """Return the helpers that serve containers of this process."""
    return [name for zygote in helpers() for name in descendants(zygote).values() if name in HELPERS]


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below another, with the names of their programs."""
    found: dict[int, str] = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found[child] = (
                    Path(f"/proc/{child}/comm").read_text().strip().partition(".")[0].replace("passt", "pasta")
                )
                found |= descendants(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found
