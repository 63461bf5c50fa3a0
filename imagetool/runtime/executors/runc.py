"""runc, or any runtime with its command line, as an executor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from imagetool.errors import HostError
from imagetool.runtime.executors.limited import judged, launching, limited, without_user_namespace
from imagetool.runtime.executors.protocol import ExitStatus, Output, Unconnecting
from imagetool.runtime.rootfs import Rootfs
from imagetool.runtime.spec import RuntimeSpec

if TYPE_CHECKING:
    from imagetool.runtime.session import Session

_LOG_BYTES: Final = 1 << 16
_NOT_FOUND: Final = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE: Final = ("permission denied", "exec format error", "is a directory", "open executable")


class RuncExecutor(Unconnecting):
    """Runs containers by an installed OCI runtime; a context manager. See `hosted` for what surrounds it.

    Args:
        program: the runtime's name or path.
    """

    def __init__(self, program: str = "runc") -> None:
        self._program = program
        self.name = os.path.basename(program)

    def __enter__(self) -> RuncExecutor:
        program = shutil.which(self._program)
        if program is None:
            raise HostError(f"the runtime {self._program} is not installed; the embedded one needs no installation")
        self._program = os.path.abspath(program)
        self._is_crun = Path(self._program).name.startswith("crun")
        self._ending = ExitStack()
        self._groups, self._launcher = self._ending.enter_context(launching())
        return self

    def __exit__(self, *problem: Any) -> None:
        self._ending.__exit__(*problem)

    def stop(self) -> None:
        """End all containers; see `Executor`."""
        self._launcher.stop()

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output, session: Session | None = None) -> ExitStatus:
        """Run a container; see `Executor`."""
        spec = without_user_namespace(spec, self.name)
        with tempfile.TemporaryDirectory(prefix="imagetool-bundle-") as folder, limited(self._groups, spec) as group:
            (Path(folder) / "rootfs").mkdir()
            log, name = Path(folder) / "log", Path(folder).name
            command = [self._program, "--root", f"{folder}/state", "--log", str(log), "--log-format", "json"]
            resources = {"devices": list(spec.device_rules)} if spec.device_rules else {}
            linux = {**spec.tree["linux"], "resources": resources}
            if self._groups.folders:
                # The limits are on a group of ours, in which the runtime makes its own: it would leave that behind.
                linux["cgroupsPath"] = self._groups.path("shared" if group is None else group.name, name)
            else:
                command += ["--cgroup-manager=disabled"] if self._is_crun else ["--rootless=true"]
            request = {
                "spec": {**spec.tree, "linux": linux},
                "bundle": folder,
                "program": [*command, "run", "--bundle", folder, name],
                "groups": (),
                "hide_unified": self._is_crun,
            }
            try:
                status = self._launcher.launch(request, root, output, timeout=spec.timeout, session=session)
            finally:
                # Does nothing after an orderly end; otherwise removes the cgroups of what was killed.
                subprocess.run([*command, "delete", "--force", name], check=False, capture_output=True)
            return self._interpreted(judged(status, spec, group), log, output)

    def _interpreted(self, status: ExitStatus, log: Path, output: Output) -> ExitStatus:
        """Tell the runtime's own failures, which it logs, from the program's."""
        problem = _logged_error(log) if status.code and not status.limit else ""
        if not problem:
            return status
        said = problem.lower()
        if "exec" in said and any(text in said for text in (*_NOT_FOUND, *_NOT_EXECUTABLE)):
            return ExitStatus(127 if any(text in said for text in _NOT_FOUND) else 126)
        raise HostError(f"{self.name} cannot make the container: {problem}")


def _logged_error(log: Path) -> str:
    """Return the last error of a runtime's JSON log, "" for none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        lines = file.read(_LOG_BYTES).splitlines()
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:  # cut off, or not JSON: runtimes differ
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            return str(entry.get("msg", ""))
    return ""
