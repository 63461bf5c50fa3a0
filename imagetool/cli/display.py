"""Events as text on stderr: moving lines on a terminal, plain lines for logs, JSON for programs."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TextIO

from imagetool.cli.faces import DIGEST, Log, Moving, Terminal, Underway
from imagetool.cli.lines import cached_line, check_line, note_line, printable, step_line
from imagetool.cli.render import amount_of
from imagetool.config.environment import movable
from imagetool.errors import StepFailed, UsageError
from imagetool.progress import (
    BlobAdvanced,
    BlobFinished,
    BlobStarted,
    BuildPlanned,
    CheckFound,
    Event,
    Note,
    Observer,
    PhaseAdvanced,
    PhaseFinished,
    PhaseStarted,
    StepAborted,
    StepFinished,
    StepMeasured,
    StepOutput,
    StepStarted,
)

_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 1 << 16
_NAME: Final = 200


@contextmanager
def display(mode: str) -> Iterator[Observer]:
    """Yield the observer for --progress; `auto` is tty on a terminal and plain elsewhere.

    When the context ends, nothing that moves is left on the terminal. Within it SIGTERM, and SIGHUP where
    it is not ignored, end the program in order, as SIGINT does: with SystemExit, status 143 or 129.
    """
    with _terminable(), _display(mode) as observer:
        yield observer


@contextmanager
def watched(
    mode: str, timeline: str | None, *, title: str, redact: Callable[[str], str]
) -> Iterator[tuple[Observer, Callable[[str], None]]]:
    """Yield the observer for --progress and --timeline, and what is to be told the digest of the image that was built.

    Args:
        timeline: where the page goes that `timelinepage.drawn` writes; None for none.
    """
    if timeline is None:
        with display(mode) as shown:
            yield shown, lambda _: None
        return
    from imagetool.cli.timelinepage import drawn

    with drawn(timeline, title, redact) as chart, display(mode) as shown:
        yield tee(chart, shown), chart.built


@contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not what nohup starts
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _display(mode: str) -> Iterator[Observer]:
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() and movable() else "plain"
    if mode == "quiet":
        with _quiet() as unseen:
            yield unseen
    elif mode == "json":
        yield _Json(sys.stderr)
    elif mode in ("plain", "tty"):
        face = Terminal(sys.stderr) if mode == "tty" else Log(sys.stderr)
        with _Shown(face) as shown:
            yield shown
    else:
        raise UsageError(f"--progress {mode!r}: there are auto, tty, plain, json and quiet")


@contextmanager
def _quiet() -> Iterator[Observer]:
    """Yield an observer that shows nothing; a step that fails tells the last lines it wrote all the same."""
    written: dict[int, bytearray] = {}
    failed: list[int] = []
    lock = threading.Lock()

    def keep(event: Event) -> None:
        with lock:
            if isinstance(event, StepOutput):
                tail = written.setdefault(event.number, bytearray())
                tail.extend(event.data)
                del tail[:-_TAIL_BYTES]
            elif isinstance(event, StepFinished):
                written.pop(event.number, None)
            elif isinstance(event, StepAborted) and event.error:
                failed.append(event.number)

    try:
        yield keep
    except StepFailed as error:
        tail = written.get(failed[0], bytearray()) if failed else bytearray()
        lines = tail.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        if lines:
            error.add_note("\n".join(["the last lines of its output:", *(f"  {line}" for line in lines)]))
        raise


class _Json:
    """One JSON object a line, with the event's kind; docs/progress.md has the fields."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:  # the time too, so that lines are in its order
            about = {"event": type(event).__name__, "time": time.time(), **_fields(event)}
            self._stream.write(json.dumps(about, default=_plain) + "\n")
            self._stream.flush()


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _plain(value: Any) -> Any:
    """Return a value that JSON does not have as one that it has."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else _fields(value)


class _Face(Protocol):
    """How it looks."""

    @property
    def period(self) -> float:
        """Seconds between two ticks."""
        ...

    @property
    def digest(self) -> int:
        """How many characters of a digest to show."""
        ...

    def line(self, text: str, style: str) -> None:
        """Write a line that stays."""
        ...

    def tick(self, underway: Underway) -> None:
        """Show what is under way; called every `period` seconds."""
        ...

    def end(self) -> None:
        """Leave the stream as a program that writes lines would."""
        ...


class _Shown:
    """Knows which steps, blobs and phases are under way, and has a face show them.

    A context manager with a thread that ticks from the first event that begins something.
    """

    def __init__(self, face: _Face) -> None:
        self._face = face
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self._partial: dict[tuple[int, int], bytes] = {}
        self._told = 0
        self._underway = Underway()

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._ticker:
            self._ticker.join()
        with self._lock:
            self._face.end()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event)
            if self._ticker is None and self._underway:
                self._ticker = threading.Thread(target=self._run, name="display", daemon=True)
                self._ticker.start()

    def _run(self) -> None:
        while not self._over.wait(self._face.period):
            with self._lock:
                self._face.tick(self._underway)

    def _take(self, event: Event) -> None:
        match event:
            case BuildPlanned(total=total, steps=steps):
                self._underway.plan, self._underway.total = steps, total
                self._underway.over, self._underway.cached = set(), 0
            case StepStarted() | StepOutput() | StepFinished() | StepAborted():
                self._take_step(event)
            case BlobStarted() | BlobAdvanced() | BlobFinished():
                self._take_blob(event)
            case PhaseStarted(name=name):
                self._underway.phases[name] = Moving(printable(name))
            case PhaseAdvanced(name=name, amount=moved):
                if name in self._underway.phases:
                    self._underway.phases[name].done += moved
            case PhaseFinished(name=name):
                phase = self._underway.phases.pop(name, None)
                if phase and phase.told:
                    self._face.line(f"{phase.name}: done ({phase.seconds:.1f}s)", "")
            case Note(text=text, level=level):
                self._face.line(note_line(text, level), "yellow" if level == "warning" else "")
            case CheckFound(rule=rule, text=text, line=line):
                self._face.line(check_line(rule, text, line), "yellow")
            case StepMeasured():  # --stats tells it in a note
                pass

    def _take_step(self, event: StepStarted | StepOutput | StepFinished | StepAborted) -> None:
        underway, number = self._underway, event.number
        match event:
            case StepStarted(total=total, name=name, stage=stage):
                self._face.line(step_line(number, total, name, stage), "bold")
                underway.steps[number] = Moving(printable(" ".join(name.split())[:_NAME]), stage=printable(stage))
                underway.total = max(underway.total, total)
                self._told = number
            case StepOutput(stream=stream, data=data):
                before = self._partial.get((number, stream), b"")
                *lines, self._partial[number, stream] = (before + data).split(b"\n")
                self._output(number, lines)
            case StepFinished(cached=cached, layer=layer, seconds=seconds):
                stage, layer = self._end(number), layer[: self._face.digest]
                underway.cached += cached
                if cached:
                    self._face.line(stage + cached_line(layer), "green")
                elif layer:
                    self._face.line(f"{stage}--> {layer} ({seconds:.2f}s)", "green")
            case StepAborted(error=error, seconds=seconds):
                stage = self._end(number)
                if error:  # what it is comes last, with all that is known of it
                    self._face.line(f"{stage}--> failed ({seconds:.2f}s)", "red")

    def _end(self, number: int) -> str:
        """Show the rest of a step's output, the line that has no end; return what says which step lines are of."""
        rests = [self._partial.pop((number, stream), b"") for stream in (1, 2)]
        self._output(number, [rest for rest in rests if rest])
        stage = self._stage(number)
        self._underway.steps.pop(number, None)
        self._underway.over.add(number)
        return stage

    def _take_blob(self, event: BlobStarted | BlobAdvanced | BlobFinished) -> None:
        blobs, digest = self._underway.blobs, event.digest
        match event:
            case BlobStarted(size=size, action=action):
                blobs[digest] = Moving(digest[:DIGEST], size, action=action)
            case BlobAdvanced(amount=moved):
                if digest in blobs:
                    blobs[digest].done += moved
            case BlobFinished(outcome=outcome):
                blob = blobs.pop(digest, None)
                if blob is None or blob.action != "verify":
                    amount = f"  {amount_of(blob.size)}" if blob and blob.size else ""
                    self._face.line(f"{digest[:DIGEST]}  {outcome}{amount}", "")

    def _output(self, number: int, lines: list[bytes]) -> None:
        stage = self._stage(number)
        for line in lines:
            self._face.line(f"  {stage}{printable(line.decode('utf-8', 'replace').rstrip())}", "")

    def _stage(self, number: int) -> str:
        """Return what says which step a line is of, unless it is the only one and was told last."""
        steps = self._underway.steps
        return f"[{steps[number].stage}] " if number in steps and (len(steps) > 1 or number != self._told) else ""


def tee(first: Callable[[Event], None], second: Observer) -> Observer:
    """Return an observer that tells both."""

    def both(event: Event) -> None:
        first(event)
        second(event)

    return both
