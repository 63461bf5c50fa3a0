"""The place in a Dockerfile that something comes from, down to the column."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from imagetool.dockerfile.span import Span
from imagetool.errors import DockerfileError
from imagetool.values import dataclass, field

if TYPE_CHECKING:
    from imagetool.dockerfile.tokens import Token

_KEYWORD: Final = re.compile(r"[^\t\v\f\r ]+")  # what BuildKit separates it by is not all white space


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

        if (at := find_token(self.text, about, self.escape)) >= 0 or (at := self.text.find(about)) >= 0:
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

    def tokens(self) -> tuple[Token, ...]:
        """Take the instruction apart, in order; heredoc bodies are not looked at."""
        from imagetool.dockerfile.tokens import tokens

        return tokens(self.text, self.escape, self.span)

    def error(self, message: str, *, about: str = "", hint: str = "") -> DockerfileError:
        """Make the error that says `message` about this place, and about a text in it."""
        from imagetool.dockerfile.excerpt import excerpt

        span = self.find(about)
        if span is None and self.first_line:
            span = next((token.span for token in self.tokens()), None)
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
