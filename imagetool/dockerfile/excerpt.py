"""Lines of a file around a mistake, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from unicodedata import combining, east_asian_width

from imagetool.dockerfile.span import Span
from imagetool.dockerfile.wording import printable

_RULE: Final = "-" * 20
_MARKED_LINES: Final = 20  # of one long instruction, how many are shown
_HEAD: Final = 14  # of a longer one, how many from its beginning
_TAIL: Final = 4  # and from its end
_LEFT: Final = 100  # a line is shown from its beginning when the caret is within so many characters
_BEFORE: Final = 40  # otherwise from so many characters before it


def excerpt(lines: Sequence[str], first: int, last: int, span: Span | None = None, *, hint: str = "") -> str:
    """Draw the lines `first` to `last` (1-based) marked with `>>>`, with up to two lines around them.

    Below the line on which `span` begins, carets show the span, as far as it goes on that line. Control characters
    are shown as escapes and long lines are cut, because the text is untrusted and goes to a terminal. The hint comes
    last. Empty when the range is not in the file.
    """
    if not 1 <= first <= len(lines):
        return ""
    last = min(max(first, last), len(lines))
    around = 2 if first == last else 1
    numbers = range(max(first - around, 1), min(last + around, len(lines)) + 1)
    wide = max(3, len(str(numbers[-1])))
    rows = [_RULE]
    before = numbers[0] - 1
    for number in _chosen(numbers, span.line if span else first):
        if number != before + 1:
            rows.append(f" {'':{wide}} | …")
        before = number
        at = span.column - 1 if span and span.line == number else -1
        text, pad = _window(lines[number - 1].rstrip("\r"), at)
        mark = ">>>" if first <= number <= last else "   "
        rows.append(f" {number:{wide}} | {mark} {text}".rstrip())
        if span and at >= 0:
            end = span.end_column - 1 if span.end_line == number else len(lines[number - 1])
            covered = lines[number - 1][at : min(end, at + _LEFT)].rstrip()
            rows.append(f" {'':{wide}} |     {pad}{'^' * max(_width(printable(covered)), 1)}")
    return "\n".join([*rows, _RULE, *([f"hint: {hint}"] if hint else [])])


def _chosen(numbers: range, marked: int) -> Iterator[int]:
    for at, number in enumerate(numbers):
        if len(numbers) <= _MARKED_LINES or at < _HEAD or at >= len(numbers) - _TAIL or abs(number - marked) <= 2:
            yield number


def _window(line: str, at: int) -> tuple[str, str]:
    """Return what is shown of a line, and the white space that leads to character `at` of it."""
    if at <= _LEFT:
        pad = printable(line[: max(at, 0)])
        return printable(line), _blank(pad)
    return "…" + printable(line[at - _BEFORE :]), " " + _blank(printable(line[at - _BEFORE : at]))


def _blank(text: str) -> str:
    return "".join("\t" if char == "\t" else " " * _width(char) for char in text)


def _width(text: str) -> int:
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
