"""Events as text on stderr: moving lines on a terminal, plain lines for logs, JSON for programs."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TextIO

from imagetool.cli.lines import cached_line, note_line, printable, step_line
from imagetool.cli.render import amount_of, duration_of
from imagetool.config.environment import colored
from imagetool.errors import StepFailed, UsageError
from imagetool.progress import (
    BlobAdvanced,
    BlobFinished,
    BlobStarted,
    Event,
    Note,
    Observer,
    PhaseAdvanced,
    PhaseFinished,
    PhaseStarted,
    StepFinished,
    StepOutput,
    StepStarted,
)
from imagetool.values import dataclass, field

_LINE_SECONDS: Final = 10.0  # between two lines about what moves, in a log
_DRAW_SECONDS: Final = 0.1
_QUIET_SECONDS: Final = 1.0  # what is over sooner is not worth a word
_BLOB_LINES: Final = 8
_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 1 << 16
_BAR: Final = 20


@contextmanager
def display(mode: str) -> Iterator[Observer]:
    """Yield the observer for --progress; `auto` is tty on a terminal and plain elsewhere.

    When the context ends, nothing that moves is left on the terminal. Within it SIGTERM ends the
    program in order, as SIGINT does: with SystemExit, status 143.
    """
    with _terminable(), _display(mode) as observer:
        yield observer


@contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _display(mode: str) -> Iterator[Observer]:
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() else "plain"
    if mode == "quiet":
        with _quiet() as unseen:
            yield unseen
    elif mode == "json":
        yield _Json(sys.stderr)
    elif mode in ("plain", "tty"):
        face = _Terminal(sys.stderr) if mode == "tty" else _Log(sys.stderr)
        with _Shown(face) as shown:
            yield shown
    else:
        raise UsageError(f"--progress {mode!r}: there are auto, tty, plain, json and quiet")


@contextmanager
def _quiet() -> Iterator[Observer]:
    """Yield an observer that shows nothing; a step that fails tells the last lines it wrote all the same."""
    written = bytearray()

    def keep(event: Event) -> None:
        if isinstance(event, StepOutput):
            written.extend(event.data)
            del written[:-_TAIL_BYTES]
        elif isinstance(event, StepStarted):
            written.clear()

    try:
        yield keep
    except StepFailed as error:
        lines = written.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        if lines:
            error.add_note("\n".join(["the last lines of its output:", *(f"  {line}" for line in lines)]))
        raise


class _Json:
    """One JSON object a line, with the event's kind; docs/progress.md has the fields."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        fields = {name: getattr(event, name) for name in event.__slots__}
        if isinstance(event, StepOutput):
            fields["data"] = event.data.decode("utf-8", "replace")
        with self._lock:
            self._stream.write(json.dumps({"event": type(event).__name__, "time": time.time(), **fields}) + "\n")
            self._stream.flush()


@dataclass(slots=True)
class _Moving:
    """Something that takes time: a blob or a phase. `size` is 0 when nobody knows it."""

    name: str
    size: int = 0
    done: int = 0
    action: str = ""
    stage: str = ""
    since: float = field(default_factory=time.monotonic)
    told: bool = False

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self.since

    @property
    def rate(self) -> str:
        """Its speed and how long it will take, as text; "" in the first moments."""
        if self.seconds < _QUIET_SECONDS / 2 or not self.done:
            return ""
        speed = self.done / self.seconds
        left = f"  ETA {duration_of((self.size - self.done) / speed)}" if self.size > self.done else ""
        return f"{amount_of(int(speed))}/s{left}"


class _Face(Protocol):
    """How it looks."""

    @property
    def period(self) -> float:
        """Seconds between two ticks."""
        ...

    def line(self, text: str, style: str) -> None:
        """Write a line that stays."""
        ...

    def tick(self, shown: _Shown) -> None:
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
        self.steps: dict[int, _Moving] = {}
        self.blobs: dict[str, _Moving] = {}
        self.phases: dict[str, _Moving] = {}

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
            if self._ticker is None and (self.steps or self.blobs or self.phases):
                self._ticker = threading.Thread(target=self._run, name="display", daemon=True)
                self._ticker.start()

    def _run(self) -> None:
        while not self._over.wait(self._face.period):
            with self._lock:
                self._face.tick(self)

    def _take(self, event: Event) -> None:
        match event:
            case StepStarted(number=number, total=total, name=name, stage=stage):
                self._face.line(step_line(number, total, name, stage), "bold")
                what = f"[{number}/{total}] {printable(' '.join(name.split())[:200])}"
                self.steps[number] = _Moving(what, stage=printable(stage))
                self._told = number
            case StepOutput(number=number, stream=stream, data=data):
                before = self._partial.get((number, stream), b"")
                *lines, self._partial[number, stream] = (before + data).split(b"\n")
                self._output(number, lines)
            case StepFinished(number=number, cached=cached, layer=layer, seconds=seconds):
                rests = [self._partial.pop((number, stream), b"") for stream in (1, 2)]
                self._output(number, [rest for rest in rests if rest])
                stage = self._stage(number)
                self.steps.pop(number, None)
                if cached:
                    self._face.line(stage + cached_line(layer), "green")
                elif layer:
                    self._face.line(f"{stage}--> {layer} ({seconds:.2f}s)", "green")
            case BlobStarted(digest=digest, size=size, action=action):
                self.blobs[digest] = _Moving(f"{digest[:19]}", size, action=action)
            case BlobAdvanced(digest=digest, amount=moved):
                if digest in self.blobs:
                    self.blobs[digest].done += moved
            case BlobFinished(digest=digest, outcome=outcome):
                blob = self.blobs.pop(digest, None)
                if blob is None or blob.action != "verify":
                    amount = f"  {amount_of(blob.size)}" if blob and blob.size else ""
                    self._face.line(f"{digest[:19]}  {outcome}{amount}", "")
            case PhaseStarted(name=name):
                self.phases[name] = _Moving(printable(name))
            case PhaseAdvanced(name=name, amount=moved):
                if name in self.phases:
                    self.phases[name].done += moved
            case PhaseFinished(name=name):
                phase = self.phases.pop(name, None)
                if phase and phase.told:
                    self._face.line(f"{phase.name}: done ({phase.seconds:.1f}s)", "")
            case Note(text=text, level=level):
                self._face.line(note_line(text, level), "yellow" if level == "warning" else "")

    def _output(self, number: int, lines: list[bytes]) -> None:
        stage = self._stage(number)
        for line in lines:
            self._face.line(f"  {stage}{printable(line.decode('utf-8', 'replace').rstrip())}", "")

    def _stage(self, number: int) -> str:
        """Return what says which step a line is of, unless it is the only one and was told last."""
        step = self.steps.get(number)
        return f"[{step.stage}] " if step and (len(self.steps) > 1 or number != self._told) else ""


