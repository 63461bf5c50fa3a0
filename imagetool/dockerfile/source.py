"""The place in a Dockerfile that something comes from, and how that place is shown to a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from imagetool.errors import DockerfileError

_RULE: Final = "-" * 20
_MARKED_LINES: Final = 20  # of one long instruction, how many are shown
_SHOWN_CHARACTERS: Final = 160  # of one line


@dataclass(frozen=True, slots=True)
class Source:
    """Where an instruction stands: a file and a range of its lines.

    Attributes:
        file: the Dockerfile's name as the user gave it.
        first_line, last_line: 1-based and inclusive, heredoc bodies counted; 0 when there is no place.
        text: the logical line: continuations joined, comments inside it dropped, ends trimmed.
        lines: all physical lines of the file without their newline, one tuple shared by all its instructions.
    """

    file: str = "Dockerfile"
    first_line: int = 0
    last_line: int = 0
    text: str = ""
    lines: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def original(self) -> str:
        """The physical lines as they are written in the file, joined by newlines."""
        return "\n".join(self.lines[max(self.first_line - 1, 0) : self.last_line])

    def error(self, message: str) -> DockerfileError:
        """Make the error that says `message` about this place."""
        shown = excerpt(self.lines, self.first_line, self.last_line)
        return DockerfileError(message, file=self.file, line=self.first_line, excerpt=shown)

    def placed(self, error: DockerfileError) -> DockerfileError:
        """Give `error` this place, unless it already knows its own."""
        return error if error.line else self.error(error.message)


#: The source of an instruction that no file holds.
NOWHERE: Final = Source()


def excerpt(lines: Sequence[str], first: int, last: int) -> str:
    """Draw the lines `first` to `last` (1-based) marked with `>>>`, with up to two lines around them.

    Control characters are shown as escapes and long lines are cut, because the text is untrusted and goes to a
    terminal. Empty when the range is not in the file.
    """
    if not 1 <= first <= len(lines):
        return ""
    last = min(max(first, last), len(lines))
    around = 2 if first == last else 1
    numbers = range(max(first - around, 1), min(last + around, len(lines)) + 1)
    drawn = (f" {n:3} | {'>>>' if first <= n <= last else '   '} {printable(lines[n - 1])}" for n in numbers)
    return "\n".join([_RULE, *_shortened(drawn, len(numbers)), _RULE])


def _shortened(rows: Iterable[str], count: int) -> Iterator[str]:
    for number, row in enumerate(rows):
        if count <= _MARKED_LINES or number < _MARKED_LINES - 4 or number >= count - 4:
            yield row.rstrip()
        elif number == _MARKED_LINES - 4:
            yield "     | …"


def printable(text: str) -> str:
    """Return untrusted text cut to a line's length, control characters as escapes."""
    cut = text[:_SHOWN_CHARACTERS].rstrip("\r")
    shown = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in cut)
    return shown + ("…" if len(text) > _SHOWN_CHARACTERS else "")


def quoted(text: str) -> str:
    """Return untrusted text short, in quotes and free of control characters, for use inside a message."""
    return repr(text if len(text) <= 80 else text[:77] + "…")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ` (did you mean …?)` for the option closest to `word`, or nothing when none is close."""
    from difflib import get_close_matches  # only an error needs it

    close = get_close_matches(word[:80], list(options), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
