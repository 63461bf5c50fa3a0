"""Other systems' programs, each run in directories of its own and ended by process number."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.peers import end

#: Takes the second hierarchy of a hybrid host out of sight, which crun 1.8 refuses to work with.
_WITHOUT_UNIFIED = 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec "$@"'
#: Runs a program where the mounts that it leaves behind go away with it.
APART = ("unshare", "-m", "--propagation", "slave")


def need(*programs: str) -> None:
    """Skip the test when a program is not installed."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def run(*command: str | Path, check: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; fail the test when it ends with another status than `check`."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100, check=False, cwd=cwd)
    if check is not None:
        assert done.returncode == check, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def without_unified(*command: str | Path) -> list[str]:
    """Return the command wrapped in a mount namespace without the hybrid host's second cgroup hierarchy."""
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", _WITHOUT_UNIFIED, "sh", *map(str, command)]


@contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a directory whose name is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="it-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@contextmanager
def daemon(command: Sequence[str | Path], place: Path, log: Path) -> Iterator[None]:
    """Run a daemon until the block ends; it is ready when its socket takes connections."""
    with open(log, "wb") as output:
        process = subprocess.Popen([*APART, *map(str, command)], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 60
            while not _listened_on(place):
                assert process.poll() is None, f"{command[0]} ended:\n{log.read_text()[-3000:]}"
                assert time.monotonic() < deadline, f"{command[0]} is not ready:\n{log.read_text()[-3000:]}"
                time.sleep(0.05)
            yield
        finally:
            end(process, 30)


@contextmanager
def containerd(folder: Path) -> Iterator[Path]:
    """Run containerd in a directory; yield its socket."""
    socket = folder / "c.sock"
    (folder / "config.toml").write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    with daemon(["containerd", "-c", folder / "config.toml"], socket, folder / "log"):
        yield socket


@contextmanager
def dockerd(folder: Path) -> Iterator[str]:
    """Run dockerd in a directory, without a network; yield what DOCKER_HOST would be."""
    socket = folder / "d.sock"
    command = ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid"]
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    with daemon([*command, *network, "-H", f"unix://{socket}"], socket, folder / "log"):
        yield f"unix://{socket}"


def podman(folder: Path) -> list[str]:
    """Return podman's command with storage of its own."""
    own = ["--root", str(folder / "root"), "--runroot", str(folder / "run")]
    return [*APART, "podman", *own, "--cgroup-manager=cgroupfs", "--runtime", "runc"]


#: A host whose root lacks CAP_SYS_RESOURCE cannot give containers podman's own, higher limits.
PODMAN_RUN = ("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=4096:4096")


@dataclass(frozen=True)
class Kernel:
    """Debian's kernel for virtual machines, unpacked from its package `name`."""

    name: str
    folder: Path

    @property
    def image(self) -> Path:
        return next(self.folder.glob("boot/vmlinuz-*"))

    def modules(self, *names: str) -> dict[str, bytes]:
        """Return modules, each after those that it needs; what is built in is left out."""
        found: dict[str, bytes] = {}

        def add(name: str) -> None:
            for path in self.folder.glob(f"lib/modules/*/kernel/**/{name}.ko*"):
                data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
                needed = re.findall(rb"\0depends=([^\0]*)\0", data)
                for other in needed[0].decode().split(",") if needed else ():
                    add(other)
                found.setdefault(name, data)

        for name in names:
            add(name)
        return found


def kernel(package: str = "linux-image-cloud-amd64") -> Kernel:
    """Return the kernel that Debian's package depends on, fetched with apt once and kept for later runs.

    It is unpacked, not installed: nothing on this host boots it.
    """
    need("apt-get", "apt-cache", "dpkg-deb")
    listed = run("apt-cache", "depends", package, check=None).stdout
    names = [line.split()[-1] for line in listed.splitlines() if "Depends: linux-image" in line]
    if not names:
        pytest.skip(f"needs a Debian archive with {package}")
    kept = Path(tempfile.gettempdir()) / f"imagetool-tests-{os.getuid()}-{names[0]}-unpacked"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as name:
            run("apt-get", "download", "-qq", names[0], cwd=Path(name))
            run("dpkg-deb", "-x", next(Path(name).glob("*.deb")), Path(name) / "unpacked")
            try:
                os.rename(Path(name) / "unpacked", kept)
            except OSError:
                if not kept.exists():  # no other worker was faster
                    raise
    return Kernel(names[0], kept)
