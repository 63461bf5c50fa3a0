"""What every executor does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from imagetool.runtime.rootfs import Rootfs
from imagetool.runtime.spec import RuntimeSpec
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.runtime.network import Network
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.runtime.session import Session

Output = Callable[[int, bytes], None]
"""Takes what the container writes, as it comes: stream 1 or 2, and bytes, which are untrusted."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container used.

    peak_memory: bytes; of all processes together where the container had a control group, else of the largest.
    written: bytes written to files, whether or not they have reached a disk.
    """

    cpu_seconds: float = 0.0
    peak_memory: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How the container's process ended: its exit code, or 128+n when signal n ended it.

    limit: which limit it met, as the end of a sentence; "" for none.
    """

    code: int
    usage: Usage = Usage()
    limit: str = ""


class Executor(Protocol):
    """What runs containers. Executors are context managers: one is entered before the first container."""

    def connect(self, network: Network, sandbox: Sandbox) -> str:
        """Try the helper of a network, and keep it for the first container that has it.

        A network without one says whether this executor starts helpers at all. Returns why containers
        can have no such network here, as the end of a sentence; "" when they can.
        """
        ...

    def emulate(self, registration: str, sandbox: Sandbox) -> bool:
        """Have containers with a user namespace of their own register an interpreter in it; see `emulation`.

        Returns False, and does nothing, when those of this sandbox have none.
        """
        ...

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output, session: Session | None = None) -> ExitStatus:
        """Run the container to its end.

        Without a session its stdin is empty and signals to us are not its; with one see there. A
        terminal is what the description asks for, and needs one.

        May be called from several threads at once, for different roots. `output` is called in
        the calling thread. A program that is not there gives 127, one that cannot be executed
        126, each with a line on stream 2. What was mounted or made for mounting is gone afterwards.

        Whatever `output` or a signal handler raises meanwhile, KeyboardInterrupt too, goes on only
        when the container with all its processes is dead.

        Raises BuildError when the image itself stands in the way, HostError when this machine does.
        """
        ...

    def stop(self) -> None:
        """End all containers, and those to come, at once; for another thread than those that run them.

        Their `run` ends as if somebody had killed them.
        """
        ...


class Unconnecting(Executor, Protocol):
    """The part of an executor that starts no helpers and makes no user namespaces: others inherit it.

    name: what it is called in messages.
    """

    name: str

    def connect(self, network: Network, sandbox: Sandbox) -> str:
        """See `Executor`; it starts no helpers."""
        return f"{self.name} is run without a helper for it"

    def emulate(self, registration: str, sandbox: Sandbox) -> bool:
        """See `Executor`; it makes no user namespaces."""
        return False
