"""A stage graph as an SVG: one picture, in light and dark, that loads and runs nothing."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Final

from imagetool.build.stagegraph import Edge, Node, StageGraph
from imagetool.cli.faces import fitted, width_of
from imagetool.cli.layers import Box, arrange
from imagetool.cli.lines import printable

_CHAR: Final = 7.25  # the width of a character of 12 px
_HEAD: Final = 34.0
_ROW: Final = 20.0
_PAD: Final = 9.0
_GAP: Final = 26.0
_BETWEEN: Final = 92.0  # two columns
_EDGE: Final = 24.0
_COLUMNS: Final = 46  # characters of a step
_STEPS: Final = 30  # that are shown of a stage
_LEGEND: Final = 44.0

_STYLE: Final = """
svg{--bg:#fbfbfd;--card:#fff;--ink:#1c2330;--dim:#667085;--line:#cfd6e1;--head:#e8eef8;--from:#3b5b8c;--copy:#b9570b;
--mount:#7a4bb3;--target:#1f6f43;--image:#eef3ec;background:var(--bg)}
@media (prefers-color-scheme:dark){svg{--bg:#12151c;--card:#1a1f29;--ink:#e6e9f0;--dim:#98a2b3;--line:#3a4454;
--head:#263145;--from:#8fb2e8;--copy:#f0a05a;--mount:#c3a1ef;--target:#6fd19b;--image:#20302a}}
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--ink)}
.name{font:600 14px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.note,.legend{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--dim)}
.word{font-weight:700}
.card{fill:var(--card);stroke:var(--line)}
.head{fill:var(--head)}
.image .card,.scratch .card,.context .card{fill:var(--image)}
.frame{fill:none;stroke:var(--line)}
.target .frame{stroke:var(--target);stroke-width:2.5}
.target .note{fill:var(--target);font-weight:600}
.unreached{opacity:.42}
.edge-line{fill:none;stroke-width:1.8;stroke:var(--copy)}
.edge-line.from{stroke-width:2.6;stroke:var(--from)}
.edge-line.mount{stroke-dasharray:5 4;stroke:var(--mount)}
.tip-from{fill:var(--from)}.tip-copy{fill:var(--copy)}.tip-mount{fill:var(--mount)}
"""
_KINDS: Final = {"from": "FROM", "copy": "COPY --from", "mount": "RUN --mount=from"}
_SIGNS: Final = {"image": "image", "scratch": "empty", "context": "build context"}


def svg(graph: StageGraph) -> str:
    """Return the picture of a graph; all texts in it are untrusted."""
    return "".join(_Drawing(graph).lines())


class _Drawing:
    """One picture: where each node is, and the columns they stand in."""

    def __init__(self, graph: StageGraph) -> None:
        self._graph = graph
        self._nodes = {node.id: node for node in graph.nodes}
        heights = {node.id: _height(node) for node in graph.nodes}
        ports: dict[tuple[str, str], list[float]] = {}
        for edge in graph.edges:
            ports.setdefault((edge.source, edge.stage), []).append(self._port(edge))
        links = {link: sum(reached) / len(reached) for link, reached in ports.items()}
        self._boxes, self._ways = arrange(heights, links, out=_HEAD / 2, gap=_GAP)
        self._lefts, self._widths = self._columns()
        last = len(self._widths) - 1
        self._width = max(self._lefts[last] + self._widths[last] + _EDGE, 520.0)
        boxes = [*self._boxes.values(), *(box for way in self._ways.values() for box in way)]
        self._height = max((box.top + box.height for box in boxes), default=0.0) + 2 * _EDGE + _LEGEND

    def _columns(self) -> tuple[list[float], list[float]]:
        """Return where each column begins and how wide it is."""
        widths = [0.0] * (max((box.column for box in self._boxes.values()), default=0) + 1)
        for name, box in self._boxes.items():
            widths[box.column] = max(widths[box.column], _width(self._nodes[name]))
        lefts, left = [], _EDGE
        for width in widths:
            lefts.append(left)
            left += width + _BETWEEN
        return lefts, widths

    def lines(self) -> Iterator[str]:
        """Yield the picture."""
        stages = [node for node in self._graph.nodes if node.kind == "stage"]
        target = next((node.name for node in stages if node.target), "")
        needed = sum(node.reached for node in stages)
        told = f"{len(stages)} stage{'s'[: len(stages) > 1]}, of which the build of {target} needs {needed}"
        wide, high = f"{self._width:.0f}", f"{self._height:.0f}"
        size = f'viewBox="0 0 {wide} {high}" width="{wide}" height="{high}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title about">\n'
        yield f'<title id="title">Stages of a Dockerfile</title>\n<desc id="about">{_safe(told)}</desc>\n'
        yield f"<style>{_STYLE}</style>\n<defs>\n"
        for kind in _KINDS:
            yield (
                f'<marker id="tip-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
                f'markerUnits="userSpaceOnUse" orient="auto"><path class="tip-{kind}" d="M0 0 8 4 0 8z"/></marker>\n'
            )
        yield "</defs>\n"
        for edge in self._graph.edges:
            yield self._edge(edge)
        for node in self._graph.nodes:
            yield from self._node(node)
        yield from self._legend(told)
        yield "</svg>\n"

    def _left(self, box: Box) -> float:
        return self._lefts[box.column]

    def _node(self, node: Node) -> Iterator[str]:
        box = self._boxes[node.id]
        left, top, width = self._left(box), box.top + _EDGE, _width(node)
        marks = f"{node.kind}{' target' if node.target else ''}{'' if node.reached else ' unreached'}"
        full = "\n".join([node.name, *node.steps])
        yield f'<g class="{marks}" transform="translate({left:.1f} {top:.1f})"><title>{_safe(full)}</title>\n'
        yield f'<rect class="card" width="{width:.1f}" height="{box.height:.1f}" rx="8"/>\n'
        if node.kind == "stage":
            yield f'<path class="head" d="M0 {_HEAD}V8a8 8 0 0 1 8-8H{width - 8:.1f}a8 8 0 0 1 8 8V{_HEAD}z"/>\n'
        yield f'<text class="name" x="12" y="22">{_safe(fitted(node.name, _COLUMNS - 14))}</text>\n'
        if note := _note(node):
            yield f'<text class="note" x="{width - 12:.1f}" y="22" text-anchor="end">{_safe(note)}</text>\n'
        for row, step in enumerate(_rows(node)):
            word, space, rest = fitted(printable(" ".join(step.split())), _COLUMNS).partition(" ")
            y = _HEAD + _PAD + row * _ROW + 12
            yield f'<text x="12" y="{y:.1f}"><tspan class="word">{_safe(word)}</tspan>{space}{_safe(rest)}</text>\n'
        yield f'<rect class="frame" width="{width:.1f}" height="{box.height:.1f}" rx="8"/>\n</g>\n'

    def _port(self, edge: Edge) -> float:
        """Return how far below the top of its stage a line comes in: at the head for FROM, else at the step."""
        row = min(edge.step, len(_rows(self._nodes[edge.stage])) - 1)
        return _HEAD / 2 if edge.kind == "from" else _HEAD + _PAD + row * _ROW + 8

    def _edge(self, edge: Edge) -> str:
        start, end = self._boxes[edge.source], self._boxes[edge.stage]
        target = end.top + self._port(edge)
        x, y = self._left(start) + _width(self._nodes[edge.source]), start.top + _HEAD / 2 + _EDGE
        path = [f"M{x:.1f} {y:.1f}"]
        x = self._left(start) + self._widths[start.column]  # past the boxes of its column that are wider
        path.append(f"H{x:.1f}")
        for passed in self._ways[edge.source, edge.stage]:
            left, height = self._left(passed), passed.top + passed.out + _EDGE
            path.append(f"{_curve(x, y, left, height)}H{left + self._widths[passed.column]:.1f}")
            x, y = left + self._widths[passed.column], height
        path.append(_curve(x, y, self._left(end) - 1, target + _EDGE))
        dim = "" if self._nodes[edge.stage].reached else " unreached"
        step = self._nodes[edge.stage].steps[edge.step]
        return (
            f'<path class="edge-line {edge.kind}{dim}" d="{"".join(path)}" marker-end="url(#tip-{edge.kind})">'
            f"<title>{_safe(step)}</title></path>\n"
        )

    def _legend(self, told: str) -> Iterator[str]:
        y = self._height - _LEGEND / 2
        x = _EDGE
        for kind, name in _KINDS.items():
            if any(edge.kind == kind for edge in self._graph.edges):
                yield f'<path class="edge-line {kind}" d="M{x} {y}h30" marker-end="url(#tip-{kind})"/>\n'
                yield f'<text class="legend" x="{x + 38}" y="{y + 4}">{name}</text>\n'
                x += 58 + 7 * len(name)
        yield f'<text class="legend" x="{x + 8}" y="{y + 4}">{_safe(told)}</text>\n'


def _rows(node: Node) -> list[str]:
    """Return the steps that are shown; the FROM of a stage is its first."""
    if len(node.steps) <= _STEPS:
        return list(node.steps)
    return [*node.steps[: _STEPS - 1], f"… {len(node.steps) - _STEPS + 1} more steps"]


def _note(node: Node) -> str:
    """Return what stands beside a name."""
    if node.kind != "stage":
        return _SIGNS[node.kind]
    state = "target" if node.target else "" if node.reached else "not built"
    return ", ".join(text for text in (node.platform, state) if text)


def _height(node: Node) -> float:
    return _HEAD + (2 * _PAD + _ROW * len(_rows(node)) - 4 if node.steps else 0.0)


def _width(node: Node) -> float:
    longest = max((width_of(fitted(printable(" ".join(step.split())), _COLUMNS)) for step in _rows(node)), default=0)
    head = (width_of(fitted(node.name, _COLUMNS - 14)) + width_of(_note(node)) + 3) * 8.0
    return max(140.0, longest * _CHAR, head) + 24


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    bend = max(30.0, (to_x - x) / 2)
    return f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _safe(text: str) -> str:
    return html.escape(printable(text))
