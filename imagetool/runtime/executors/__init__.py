"""Executors of the one container description, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from imagetool.runtime.rootfs import Rootfs
from imagetool.runtime.spec import RuntimeSpec

Output = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How the container's process ended: its exit code, or 128+n after signal n."""

    code: int


class Executor(Protocol):
    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output) -> ExitStatus:
        """Run the container to its end; `output` gets what it writes, stream 1 or 2, as it comes.

        Raises HostError when the container cannot be made. On KeyboardInterrupt the whole
        container is killed before the interrupt goes on.
        """
        ...
