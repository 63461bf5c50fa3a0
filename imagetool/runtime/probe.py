"""Find out by trying whether this host lets the embedded executor make containers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from imagetool.errors import HostError
from imagetool.runtime import syscalls
from imagetool.runtime.capabilities import holds
from imagetool.runtime.namespaces import map_own, outer_options, refusal

_START: Final = "import sys; sys.path.insert(0, sys.argv[1]); from imagetool.runtime.probe import main; main()"
_STEPS: Final = {
    "user namespace": "",
    "namespaces": "mount, PID, UTS and IPC namespaces cannot be made: the process needs CAP_SYS_ADMIN",
    "mount calls": "the mount calls of Linux 5.12 (fsopen, mount_setattr) are missing or forbidden",
    "overlay": "overlayfs cannot be mounted: load the module with modprobe overlay; without root it needs Linux 5.11",
}


def can_run_containers() -> HostError | None:
    """Try each step in a process of its own; return the first that fails as one line, None when all work."""
    package = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-I", "-S", "-c", _START, package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    except OSError as error:
        return HostError(f"RUN cannot work here: {sys.executable} does not start: {error.strerror}")
    if done.returncode == 0:
        return None
    step, _, number = done.stdout.strip().partition("=")
    if step == "user namespace":
        return HostError(refusal(OSError(int(number), os.strerror(int(number))), root=os.geteuid() == 0))
    if step == "mount calls" and int(number) == errno.EACCES:
        fix = f"start the container with {outer_options()}"
        return HostError(f"RUN cannot work here: mounts are forbidden, by AppArmor as it seems; {fix}")
    if step in _STEPS:
        return HostError(f"RUN cannot work here: {_STEPS[step]} ({os.strerror(int(number))})")
    return HostError(f"RUN cannot work here: {sys.executable} does not start: {done.stderr.strip()[-200:]}")


def main() -> None:
    """Go through the steps; say which one failed."""
    step = "user namespace"
    try:
        uid, gid = os.geteuid(), os.getegid()
        if uid != 0 or not holds("CAP_SYS_ADMIN"):
            syscalls.unshare(syscalls.CLONE["user"])
            map_own(uid, gid)
        step = "namespaces"
        syscalls.unshare(sum(syscalls.CLONE[kind] for kind in ("mount", "pid", "uts", "ipc")))
        step = "mount calls"
        syscalls.make_mounts_private()
        folder = syscalls.new_mount("tmpfs", [], 0)
        for name in ("lower", "upper", "work"):
            os.mkdir(name, dir_fd=folder)
        target = os.open("/", os.O_PATH | os.O_DIRECTORY)
        syscalls.attach_mount(folder, target)
        step = "overlay"
        place = f"/proc/self/fd/{folder}"
        options: list[tuple[str, str | None]] = [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")]
        os.chdir(place)
        os.close(syscalls.new_mount("overlay", [*options, ("userxattr", None)], 0))
    except OSError as error:
        os.write(1, f"{step}={error.errno}".encode())
        os._exit(1)
