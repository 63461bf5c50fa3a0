"""The lines that builds show, as text: for the live display and for builds that are answered from a record."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


def printable(text: str) -> str:
    """Return untrusted text without anything a terminal would act on."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\t\n" else f"\\x{ord(char):02x}" for char in text)


def step_line(number: int, total: int, name: str, stage: str) -> str:
    """Return the line for a step that begins."""
    return f"STEP {number}/{total}: [{stage}] {printable(name.splitlines()[0][:200])}"


def cached_line(layer: str) -> str:
    """Return the line for a step that was in the cache."""
    return f"--> Using cache {layer}".rstrip()


def note_line(text: str, level: str) -> str:
    """Return a note's line."""
    return f"warning: {printable(text)}" if level == "warning" else printable(text)


def check_line(rule: str, text: str, line: int) -> str:
    """Return the line for what the lint found."""
    return f" - {rule}: {printable(text)} (line {line})"


def answered_lines(shown: Iterable[list[Any]]) -> Iterator[str]:
    """Yield the lines of a build that is answered from a record; `shown` is as of `Answer`."""
    for kind, *fields in shown:
        if kind == "step":
            yield step_line(*fields)
        elif kind == "note":
            yield note_line(*fields)
        elif kind == "check":
            rule, text, _, line = fields
            yield check_line(rule, text, line)
        elif kind == "done" and fields[1]:
            yield cached_line(fields[1])