class _Log:
    """Lines only, for logs: while something takes long, one line every ten seconds."""

    period = _QUIET_SECONDS

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = time.monotonic() + _LINE_SECONDS

    def tick(self, shown: _Shown) -> None:
        for phase in shown.phases.values():
            if not phase.told and phase.seconds >= _QUIET_SECONDS:
                phase.told = True
                self.line(f"{phase.name} …", "")
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_SECONDS
        blobs = list(shown.blobs.values())
        if blobs:
            total = _total(blobs)
            rate = f", {total.rate}" if total.rate else ""
            self.line(f"{len(blobs)} blobs: {amount_of(total.done)} of {amount_of(total.size)}{rate}", "")
        for phase in shown.phases.values():
            done = f", {amount_of(phase.done)}, {phase.rate}" if phase.done else ""
            self.line(f"{phase.name} … {duration_of(phase.seconds)}{done}", "")
        for step in shown.steps.values():
            self.line(f"{step.name} … {duration_of(step.seconds)}", "")

    def line(self, text: str, style: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Nothing moves here."""


def _total(blobs: list[_Moving]) -> _Moving:
    """Return the blobs as if they were one."""
    done, size = sum(blob.done for blob in blobs), sum(blob.size for blob in blobs)
    return _Moving("total", size, done, since=min(blob.since for blob in blobs))


class _Terminal:
    """Lines that stay, and below them some that move: the step, and the blobs with their speed and time left."""

    period = _DRAW_SECONDS
    _STYLES: Final = {"": "", "bold": "\x1b[1m", "green": "\x1b[32m", "yellow": "\x1b[33m", "dim": "\x1b[2m"}

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colors = colored(terminal=stream.isatty())
        self._drawn = 0

    def line(self, text: str, style: str) -> None:
        self._stream.write(f"{self._erased()}{self._styled(text, style)}\n")
        self._stream.flush()

    def tick(self, shown: _Shown) -> None:
        columns, rows = _terminal_size(self._stream)
        lines = self._moving(shown, columns)[: max(1, rows - 2)]
        if lines or self._drawn:
            text = "".join(f"{self._styled(line[: columns - 1], 'dim')}\n" for line in lines)
            self._stream.write(self._erased() + text)
            self._stream.flush()
            self._drawn = len(lines)

    def _moving(self, shown: _Shown, columns: int) -> list[str]:
        """Return the lines that move, each shorter than the terminal is wide."""
        lines = []
        for step in list(shown.steps.values()):
            spent = duration_of(step.seconds)
            lines.append(f"{step.name[: max(10, columns - len(spent) - 3)]}  {spent}")
        blobs = [blob for blob in shown.blobs.values() if blob.seconds > _QUIET_SECONDS / 4]
        lines += [_blob_line(blob) for blob in blobs[:_BLOB_LINES]]
        if len(blobs) > _BLOB_LINES:
            lines.append(f"… and {len(blobs) - _BLOB_LINES} more")
        if len(blobs) > 1:
            lines.append(_blob_line(_total(blobs)))
        for phase in shown.phases.values():
            if phase.seconds >= _QUIET_SECONDS:
                phase.told = True
                done = f"  {amount_of(phase.done)}  {phase.rate}" if phase.done else ""
                lines.append(f"{phase.name} … {duration_of(phase.seconds)}{done}")
        return lines

    def _erased(self) -> str:
        """Return what erases the moving lines; they are then no longer there."""
        drawn, self._drawn = self._drawn, 0
        return f"\r\x1b[{drawn}A\x1b[J" if drawn else ""

    def end(self) -> None:
        self._stream.write(self._erased())
        self._stream.flush()

    def _styled(self, text: str, style: str) -> str:
        return f"{self._STYLES[style]}{text}\x1b[0m" if self._colors and style else text


def _blob_line(blob: _Moving) -> str:
    share = min(1.0, blob.done / blob.size) if blob.size else 0.0
    full = int(share * _BAR)
    bar = f"[{'=' * full}{'>' if full < _BAR else ''}{' ' * (_BAR - full - 1)}]"
    return f"{blob.name:<19}  {bar}  {amount_of(blob.done):>8} / {amount_of(blob.size):<8}  {blob.rate}"


def _terminal_size(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return 80, 24
    return max(size.columns, 20), max(size.lines, 4)


def tee(first: Callable[[Event], None], second: Observer) -> Observer:
    """Return an observer that tells both."""

    def both(event: Event) -> None:
        first(event)
        second(event)

    return both
