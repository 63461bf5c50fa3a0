"""The place in a Dockerfile that something comes from, down to the column."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from imagetool.errors import DockerfileError
from imagetool.values import dataclass, field

_KEYWORD: Final = re.compile(r"[^\t\v\f\r ]+")  # what BuildKit separates it by is not all white space


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of text: 1-based lines and columns, columns in characters, the end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where an instruction stands: a file and a range of its lines.

    Attributes:
        file: the Dockerfile's name as the user gave it.
        first_line, last_line: 1-based and inclusive, heredoc bodies counted; 0 when there is no place.
        text: the logical line: continuations joined, comments inside it dropped, ends trimmed.
        lines: all physical lines of the file without their newline, one tuple shared by all its instructions.
        escape: the file's escape character.
        parts: the pieces that were joined: where in `text` each begins, its line, and the column (0-based) there.
    """

    file: str = "Dockerfile"
    first_line: int = 0
    last_line: int = 0
    text: str = ""
    lines: tuple[str, ...] = field(default=(), repr=False, compare=False)
    escape: str = field(default="\\", repr=False, compare=False)
    parts: tuple[tuple[int, int, int], ...] = field(default=(), repr=False, compare=False)

    @property
    def original(self) -> str:
        """The physical lines as they are written in the file, joined by newlines."""
        return "\n".join(self.lines[max(self.first_line - 1, 0) : self.last_line])

    def span(self, start: int, end: int) -> Span:
        """Return where the characters `start` to `end` of `text` stand in the file."""
        line, column = self._position(start)
        end_line, end_column = self._position(max(end - 1, start))
        return Span(line, column, end_line, end_column + (end > start))

    def _position(self, at: int) -> tuple[int, int]:
        parts = self.parts or ((0, self.first_line, 0),)
        offset, line, column = parts[max(bisect_right(parts, at, key=lambda part: part[0]) - 1, 0)]
        return line, column + at - offset + 1

    def find(self, about: str) -> Span | None:
        """Return where `about` stands: a whole token first, a part of one, then anywhere, heredoc bodies included."""
        if not about or not self.first_line:
            return None
        from imagetool.dockerfile.tokens import find_token  # only errors and the lint ask

        if (at := find_token(self, about)) >= 0 or (at := self.text.find(about)) >= 0:
            return self.span(at, at + len(about))
        for number in range(self.first_line, self.last_line + 1):
            if (at := self.lines[number - 1].find(about)) >= 0:
                return Span(number, at + 1, number, at + 1 + len(about))
        return None

    @property
    def keyword(self) -> str:
        """The instruction's keyword as it is written."""
        found = _KEYWORD.match(self.text)
        return found[0] if found else ""

    def error(self, message: str, *, about: str = "", hint: str = "") -> DockerfileError:
        """Make the error that says `message` about this place, and about a text in it."""
        from imagetool.dockerfile.excerpt import excerpt
        from imagetool.dockerfile.tokens import tokens

        span = self.find(about)
        if span is None and self.first_line:
            span = next((token.span for token in tokens(self)), None)
        return DockerfileError(
            message,
            file=self.file,
            line=self.first_line,
            column=span.column if span else 0,
            excerpt=excerpt(self.lines, self.first_line, self.last_line, span, hint=hint),
            about=about,
            hint=hint,
        )

    def placed(self, error: DockerfileError) -> DockerfileError:
        """Give `error` this place, unless it already knows its own."""
        return error if error.line else self.error(error.message, about=error.about, hint=error.hint)


#: The source of an instruction that no file holds.
NOWHERE: Final = Source()

_SHOWN_CHARACTERS: Final = 160  # of one line


def printable(text: str, shown: int = _SHOWN_CHARACTERS) -> str:
    """Return untrusted text cut to a line's length, control characters as escapes."""
    cut = text[:shown].rstrip("\r")
    escaped = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in cut)
    return escaped + ("…" if len(text) > shown else "")


def quoted(text: str) -> str:
    """Return untrusted text short, in quotes and free of control characters, for use inside a message."""
    return repr(text if len(text) <= 80 else text[:77] + "…")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ` (did you mean …?)` for the option closest to `word`, or nothing when none is close."""
    from difflib import get_close_matches  # only an error needs it

    close = get_close_matches(word[:80], list(options), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
