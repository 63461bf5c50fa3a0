"""Executors of the one container description, by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from imagetool.errors import UsageError
from imagetool.runtime.executors.chroot import WARNING, ChrootExecutor
from imagetool.runtime.executors.embedded import EmbeddedExecutor
from imagetool.runtime.executors.foreign import ForeignExecutor
from imagetool.runtime.executors.protocol import Executor, ExitStatus, Output, Usage
from imagetool.runtime.executors.runc import RuncExecutor
from imagetool.runtime.seccomp.numbers import MACHINES

__all__ = [
    "EXECUTORS",
    "ISOLATIONS",
    "ChrootExecutor",
    "EmbeddedExecutor",
    "Executor",
    "ExitStatus",
    "ForeignExecutor",
    "Output",
    "RuncExecutor",
    "Usage",
    "automatic",
    "executor_of",
]

EXECUTORS: Final[dict[str, Callable[[], AbstractContextManager[Executor]]]] = {
    "embedded": EmbeddedExecutor,
    "runc": RuncExecutor,
}
#: What --isolation takes: each makes an executor, by another program when one is given.
ISOLATIONS: Final[dict[str, Callable[[str | None], AbstractContextManager[Executor]]]] = {
    "auto": lambda _: EmbeddedExecutor(),
    "embedded": lambda _: EmbeddedExecutor(),
    "oci": lambda program: RuncExecutor(program or _oci_runtime()),
    "bwrap": lambda program: ForeignExecutor("bwrap", program),
    "nspawn": lambda program: ForeignExecutor("nspawn", program),
    "lxc": lambda program: ForeignExecutor("lxc", program),
    "chroot": lambda _: ChrootExecutor(),
}


def executor_of(
    isolation: str, runtime: str | None = None, *, warn: Callable[[str], None] = lambda _: None
) -> AbstractContextManager[Executor]:
    """Return the executor that --isolation and --runtime ask for; a runtime alone is an OCI runtime.

    `warn` is told when it isolates less than others do. Raises UsageError for words that mean
    nothing; entering it raises HostError for what is not installed.
    """
    if isolation not in ISOLATIONS:
        raise UsageError(f"--isolation {isolation[:40]!r}: there are {', '.join(ISOLATIONS)}")
    if runtime == "embedded":
        runtime = None
        isolation = "embedded" if isolation == "auto" else isolation
    if runtime is not None:
        isolation = "oci" if isolation == "auto" else isolation
        if isolation in ("embedded", "chroot"):
            raise UsageError(f"--isolation {isolation} takes no --runtime: it needs no other program")
    if isolation == "auto":
        isolation = automatic(os.uname().machine)
        if isolation != "embedded":
            warn(f"{_oci_runtime()} runs the containers: we have no filter of system calls for {os.uname().machine}")
    if isolation == "chroot":
        warn(WARNING)
    if isolation == "embedded":
        return EmbeddedExecutor(warn=warn)
    return ISOLATIONS[isolation](runtime)


def automatic(machine: str) -> str:
    """Return what --isolation auto is on a machine, as os.uname() names it; see docs/adr/0043."""
    return "oci" if machine not in MACHINES and shutil.which(_oci_runtime()) else "embedded"


def _oci_runtime() -> str:
    """Return the first installed runtime."""
    return next((name for name in ("runc", "crun", "youki") if shutil.which(name)), "runc")
