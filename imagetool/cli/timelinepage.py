"""A build's timeline as one HTML page: it loads nothing, runs nothing, and prints.

Everything that comes from a Dockerfile or a step is untrusted: it is escaped, and the page's own
policy forbids it to load or run anything all the same.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imagetool import __version__
from imagetool.cli.lines import printable
from imagetool.cli.render import amount_of, counted
from imagetool.cli.timeline import Part, Span, Step, Timeline
from imagetool.cli.timelinestyle import STYLE
from imagetool.content.staging import write_file
from imagetool.errors import ImagetoolError

_TEXT: Final = 20_000  # characters of a command or an output that are shown
_LINE: Final = 160
_TICKS: Final = 8
_MARKS: Final = {
    "done": "built",
    "cached": "✓ cached",
    "failed": "✕ failed",
    "stopped": "stopped",
    "running": "stopped",
    "waiting": "not begun",
}


@contextmanager
def drawn(path: str, title: str, redact: Callable[[str], str]) -> Iterator[Timeline]:
    """Yield the observer of a build, and write its page when the build is over, whether or not it worked.

    Args:
        path: where the page goes; it is there whole or not at all.
        redact: takes secrets out of a text.

    What the build raises goes on; raises StorageError when the page cannot be written.
    """
    timeline = Timeline()
    try:
        yield timeline
    except BaseException as error:
        told = "\n".join([str(error), *getattr(error, "__notes__", ())]) if isinstance(error, ImagetoolError) else ""
        try:
            write_file(Path(path), page(timeline, title, told or "interrupted", redact).encode())
        except ImagetoolError as second:
            error.add_note(f"--timeline: {second}")
        raise
    write_file(Path(path), page(timeline, title, "", redact).encode())


def page(timeline: Timeline, title: str, error: str, redact: Callable[[str], str]) -> str:
    """Return the page of a build.

    Args:
        title: what was built; untrusted, as all texts are.
        error: why it failed; "" when it did not.
        redact: takes secrets out of a text.
    """
    return _Page(timeline, redact).text(title, error)


class _Page:
    """Draws one timeline: the scale of its axis, and the texts without secrets."""

    def __init__(self, timeline: Timeline, redact: Callable[[str], str]) -> None:
        self._timeline = timeline
        self._redact = redact
        self._total = max(timeline.total, 0.001)
        self._tick = next(tick for tick in _ticks() if self._total / tick <= _TICKS)
        self._scale = f"--tick:{100 * self._tick / self._total:.4f}%"

    def text(self, title: str, error: str) -> str:
        """Return the whole page."""
        name = self._safe(title)
        body = "".join((*self._head(name, error), *self._tiles(), *self._chart(), *self._tables(), *self._notes()))
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>Build of {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}"
            f"<footer>imagetool {html.escape(__version__)}</footer>\n</body>\n</html>\n"
        )

    def _head(self, name: str, error: str) -> Iterator[str]:
        timeline = self._timeline
        state = "failed" if error else "unchanged" if timeline.answered else "built"
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(timeline.began))
        platforms = ", ".join(self._safe(part.platform) for part in timeline.parts if part.platform)
        about = [f'<time datetime="{began[:10]}T{began[11:19]}Z">{began}</time>', platforms]
        if timeline.identity:
            about.append(f"<code>{self._safe(timeline.identity)}</code>")
        yield f'<header>\n<h1>{name} <span class="state {state}">{state}</span></h1>\n'
        yield f"<p>{' · '.join(one for one in about if one)}</p>\n"
        if timeline.answered:
            yield "<p>Nothing had changed since the last build, so no step was carried out.</p>\n"
        if error:
            yield f'<pre class="error">{self._safe(error)}</pre>\n'
        yield "</header>\n<main>\n"

    def _tiles(self) -> Iterator[str]:
        steps = [step for part in self._timeline.parts for step in part.steps.values()]
        count = {name: sum(step.outcome == name for step in steps) for name in ("done", "cached")}
        slowest = max(self._slowest(), key=lambda one: one[1].seconds, default=None)
        critical = [step for part in self._timeline.parts for step in part.critical]
        cpu = sum(step.cpu or 0.0 for step in steps)
        tiles = [
            ("time", _duration(self._timeline.total), "from start to finish"),
            ("steps", str(len(steps)), f"{count['cached']} cached, {count['done']} built"),
        ]
        if slowest:
            place, step = slowest
            link = f'<a href="#{_id(place, step)}">★ {step.number} {self._short(step.name, 44)}</a>'
            tiles.append(("slowest step", _duration(step.seconds), link))
        if critical:
            way = " → ".join(str(step.number) for step in critical if step.seconds >= self._total / 200)
            spent = sum(step.seconds for step in critical)
            tiles.append(("critical path", _duration(spent), f"steps {way}" if way else "no step took long"))
        if cpu:
            tiles.append(("CPU of steps", _duration(cpu), _share(cpu / self._total)))
        new = sum(step.size for step in steps if step.outcome == "done")
        tiles.append(("new layers", amount_of(new), "compressed"))
        yield '<ul class="tiles">\n'
        for name, value, more in tiles:
            yield f"<li><span>{name}</span><b>{value}</b><small>{more}</small></li>\n"
        yield "</ul>\n"

    def _slowest(self) -> Iterator[tuple[int, Step]]:
        for place, part in enumerate(self._timeline.parts):
            if part.slowest:
                yield place, part.slowest

    def _chart(self) -> Iterator[str]:
        """Yield the lanes: one of each stage, and one of what moved beside the steps."""
        yield '<section aria-labelledby="stages">\n<h2 id="stages">Stages</h2>\n'
        yield (
            '<p class="legend"><i class="bar done critical"></i> on the critical path '
            '<i class="bar done"></i> built meanwhile <i class="bar cached"></i> ✓ from the cache '
            '<i class="bar failed"></i> ✕ failed <i class="wait"></i> waiting for another stage</p>\n'
        )
        yield f'<div class="lanes" style="{self._scale}">\n<div class="lane axis"><span></span><div class="track">'
        at = 0.0
        while at <= self._total:
            yield f'<span style="left:{100 * at / self._total:.3f}%">{_tick_label(at, self._tick)}</span>'
            at += self._tick
        yield "</div></div>\n"
        for place, part in enumerate(self._timeline.parts):
            if len(self._timeline.parts) > 1:
                yield f"<h3>{self._safe(part.platform)}</h3>\n"
            marks = _Marks(part)
            for stage, steps in part.stages.items():
                yield self._lane(stage, steps, place, marks)
        if self._timeline.spans:
            yield self._other(self._timeline.spans)
        yield "</div>\n</section>\n"

    def _lane(self, stage: str, steps: Sequence[Step], place: int, marks: _Marks) -> str:
        begun = [step for step in steps if step.start is not None]
        spent = sum(step.seconds for step in begun)
        cached = sum(step.outcome == "cached" for step in steps)
        told = f"{counted(len(steps), 'step')}, {cached} cached, {_duration(spent)}"
        bars = []
        if begun:
            first, last = min(step.start or 0.0 for step in begun), max(step.end for step in begun)
            bars.append(f'<i class="wait" style="{self._span(first, last)}"></i>')
        for step in begun:
            label = f"{step.number} {step.name}{', ' + _MARKS[step.outcome]}, {_duration(step.seconds)}"
            shown = f"{marks.sign(step)}{step.number} {self._short(step.name, 60)}"
            bars.append(
                f'<a class="bar {marks.of(step)}" href="#{_id(place, step)}" title="{self._safe(label[:_LINE])}" '
                f'style="{self._span(step.start or 0.0, step.end)}">{self._label(shown, step.seconds)}</a>'
            )
        return (
            f'<div class="lane"><div class="who"><b>{self._safe(stage)}</b><small>{told}</small></div>'
            f'<div class="track">{"".join(bars)}</div></div>\n'
        )

    def _other(self, spans: Sequence[Span]) -> str:
        """Return the lanes of blobs and phases: as many rows as there were at once."""
        rows: list[list[Span]] = []
        for span in sorted(spans, key=lambda span: span.start):
            fitting = [row for row in rows if (row[-1].end or self._total) <= span.start]
            if fitting:
                fitting[0].append(span)
            elif len(rows) < _TICKS:
                rows.append([span])
        tracks = []
        for row in rows:
            bars = []
            for span in row:
                end = self._total if span.end is None else span.end
                size = f", {amount_of(span.size)}" if span.size else ""
                label = self._safe(f"{span.name}{size}, {_duration(end - span.start)}")
                place = self._span(span.start, end)
                bars.append(
                    f'<i class="bar other" title="{label}" style="{place}">{self._label(label, end - span.start)}</i>'
                )
            tracks.append(f'<div class="track">{"".join(bars)}</div>')
        who = '<div class="who"><b>beside</b><small>pulls, outputs</small></div>'
        return f'<div class="lane">{who}<div class="rows">{"".join(tracks)}</div></div>\n'

    def _tables(self) -> Iterator[str]:
        """Yield the steps, each with all that is known of it."""
        yield '<section aria-labelledby="steps">\n<h2 id="steps">Steps</h2>\n'
        for place, part in enumerate(self._timeline.parts):
            marks = _Marks(part)
            yield f'<table style="{self._scale}">\n'
            if len(self._timeline.parts) > 1:
                yield f"<caption>{self._safe(part.platform)}</caption>\n"
            columns = ("#", "Step", "Result", "When", "Time", "Layer", "CPU", "Memory")
            heads = (f'<th scope="col" class="{name.lower()}">{name}</th>' for name in columns)
            yield f"<thead><tr>{''.join(heads)}</tr></thead>\n"
            for stage, steps in part.stages.items():
                yield f'<tbody>\n<tr class="stage"><th colspan="8" scope="rowgroup">{self._safe(stage)}</th></tr>\n'
                yield from (self._row(step, place, marks) for step in steps)
                yield "</tbody>\n"
            yield "</table>\n"
        yield "</section>\n"

    def _row(self, step: Step, place: int, marks: _Marks) -> str:
        bar = (
            f'<i class="bar {marks.of(step)}" style="{self._span(step.start, step.end)}"></i>'
            if step.start is not None
            else ""
        )
        first = self._short(step.name, _LINE)
        word, _, rest = first.partition(" ")
        cells = (
            ("#", str(step.number)),
            ("step", f"<details><summary><code><b>{word}</b> {rest}</code></summary>{self._details(step)}</details>"),
            ("result", f'<span class="mark {step.outcome}">{marks.sign(step)}{marks.word(step)}</span>'),
            ("when", f'<div class="track">{bar}</div>'),
            ("time", _duration(step.seconds) if step.start is not None else ""),
            ("layer", amount_of(step.size) if step.size else ""),
            ("cpu", "" if step.cpu is None else _duration(step.cpu)),
            ("memory", amount_of(step.memory) if step.memory else ""),
        )
        row = "".join(f'<td class="{name}">{content}</td>' for name, content in cells)
        return f'<tr id="{_id(place, step)}" class="{marks.of(step)}">{row}</tr>\n'

    def _details(self, step: Step) -> str:
        output = bytes(step.output).decode("utf-8", "replace")
        known = [
            ("command", f"<pre>{self._safe(step.name)}</pre>"),
            ("began", f"after {_duration(step.start)}" if step.start is not None else ""),
            ("waits for", ", ".join(f"step {need}" for need in step.needs)),
            ("layer", f"<code>{self._safe(step.layer)}</code>" if step.layer else ""),
            ("cache key", f"<code>{self._safe(step.key)}</code>" if step.key else ""),
            ("written", amount_of(step.written) if step.written else ""),
            ("why", f'<pre class="error">{self._safe(step.error)}</pre>' if step.error else ""),
            ("output’s end", f"<pre>{self._safe(output)}</pre>" if output else ""),
        ]
        return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in known if value) + "</dl>"

    def _notes(self) -> Iterator[str]:
        if self._timeline.notes:
            yield '<section aria-labelledby="notes">\n<h2 id="notes">Notes</h2>\n<ul class="notes">\n'
            for level, text in self._timeline.notes:
                yield f'<li class="{html.escape(level)}">{self._safe(text)}</li>\n'
            yield "</ul>\n</section>\n"
        yield "</main>\n"

    def _span(self, start: float | None, end: float) -> str:
        start = start or 0.0
        return f"left:{100 * start / self._total:.3f}%;width:{100 * max(0.0, end - start) / self._total:.3f}%"

    def _label(self, text: str, seconds: float) -> str:
        """Return what stands in a bar that is wide enough for a word; the others say it when pointed at."""
        return f"<span>{text}</span>" if seconds > self._total / 30 else ""

    def _safe(self, text: str) -> str:
        """Return an untrusted text for a page: without secrets and control characters, escaped, of bounded length."""
        shown = printable(self._redact(text))
        return html.escape(shown if len(shown) <= _TEXT else f"{shown[:_TEXT]}…")

    def _short(self, text: str, length: int) -> str:
        """Return the beginning of an untrusted text, in one line."""
        line = printable(" ".join(self._redact(text).split()))
        return html.escape(line if len(line) <= length else f"{line[: length - 1]}…")


class _Marks:
    """Which classes and signs the steps of a part have."""

    def __init__(self, part: Part) -> None:
        self._critical = {step.number for step in part.critical}
        self._slowest = part.slowest.number if part.slowest else 0

    def of(self, step: Step) -> str:
        """Return the classes of a step."""
        outcome = "stopped" if step.outcome == "running" else step.outcome
        critical = " critical" if step.number in self._critical else ""
        return f"{outcome}{critical}{' slowest' if step.number == self._slowest else ''}"

    @staticmethod
    def word(step: Step) -> str:
        """Return how a step went, in a word."""
        return "done" if step.outcome == "done" and not step.layer else _MARKS[step.outcome]

    def sign(self, step: Step) -> str:
        """Return what says without colours that a step is the slowest."""
        return "★ " if step.number == self._slowest else ""


def _share(processors: float) -> str:
    return f"{processors:.1f} processors" if processors >= 1 else f"{processors:.0%} of a processor"


def _id(place: int, step: Step) -> str:
    return f"step-{place + 1}-{step.number}"


def _ticks() -> Iterable[float]:
    """Yield the distances that marks on an axis may have, in seconds, each larger than the one before."""
    for power in range(-3, 0):
        yield from (10**power, 2 * 10**power, 5 * 10**power)
    yield from (1, 2, 5, 10, 15, 30)
    minute = 60.0
    while True:
        yield from (minute, 2 * minute, 5 * minute)
        minute *= 10


def _tick_label(at: float, tick: float) -> str:
    if tick < 1:
        return (
            f"{at * 1000:.0f} ms"
            if tick < 0.1 and at < 1
            else f"{at:.{3 if tick < 0.01 else 2 if tick < 0.1 else 1}f} s"
        )
    if tick < 60:
        return f"{at:.0f} s"
    return f"{at / 60:.0f} min"


def _duration(seconds: float) -> str:
    """Return a time for people, to three digits."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"
