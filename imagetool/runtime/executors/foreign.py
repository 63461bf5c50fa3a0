"""bubblewrap, systemd-nspawn and LXC as executors; see `hosted` for what surrounds them.

They take less of the description than ours does, and what they cannot do is refused, not left out:
docs/reference/systems.md has the table.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from imagetool.errors import HostError, Unsupported
from imagetool.runtime.executors.limited import judged, launching, limited, refuse_hooks, without_user_namespace
from imagetool.runtime.executors.protocol import ExitStatus, Output, Unconnecting
from imagetool.runtime.namespaces import is_host_root
from imagetool.runtime.rootfs import Rootfs
from imagetool.runtime.seccomp.compiler import filter_of
from imagetool.runtime.spec import RuntimeSpec
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.runtime.session import Session

Kind = Literal["bwrap", "nspawn", "lxc"]


@dataclass(frozen=True, slots=True)
class _Program:
    """What is known of a program: its name, its package, its first words, and what it cannot do."""

    name: str
    package: str
    words: tuple[str, ...]
    root_user_only: bool = False
    needs_root: bool = True


_NSPAWN: Final = ("--quiet", "--register=no", "--keep-unit")
_PROGRAMS: Final[dict[Kind, _Program]] = {
    "bwrap": _Program("bwrap", "bubblewrap", (), root_user_only=True, needs_root=False),
    "nspawn": _Program("systemd-nspawn", "systemd-container", _NSPAWN),
    "lxc": _Program("lxc-execute", "lxc", ()),
}


class ForeignExecutor(Unconnecting):
    """Runs containers by one of these programs; a context manager.

    Args:
        program: its name or path, when it is not the usual one.
    """

    def __init__(self, kind: Kind, program: str | None = None) -> None:
        self._kind: Kind = kind
        self._known = _PROGRAMS[kind]
        self._program = program or self._known.name
        self.name = kind

    def __enter__(self) -> ForeignExecutor:
        program = shutil.which(self._program)
        if program is None:
            raise HostError(f"{self._program} is not installed: apt-get install {self._known.package}")
        if self._known.needs_root and not is_host_root():
            raise HostError(f"--isolation {self._kind} needs root; without it there are embedded and bwrap")
        self._program = os.path.abspath(program)
        self._ending = ExitStack()
        self._groups, self._launcher = self._ending.enter_context(launching())
        return self

    def __exit__(self, *problem: Any) -> None:
        self._ending.__exit__(*problem)

    def stop(self) -> None:
        """End all containers; see `Executor`."""
        self._launcher.stop()

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output, session: Session | None = None) -> ExitStatus:
        """Run a container; see `Executor`. Raises Unsupported for what the program cannot do."""
        spec = without_user_namespace(spec, self.name)
        self._check(spec)
        with tempfile.TemporaryDirectory(prefix="imagetool-bundle-") as folder, limited(self._groups, spec) as group:
            (Path(folder) / "rootfs").mkdir()
            self._write_filter(spec, Path(folder))
            request = {
                "spec": spec.tree,
                "bundle": folder,
                "kind": self._kind,
                "program": [self._program, *self._known.words, *self._named(spec, Path(folder))],
                "groups": () if group is None else group.folders,
            }
            status = self._launcher.launch(request, root, output, timeout=spec.timeout, session=session)
            return judged(status, spec, group)

    def _check(self, spec: RuntimeSpec) -> None:
        process = spec.tree["process"]
        user = process["user"]
        refuse_hooks(spec, f"--isolation {self._kind}")
        if not spec.sandboxed or spec.device_rules:
            raise Unsupported(
                f"--isolation {self._kind} has no devices and no containers without a sandbox; embedded and oci have"
            )
        if self._known.root_user_only and (user["uid"] or user["gid"] or user["additionalGids"]):
            raise Unsupported(
                f"--isolation {self._kind} can run root only, and this is user {user['uid']}:{user['gid']}; "
                "--isolation embedded runs any"
            )
        if process.get("rlimits"):
            raise Unsupported(f"--ulimit is not there with --isolation {self._kind}")
        if self._kind == "lxc" and any("\n" in part for part in (*process["env"], process["cwd"])):
            raise Unsupported("--isolation lxc: its configuration cannot hold a line break in a variable")

    def _named(self, spec: RuntimeSpec, folder: Path) -> list[str]:
        if self._kind == "nspawn":
            console = "interactive" if spec.tree["process"].get("terminal") else "pipe"
            return [f"--machine={_machine(folder)}", f"--console={console}"]
        if self._kind == "lxc":
            return ["-P", str(folder), "-n", "c", "-o", str(folder / "log"), "-l", "ERROR"]
        return []

    def _write_filter(self, spec: RuntimeSpec, folder: Path) -> None:
        seccomp = spec.tree["linux"].get("seccomp")
        if self._kind == "bwrap" and seccomp is not None:
            (folder / "seccomp").write_bytes(filter_of(seccomp, os.uname().machine))


def _machine(folder: Path) -> str:
    """Return a name that systemd takes."""
    return "imagetool-" + "".join(char for char in folder.name.rpartition("-")[2] if char.isalnum())
