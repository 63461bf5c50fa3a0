"""Errors, amounts and tables as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from imagetool.cli.lines import printable
from imagetool.errors import DockerfileError, ImagetoolError


def report(error: ImagetoolError, stream: TextIO) -> None:
    """Write an error: what, where it stands in the Dockerfile, and what callers knew."""
    stream.write(f"imagetool: {printable(str(error))}\n")
    if isinstance(error, DockerfileError) and error.excerpt:
        stream.write(f"{printable(error.excerpt)}\n")
    for note in getattr(error, "__notes__", ()):
        stream.write(f"{printable(note)}\n")


def counted(count: int, what: str, many: str = "") -> str:
    """Return a number of things: `1 step`, `2 steps`; `many` for a plural that is not made by an s."""
    return f"{count} {what if count == 1 else many or what + 's'}"


def amount_of(size: int) -> str:
    """Return a number of bytes for people."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def duration_of(seconds: float) -> str:
    """Return a time for people, to the second."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02}m"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns, the first row being the heading."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
