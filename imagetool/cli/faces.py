"""How what is under way looks: plain lines in a log, a tree that moves on a terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final, TextIO

from imagetool.cli.lines import printable
from imagetool.cli.render import amount_of, duration_of
from imagetool.config.environment import colored
from imagetool.progress import PlannedStep
from imagetool.values import dataclass, field

_LINE_SECONDS: Final = 10.0  # between two lines about what moves, in a log
_DRAW_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 1.0  # what is over sooner is not worth a word
_BLOB_LINES: Final = 8
_BAR: Final = 20
_LABEL: Final = 24
DIGEST: Final = 19  # characters of one: the algorithm and twelve digits


@dataclass(slots=True)
class Moving:
    """Something that takes time: a step, a blob or a phase. `size` is 0 when nobody knows it."""

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
        if self.seconds < QUIET_SECONDS / 2 or not self.done:
            return ""
        speed = self.done / self.seconds
        left = f"  ETA {duration_of((self.size - self.done) / speed)}" if self.size > self.done else ""
        return f"{amount_of(int(speed))}/s{left}"


@dataclass(slots=True)
class Underway:
    """What is under way: steps by number, blobs by digest and phases by name; and of steps what is planned and over."""

    steps: dict[int, Moving] = field(default_factory=dict)
    blobs: dict[str, Moving] = field(default_factory=dict)
    phases: dict[str, Moving] = field(default_factory=dict)
    plan: tuple[PlannedStep, ...] = ()
    total: int = 0
    over: set[int] = field(default_factory=set)
    cached: int = 0
    since: float = field(default_factory=time.monotonic)

    def __bool__(self) -> bool:
        return bool(self.steps or self.blobs or self.phases)


class Log:
    """Lines only, for logs: while something takes long, one line every ten seconds."""

    period = QUIET_SECONDS
    digest = 200  # all of it, to be searched for

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = time.monotonic() + _LINE_SECONDS

    def tick(self, underway: Underway) -> None:
        """Tell of what takes long."""
        for phase in underway.phases.values():
            if not phase.told and phase.seconds >= QUIET_SECONDS:
                phase.told = True
                self.line(f"{phase.name} …", "")
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_SECONDS
        blobs = list(underway.blobs.values())
        if blobs:
            total = _total(blobs)
            rate = f", {total.rate}" if total.rate else ""
            self.line(f"{len(blobs)} blobs: {amount_of(total.done)} of {amount_of(total.size)}{rate}", "")
        for phase in underway.phases.values():
            done = f", {amount_of(phase.done)}, {phase.rate}" if phase.done else ""
            self.line(f"{phase.name} … {duration_of(phase.seconds)}{done}", "")
        for number, step in underway.steps.items():
            where = f"[{number}/{underway.total}]" if len(underway.steps) == 1 else f"[{step.stage}]"
            self.line(f"{where} {step.name} … {duration_of(step.seconds)}", "")

    def line(self, text: str, style: str) -> None:
        """Write a line."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Nothing moves here."""


