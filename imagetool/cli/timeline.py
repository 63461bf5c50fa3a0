"""What a build did and when, gathered from its events; `timelinepage` draws it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Final

from imagetool import progress
from imagetool.values import dataclass, field

_TAIL_BYTES: Final = 4 << 10


@dataclass(slots=True)
class Step:
    """A step: what it is, and how it went.

    start: seconds after the build's beginning; None while it has not begun.
    outcome: waiting, running, done, cached, failed, or stopped because something else ended it.
    cpu, memory, written: seconds and bytes that its container used; None when nothing was run.
    """

    number: int
    name: str
    stage: str
    needs: tuple[int, ...]
    start: float | None = None
    seconds: float = 0.0
    outcome: str = "waiting"
    layer: str = ""
    size: int = 0
    key: str = ""
    error: str = ""
    cpu: float | None = None
    memory: int | None = None
    written: int | None = None
    output: bytearray = field(default_factory=bytearray)

    @property
    def end(self) -> float:
        """When it was over."""
        return (self.start or 0.0) + self.seconds


@dataclass(slots=True)
class Part:
    """The build for one platform: its steps by number, in the order of the Dockerfile."""

    platform: str
    steps: dict[int, Step] = field(default_factory=dict)

    @property
    def stages(self) -> dict[str, list[Step]]:
        """The steps of each stage."""
        stages: dict[str, list[Step]] = {}
        for step in self.steps.values():
            stages.setdefault(step.stage, []).append(step)
        return stages

    @property
    def slowest(self) -> Step | None:
        """The step that took longest; None when none took any time."""
        slowest = max(self.steps.values(), key=lambda step: step.seconds, default=None)
        return slowest if slowest and slowest.seconds else None

    @property
    def critical(self) -> list[Step]:
        """The steps that the build could not have been done sooner without: the longest way to the last that ended."""
        longest: dict[int, float] = {}
        for step in self._ordered():
            longest[step.number] = step.seconds + max((longest.get(need, 0.0) for need in step.needs), default=0.0)
        begun = [step for step in self.steps.values() if step.start is not None]
        path: list[Step] = []
        at = max(begun, key=lambda step: (step.end, longest[step.number]), default=None)
        while at is not None:
            path.append(at)
            needs = [self.steps[need] for need in at.needs if need in self.steps]
            at = max(needs, key=lambda step: longest[step.number], default=None)
        return path[::-1]

    def _ordered(self) -> Iterator[Step]:
        """Yield the steps that have begun, each after those that it needs."""
        return iter(sorted(self.steps.values(), key=lambda step: (step.start is None, step.start or 0.0, step.number)))


@dataclass(slots=True)
class Span:
    """A blob that moved, or a phase: something beside the steps that took time."""

    name: str
    start: float
    size: int = 0
    end: float | None = None


class Timeline:
    """An observer that keeps what a build's events tell; for several threads.

    identity: the image's digest, when there is one.
    answered: that nothing had changed, so that nothing was carried out.
    """

    def __init__(self) -> None:
        self.began = time.time()
        self.parts: list[Part] = []
        self.spans: list[Span] = []
        self.notes: list[tuple[str, str]] = []
        self.total = 0.0
        self.identity = ""
        self.answered = False
        self._zero = time.monotonic()
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Span] = {}

    def __call__(self, event: progress.Event) -> None:
        """Take an event, as it happens; from any thread."""
        with self._lock:
            self.total = time.monotonic() - self._zero
            self._take(event)

    def built(self, identity: str) -> None:
        """Take the digest of the image."""
        with self._lock:
            self.total = time.monotonic() - self._zero
            self.identity = identity

    def _take(self, event: progress.Event) -> None:
        match event:
            case progress.BuildPlanned(platform=platform, steps=steps):
                planned = {one.number: Step(one.number, one.name, one.stage, one.needs) for one in steps}
                self.parts.append(Part(platform, planned))
            case progress.BlobStarted(digest=digest, size=size, action=action):
                if action != "verify":
                    self._begin("blob", digest, f"{action} {digest[:19]}", size)
            case progress.BlobFinished(digest=digest):
                self._end("blob", digest)
            case progress.PhaseStarted(name=name):
                self._begin("phase", name, name)
            case progress.PhaseAdvanced(name=name, amount=amount):
                if span := self._open.get(("phase", name)):
                    span.size += amount
            case progress.PhaseFinished(name=name):
                self._end("phase", name)
            case progress.Note(text=text, level=level):
                self.notes.append((level, text))
            case progress.CheckFound(rule=rule, text=text, line=line):
                self.notes.append(("warning", f"{rule}: {text} (line {line})"))
            case progress.BlobAdvanced():
                pass
            case _:
                self._take_step(event)

    def _take_step(self, event: progress.StepEvent) -> None:
        step = self._step(event)
        match event:
            case progress.StepStarted(name=name):
                step.name, step.outcome, step.start = name, "running", self.total
            case progress.StepOutput(data=data):
                step.output.extend(data)
                del step.output[:-_TAIL_BYTES]
            case progress.StepMeasured(cpu_seconds=cpu, peak_memory=memory, written=written):
                step.cpu, step.memory, step.written = cpu, memory, written
            case progress.StepFinished(cached=cached, layer=layer, seconds=seconds, size=size, key=key):
                step.outcome, step.seconds = "cached" if cached else "done", seconds
                step.layer, step.size, step.key = layer, size, key
            case progress.StepAborted(error=error, seconds=seconds):
                step.outcome, step.seconds, step.error = "failed" if error else "stopped", seconds, error

    def _step(self, event: progress.StepEvent) -> Step:
        """Return an event's step; a trigger of a base image, which is not planned, follows those of its stage."""
        if not self.parts:
            self.parts.append(Part(""))
        steps = self.parts[-1].steps
        if event.number not in steps:
            stage = event.stage if isinstance(event, progress.StepStarted) else ""
            begun = [one.number for one in steps.values() if one.stage == stage and one.start is not None]
            steps[event.number] = Step(event.number, "", stage, tuple(begun[-1:]))
        return steps[event.number]

    def _begin(self, kind: str, identity: str, name: str, size: int = 0) -> None:
        span = self._open[kind, identity] = Span(name, self.total, size)
        self.spans.append(span)

    def _end(self, kind: str, identity: str) -> None:
        if span := self._open.pop((kind, identity), None):
            span.end = self.total
