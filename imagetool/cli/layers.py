"""Where the boxes of a drawing go: in columns from left to right, so that lines are short and seldom cross.

The manner of Sugiyama, Tagawa and Toda (1981): ranks by the longest way, a place in every column
that a long line passes, an order in each column by the middle of the neighbours, and at last
heights that bring neighbours level without changing the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from imagetool.values import dataclass, field

_SWEEPS: Final = 12
_PASS: Final = 10.0  # the height of a place that a line passes through


@dataclass(slots=True)
class Box:
    """A box, or the place where a line passes a column; `top` and `column` are found by `arrange`.

    out: how far below its top lines leave it. before and after: the neighbours, with how far below the top
    of the right one a line reaches that.
    """

    height: float
    out: float = _PASS / 2
    column: int = 0
    top: float = 0.0
    before: list[tuple[Box, float]] = field(default_factory=list)
    after: list[tuple[Box, float]] = field(default_factory=list)


def arrange(
    heights: Mapping[str, float], links: Mapping[tuple[str, str], float], *, out: float, gap: float
) -> tuple[dict[str, Box], dict[tuple[str, str], list[Box]]]:
    """Return the boxes, by name, and for each link the places it passes on its way.

    Args:
        heights: of the boxes, in the order they have when nothing else decides.
        links: from and to, with how far below the top the line comes in; they must not go round.
        out: how far below the top of a box lines leave it.
        gap: the least distance of two boxes of a column.
    """
    boxes = {name: Box(height, out) for name, height in heights.items()}
    _rank(boxes, list(links))
    columns: list[list[Box]] = [[] for _ in range(max((box.column for box in boxes.values()), default=0) + 1)]
    for box in boxes.values():
        columns[box.column].append(box)
    ways: dict[tuple[str, str], list[Box]] = {}
    for (start, end), port in links.items():
        last = boxes[start]
        way = ways[start, end] = []
        for column in range(boxes[start].column + 1, boxes[end].column):
            way.append(Box(_PASS, column=column))
            columns[column].append(way[-1])
        for box in (*way, boxes[end]):
            reached = port if box is boxes[end] else _PASS / 2
            last.after.append((box, reached))
            box.before.append((last, reached))
            last = box
    _order(columns)
    _level(columns, gap)
    return boxes, ways


def _rank(boxes: dict[str, Box], links: Sequence[tuple[str, str]]) -> None:
    """Give each box its column: after all that it needs; what needs nothing stands just before its first use."""
    for _ in boxes:
        for start, end in links:
            boxes[end].column = max(boxes[end].column, boxes[start].column + 1)
    ends = {end for _, end in links}
    for name, box in boxes.items():
        uses = [boxes[end].column for start, end in links if start == name]
        if name not in ends and uses:
            box.column = min(uses) - 1


def _order(columns: list[list[Box]]) -> None:
    """Order each column by the mean place of the neighbours in the next, to and fro."""
    best = [list(column) for column in columns]
    fewest = _crossings(columns)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for column in columns if forward else columns[::-1]:
            places = {id(box): float(place) for one in columns for place, box in enumerate(one)}
            keys: dict[int, float] = {}
            for box in column:
                if forward:
                    near = [places[id(one)] for one, _ in box.before]
                else:
                    near = [places[id(one)] + port / (one.height + 1) for one, port in box.after]
                keys[id(box)] = sum(near) / len(near) if near else places[id(box)]
            column.sort(key=lambda box: keys[id(box)])
        crossings = _crossings(columns)
        if crossings < fewest:
            fewest, best = crossings, [list(column) for column in columns]
    for column, found in zip(columns, best, strict=True):
        column[:] = found


def _crossings(columns: list[list[Box]]) -> int:
    """Return how many pairs of lines between neighbouring columns cross."""
    places = {id(box): float(place) for one in columns for place, box in enumerate(one)}
    count = 0
    for column in columns:
        lines = [
            (places[id(box)], places[id(one)] + port / (one.height + 1)) for box in column for one, port in box.after
        ]
        for at, (start, end) in enumerate(lines):
            count += sum((start - other) * (end - after) < 0 for other, after in lines[:at])
    return count


def _level(columns: list[list[Box]], gap: float) -> None:
    """Give each box its height: near the mean of its neighbours', in the order of its column, `gap` apart."""
    for column in columns:
        top = 0.0
        for box in column:
            box.top = top
            top += box.height + gap
    for sweep in range(_SWEEPS * 2):
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            _settle(column, [_wanted(box) for box in column], gap)
    highest = min((box.top for column in columns for box in column), default=0.0)
    for column in columns:
        for box in column:
            box.top -= highest


def _wanted(box: Box) -> float:
    """Return where the top of a box would have to be for its lines to be level, in the mean."""
    tops = [one.top + one.out - port for one, port in box.before]
    tops += [one.top + port - box.out for one, port in box.after]
    return sum(tops) / len(tops) if tops else box.top


def _settle(column: list[Box], wanted: list[float], gap: float) -> None:
    """Put boxes where they want to be, with the least sum of squares of what is missing (pool adjacent violators)."""
    offsets, at = [], 0.0
    for box in column:
        offsets.append(at)
        at += box.height + gap
    pools: list[tuple[float, int]] = []  # a mean of what is wanted without the offsets, and of how many boxes
    for want, offset in zip(wanted, offsets, strict=True):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            above, of = pools.pop()
            mean, count = (mean * count + above * of) / (count + of), count + of
        pools.append((mean, count))
    shifts = [mean for mean, count in pools for _ in range(count)]
    for box, offset, shift in zip(column, offsets, shifts, strict=True):
        box.top = offset + shift