class Terminal:
    """Lines that stay, and below them some that move: stages with their steps, blobs with their speed and time left.

    The moving lines are never wider than the terminal; when it becomes narrower, what it made of
    them is reckoned with.
    """

    period = _DRAW_SECONDS
    digest = DIGEST
    _STYLES: Final = {
        "": "",
        "bold": "\x1b[1m",
        "green": "\x1b[32m",
        "yellow": "\x1b[33m",
        "red": "\x1b[31m",
        "dim": "\x1b[2m",
    }

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colors = colored(terminal=stream.isatty())
        self._drawn: list[int] = []  # the widths of the lines that move

    def line(self, text: str, style: str) -> None:
        """Write a line above those that move."""
        self._stream.write(f"{self._erased()}{self._styled(text, style)}\n")
        self._stream.flush()

    def tick(self, underway: Underway) -> None:
        """Draw what moves anew."""
        columns, rows = terminal_size(self._stream)
        lines = [fitted(line, columns - 1) for line in self._moving(underway, columns - 1)]
        if len(lines) > rows - 2:
            more = len(lines) - (rows - 3)
            lines[rows - 3 :] = [fitted(f"… and {more} more lines", columns - 1)]
        if lines or self._drawn:
            text = "".join(f"{self._styled(line, 'dim')}\n" for line in lines)
            self._stream.write(self._erased() + text)
            self._stream.flush()
            self._drawn = [width_of(line) for line in lines]

    def _moving(self, underway: Underway, columns: int) -> Iterator[str]:
        if underway.steps:
            yield from _tree(underway, columns)
        blobs = [blob for blob in underway.blobs.values() if blob.seconds > QUIET_SECONDS / 4]
        yield from map(_blob_line, blobs[:_BLOB_LINES])
        if len(blobs) > _BLOB_LINES:
            yield f"… and {len(blobs) - _BLOB_LINES} more"
        if len(blobs) > 1:
            yield _blob_line(_total(blobs))
        for phase in underway.phases.values():
            if phase.seconds >= QUIET_SECONDS:
                phase.told = True
                done = f"  {amount_of(phase.done)}  {phase.rate}" if phase.done else ""
                yield f"{phase.name} … {duration_of(phase.seconds)}{done}"

    def _erased(self) -> str:
        """Return what erases the moving lines; they are then no longer there."""
        drawn, self._drawn = self._drawn, []
        if not drawn:
            return ""
        columns, rows = terminal_size(self._stream)
        height = sum(max(1, -(-width // columns)) for width in drawn)  # a narrower terminal has wrapped them
        return f"\r\x1b[{min(height, rows - 1)}A\x1b[J"

    def end(self) -> None:
        """Leave nothing that moves."""
        self._stream.write(self._erased())
        self._stream.flush()

    def _styled(self, text: str, style: str) -> str:
        return f"{self._STYLES[style]}{text}\x1b[0m" if self._colors and style else text


def _tree(underway: Underway, columns: int) -> Iterator[str]:
    """Yield the stages that are not done, each with the step it is at and how long that has taken."""
    cached = f", {underway.cached} cached" if underway.cached else ""
    spent = duration_of(time.monotonic() - underway.since)
    yield _between(f"{len(underway.over)} of {underway.total} steps done{cached}", spent, columns)
    stages: dict[str, list[PlannedStep]] = {}
    for step in underway.plan:
        stages.setdefault(step.stage, []).append(step)
    for one in underway.steps.values():  # triggers, and builds without a plan
        stages.setdefault(one.stage, [])
    waiting = {name: steps for name, steps in stages.items() if any(step.number not in underway.over for step in steps)}
    shown = {**waiting, **{one.stage: stages[one.stage] for one in underway.steps.values()}}
    wide = min(_LABEL, max(width_of(printable(name)) for name in shown))
    for at, (name, steps) in enumerate(shown.items(), 1):
        branch = "└─" if at == len(shown) else "├─"
        label = fitted(printable(name), wide)
        left, right = _place(underway, name, steps)
        yield _between(f"{branch} {label}{' ' * (wide - width_of(label))}  {left}", right, columns)


def _place(underway: Underway, name: str, steps: list[PlannedStep]) -> tuple[str, str]:
    """Return where a stage is, and how long it has been there."""
    for number, step in underway.steps.items():
        if step.stage == name:
            at = next((at for at, one in enumerate(steps, 1) if one.number == number), 0)
            place = f"{at}/{len(steps)} " if at else ""
            return f"{place}{step.name}", duration_of(step.seconds)
    upcoming = next((step for step in steps if step.number not in underway.over), None)
    of = {step.number: step.stage for step in underway.plan}
    needs = upcoming.needs if upcoming else ()
    others = [printable(of[number]) for number in needs if number not in underway.over and of[number] != name]
    return (f"waits for {', '.join(others)}" if others else "waits"), ""


def _between(left: str, right: str, columns: int) -> str:
    """Return a line with something at both ends."""
    if not right:
        return left
    left = fitted(left, columns - len(right) - 2)
    return f"{left}{' ' * (columns - width_of(left) - len(right))}{right}"


def _total(blobs: list[Moving]) -> Moving:
    """Return the blobs as if they were one."""
    done, size = sum(blob.done for blob in blobs), sum(blob.size for blob in blobs)
    return Moving("total", size, done, since=min(blob.since for blob in blobs))


def _blob_line(blob: Moving) -> str:
    share = min(1.0, blob.done / blob.size) if blob.size else 0.0
    full = int(share * _BAR)
    bar = f"[{'=' * full}{'>' if full < _BAR else ''}{' ' * (_BAR - full - 1)}]"
    return f"{blob.name:<19}  {bar}  {amount_of(blob.done):>8} / {amount_of(blob.size):<8}  {blob.rate}"


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_width(char) for char in text)


def fitted(text: str, columns: int) -> str:
    """Return the beginning of a text that takes at most so many columns, ending with … when it is not all."""
    text = text.replace("\t", " ").replace("\n", " ")
    if width_of(text) <= columns:
        return text
    taken = 0
    for at, char in enumerate(text):
        taken += _width(char)
        if taken > columns - 1:
            return text[:at] + "…"
    return text


def _width(char: str) -> int:
    if char.isascii():
        return 1
    from unicodedata import combining, east_asian_width

    return 0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return columns and rows of a stream's terminal; of 80 and 24 when there is none or it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return 80, 24
    return max(size.columns or 80, 20), max(size.lines or 24, 4)
