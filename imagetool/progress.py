"""What is happening, as frozen events handed to a callable; logic never draws.

An `Observer` is any callable that takes an event. It is called from several threads at
once, so it must be thread-safe, and it must return fast. `silent` is the one for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that a build will take; `needs` are the numbers of those it waits for."""

    number: int
    stage: str
    name: str
    needs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BuildPlanned:
    """What a build for one platform will do, in the order of the numbers; triggers of base images may come to it."""

    platform: str
    total: int
    steps: tuple[PlannedStep, ...]


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A build step begins.

    `number` of `total` counts from 1 over the steps of all stages built, in the order of the Dockerfile:
    steps of stages side by side begin in another. Triggers of base images are counted after all others.
    """

    number: int
    total: int
    name: str
    stage: str


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Bytes a RUN step wrote; `stream` is 1 for stdout, 2 for stderr. Untrusted: may hold escapes."""

    number: int
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A build step is done.

    layer: the digest of the layer it made, "" for metadata only; `size` is that of the blob, in bytes.
    key: what the cache has it under; "" when it is not looked up.
    """

    number: int
    cached: bool
    layer: str
    seconds: float
    size: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class StepMeasured:
    """What the container of a step used, before the step is done.

    peak_memory and written are bytes; where there was no control group, peak_memory is the largest process's.
    """

    number: int
    cpu_seconds: float
    peak_memory: int
    written: int


@dataclass(frozen=True, slots=True)
class StepAborted:
    """A build step ended without a result: `error` says why, "" when something else ended it."""

    number: int
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BlobStarted:
    """A blob begins to move; `size` is its total bytes, `what` says "layer", "config", …"""

    digest: str
    size: int
    what: str
    action: Literal["push", "pull", "copy", "verify"]


@dataclass(frozen=True, slots=True)
class BlobAdvanced:
    """`amount` more bytes of the blob have moved."""

    digest: str
    amount: int


@dataclass(frozen=True, slots=True)
class BlobFinished:
    """A blob is at its destination: moved now, or found, mounted or cached there."""

    digest: str
    outcome: Literal["done", "exists", "mounted"]


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """Something begins that has no digest, as exporting a root filesystem; `name` says what, and is its identity."""

    name: str


@dataclass(frozen=True, slots=True)
class PhaseAdvanced:
    """`amount` more bytes of a phase are done."""

    name: str
    amount: int


@dataclass(frozen=True, slots=True)
class PhaseFinished:
    """A phase is over, whether or not it worked."""

    name: str


@dataclass(frozen=True, slots=True)
class Note:
    """One line for the user that is neither a result nor an error."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class CheckFound:
    """The lint found something in the Dockerfile that is built: by which rule, what, and where."""

    rule: str
    text: str
    file: str
    line: int


StepEvent = StepStarted | StepOutput | StepMeasured | StepFinished | StepAborted
Event = (
    BuildPlanned
    | StepEvent
    | BlobStarted
    | BlobAdvanced
    | BlobFinished
    | PhaseStarted
    | PhaseAdvanced
    | PhaseFinished
    | Note
    | CheckFound
)
Observer = Callable[[Event], None]


def silent(event: Event) -> None:
    """Take an event and do nothing with it."""


@contextmanager
def phase(observer: Observer, name: str) -> Iterator[None]:
    """Tell of a phase around a block of code."""
    observer(PhaseStarted(name))
    try:
        yield
    finally:
        observer(PhaseFinished(name))


def advancing(chunks: Iterable[bytes], observer: Observer, name: str) -> Iterator[bytes]:
    """Yield a phase's chunks and tell how many bytes have passed."""
    for chunk in chunks:
        observer(PhaseAdvanced(name, len(chunk)))
        yield chunk
