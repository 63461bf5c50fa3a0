"""Small root filesystems, executors with their output collected, and a look at what the host has running."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from imagetool.runtime.executors import EXECUTORS, EmbeddedExecutor, Executor, ExitStatus, Output
from imagetool.runtime.network import Network
from imagetool.runtime.rootfs import Overlay, Rootfs
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.session import Session
from imagetool.runtime.spec import ID_MAPPINGS, RuntimeSpec, build_step_spec
from imagetool.runtime.users import User

APPLETS = (
    "sh cat ls id true false sleep hostname ps mount umount touch rm rmdir mkdir mv ln chown chmod mknod mkfifo env "
    "head dd kill echo pwd ip grep test stat readlink su seq tr nc wc unshare"
)
NOBODY = 65534


def busybox_root(folder: Path) -> Path:
    """Fill a folder with a static busybox and nothing else: no /etc, /proc, /dev or /sys."""
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("needs busybox-static")
    (folder / "bin").mkdir(parents=True)
    shutil.copy(program, folder / "bin/busybox")
    for applet in APPLETS.split():
        (folder / "bin" / applet).symlink_to("busybox")
    return folder


def full_root(folder: Path) -> Path:
    """Fill a folder with busybox and what a distribution has."""
    busybox_root(folder)
    for name in ("etc", "proc", "dev", "sys", "run", "tmp"):
        (folder / name).mkdir()
    (folder / "tmp").chmod(0o1777)
    (folder / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
    return folder


def overlay(folder: Path, *lowers: Path, userxattr: bool = False) -> Overlay:
    """Return a fresh overlay with its own upper and work directory in `folder`."""
    upper, work = folder / "upper", folder / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    return Overlay(lowers, upper, work, userxattr=userxattr)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return mode and mtime of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns)
    return found


class InUserNamespace:
    """The embedded executor with every container in a user namespace of its own; a context manager."""

    def __enter__(self) -> InUserNamespace:
        self._executor = EmbeddedExecutor().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._executor.__exit__(*error)

    def connect(self, network: Network, sandbox: Sandbox) -> str:
        """Try the helper of a network; see `Executor`."""
        return self._executor.connect(network, sandbox)

    def emulate(self, registration: str, sandbox: Sandbox) -> bool:
        """Have containers register an interpreter; see `Executor`."""
        return self._executor.emulate(registration, sandbox)

    def stop(self) -> None:
        """End all containers; see `Executor`."""
        self._executor.stop()

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output, session: Session | None = None) -> ExitStatus:
        """Run a container; see `Executor`."""
        linux = spec.tree["linux"]
        changed = {**linux, **ID_MAPPINGS, "namespaces": [*linux["namespaces"], {"type": "user"}]}
        given = replace(spec, tree={**spec.tree, "linux": changed})
        return self._executor.run(given, root, output=output, session=session)


#: What tests of all executors run under.
VARIANTS: Final[dict[str, Callable[[], AbstractContextManager[Executor]]]] = {**EXECUTORS, "mapped": InUserNamespace}


@contextmanager
def variant(kind: str) -> Iterator[Executor]:
    """Start one of `VARIANTS`; skips where its program is not installed."""
    if kind == "runc" and shutil.which(kind) is None:
        pytest.skip(f"needs {kind}")
    with VARIANTS[kind]() as started:
        yield started


@dataclass
class Ran:
    """What a container did."""

    code: int = -1
    status: ExitStatus = field(default_factory=lambda: ExitStatus(-1))
    out: bytes = b""
    err: bytes = b""
    pieces: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.out.decode()


def run(executor: Executor, root: Rootfs, *args: str, env: Mapping[str, str] | None = None, **options: Any) -> Ran:
    """Run a program in a container and collect everything; options are those of `build_step_spec` and `Sandbox`."""
    ran = Ran()

    def take(stream: int, data: bytes) -> None:
        ran.pieces.append((stream, data))
        if stream == 1:
            ran.out += data
        else:
            ran.err += data

    settings = {name: options.pop(name) for name in ("security", "ceilings", "measured", "userns") if name in options}
    if settings:
        options["sandbox"] = Sandbox(**settings)
    options = {"cwd": "/", "user": User(), "hostname": "box", **options}
    spec = build_step_spec(args=args, env={"PATH": "/bin", **(env or {})}, **options)
    ran.status = executor.run(spec, root, output=take)
    ran.code = ran.status.code
    return ran


def sh(executor: Executor, root: Rootfs, script: str, **options: Any) -> Ran:
    """Run a shell script in a container."""
    return run(executor, root, "/bin/sh", "-c", script, **options)


def processes() -> dict[int, str]:
    """Return the command line of every process of the host."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found[int(name)] = Path("/proc", name, "cmdline").read_text(errors="replace").replace("\0", " ")
            except OSError:
                continue
    return found


def session_of(leader: int) -> set[int]:
    """Return the processes of a session."""
    found = set()
    for pid in processes():
        try:
            if os.getsid(pid) == leader:
                found.add(pid)
        except ProcessLookupError:
            continue
    return found


def helpers() -> set[int]:
    """Return the zygotes that this process has started."""
    found = set()
    for pid, line in processes().items():
        try:
            status = Path("/proc", str(pid), "status").read_text()
        except OSError:
            continue
        if "runtime.zygote" in line and f"\nPPid:\t{os.getpid()}\n" in status:
            found.add(pid)
    return found


@contextmanager
def separate_mounts() -> Iterator[None]:
    """Put this thread, and what it starts, in a mount namespace where nobody else mounts.

    Mounts in it are shared with each namespace made from it, as systemd has it on a host.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *args: object) -> None:
        if getattr(libc, name)(*args) != 0:
            raise OSError(ctypes.get_errno(), name)

    before, folder = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), os.open(".", os.O_PATH)
    try:
        call("unshare", ctypes.c_int(0x20000))
        for propagation in (1 << 18, 1 << 20):  # private, then shared again, but with nobody outside
            call("mount", b"none", b"/", None, ctypes.c_ulong(propagation | 0x4000), None)
        yield
    finally:
        call("setns", before, 0x20000)
        os.fchdir(folder)
        os.close(before)
        os.close(folder)


def host_mounts() -> list[str]:
    """Return what is mounted in this process's namespace."""
    return sorted(line.split(" ", 1)[1] for line in Path("/proc/thread-self/mountinfo").read_text().splitlines())


def open_files() -> set[str]:
    """Return this process's descriptors, by number and target: those of threads that are ending close meanwhile."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}').split(':')[0]}")
        except OSError:  # that of the list itself, and what has no path that can be said
            continue
    return found


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Yield a folder that every user can enter, unlike pytest's, with a copy of the package in it."""
    with tempfile.TemporaryDirectory(prefix="imagetool-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        package = Path(__file__).resolve().parents[2] / "imagetool"
        shutil.copytree(package, folder / "imagetool", ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


def unprivileged(prefix: Sequence[str] = ()) -> Callable[[Path, str], subprocess.CompletedProcess[str]]:
    """Return a function that runs Python code as an ordinary user, with the package of a shared folder."""
    drop = [*prefix, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def call(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*drop, "/usr/bin/python3", "-B", "-c", code],
            cwd=folder,
            env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call
