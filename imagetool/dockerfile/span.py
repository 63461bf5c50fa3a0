"""A stretch of a Dockerfile's text."""

from __future__ import annotations

from imagetool.values import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of text: 1-based lines and columns, columns in characters, the end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int
