"""Physical lines to logical lines: directives, comments, continuations and heredoc bodies.

Source: Dockerfile reference, "Format" and "Parser directives"; BuildKit frontend/dockerfile/parser.
"""

from __future__ import annotations

import re
from typing import Final

from imagetool import limits
from imagetool.dockerfile.heredoc import markers, takes_heredocs
from imagetool.dockerfile.instructions import Heredoc
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.wording import quoted
from imagetool.dockerfile.words import SPACE
from imagetool.errors import DockerfileError
from imagetool.values import dataclass, field, replace

_DIRECTIVE: Final = rf"#[{SPACE}]*([a-zA-Z][a-zA-Z0-9]*)[\t\f ]*=[\t\f ]*(\S.*)"
_CONTINUED: Final = {"\\": r"(?<!\\)\\[ \t]*\Z", "`": r"(?<!`)`[ \t]*\Z"}


@dataclass(frozen=True, slots=True)
class Directives:
    """The parser directives at the top of the file; None where one is not given.

    Attributes:
        syntax: the frontend image that the author asks for; recorded, never fetched.
        check: options of the lint, `skip=…;error=…`.
        escape: the escape and continuation character, a backslash or a backtick.
        last_line: of the lines that hold directives, 0 when none does.
    """

    syntax: str | None = None
    check: str | None = None
    escape: str = "\\"
    last_line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ParseWarning:
    """Something that is accepted but is probably not meant; `rule` is BuildKit's name for it where it has one."""

    rule: str
    message: str
    line: int


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction's text.

    Attributes:
        text: the physical lines joined; leading white space of the first is gone, that of the others is kept.
        first_line, last_line: 1-based, inclusive, heredoc bodies and terminators counted.
        text_last_line: the last line before the heredoc bodies.
        parts: where in `text` each joined piece begins, its line (1-based), and its column (0-based).
        heredocs: in the order of their markers.
    """

    text: str
    first_line: int
    last_line: int
    text_last_line: int
    parts: tuple[tuple[int, int, int], ...]
    heredocs: tuple[Heredoc, ...] = ()

    def source(self, file: str, physical: tuple[str, ...], escape: str) -> Source:
        """Return the place of the line in its file."""
        parts = self.parts
        if indent := len(self.text) - len(self.text.lstrip(SPACE)):  # a first line that only continues
            parts = tuple((max(at - indent, 0), line, column + max(indent - at, 0)) for at, line, column in parts)
        return Source(file, self.first_line, self.last_line, self.text.strip(SPACE), physical, escape, parts)


@dataclass(frozen=True, slots=True)
class Lines:
    """A whole Dockerfile in lines; `physical` lines lack their newline and may end in a carriage return."""

    directives: Directives
    physical: tuple[str, ...]
    logical: tuple[LogicalLine, ...]
    warnings: tuple[ParseWarning, ...]


def read_lines(text: bytes | str, *, file: str = "Dockerfile") -> Lines:
    """Split a Dockerfile into logical lines. Which instructions there are is not looked at.

    Bytes that are not UTF-8 become U+FFFD, with a warning: old files have comments in Latin-1.

    Raises:
        DockerfileError: too long a file or line, a NUL byte, a bad directive, a heredoc without its end.
    """
    physical, warnings = _physical(text, file)
    directives = _directives(physical, file, warnings)
    logical: list[LogicalLine] = []
    at = 0
    while at < len(physical):
        line = physical[at].strip(SPACE)
        if not line or line[0] == "#":
            at += 1
            continue
        joined = _joined(physical, at, directives.escape, warnings)
        if "<<" in joined.text:
            joined = _with_heredocs(joined, physical, directives.escape, file, warnings)
        logical.append(joined)
        at = joined.last_line
    return Lines(directives, physical, tuple(logical), tuple(warnings))


def _physical(text: bytes | str, file: str) -> tuple[tuple[str, ...], list[ParseWarning]]:
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if len(raw) > limits.DOCKERFILE_BYTES:
        raise DockerfileError(f"larger than {limits.named('DOCKERFILE_BYTES')}", file=file)
    raw_lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not raw_lines[-1]:
        raw_lines.pop()
    physical = tuple(line.decode("utf-8", "replace") for line in raw_lines)
    warnings: list[ParseWarning] = []
    for number, line in enumerate(raw_lines, start=1):
        if len(line) > limits.DOCKERFILE_LINE_BYTES:
            raise DockerfileError(f"line longer than {limits.named('DOCKERFILE_LINE_BYTES')}", file=file, line=number)
        if b"\0" in line:
            place = Source(file, number, number, lines=physical)
            raise place.error("NUL byte: a Dockerfile is UTF-8 text, save it as that (UTF-16 is not read)")
        if "\ufffd" in physical[number - 1] and "\ufffd".encode() not in line:
            warnings.append(ParseWarning("InvalidUtf8", "bytes that are not UTF-8 are read as U+FFFD", number))
    return physical, warnings


def _directives(physical: tuple[str, ...], file: str, warnings: list[ParseWarning]) -> Directives:
    """Read `# name=value` lines from the top until anything else comes, a comment or a blank line included.

    After a `#!` line, syntax and check are still found but escape is not, as in BuildKit.
    """
    found: dict[str, str] = {}
    last = 0
    shebang = bool(physical) and physical[0].startswith("#!")
    for number, line in enumerate(physical[shebang:], start=1 + shebang):
        match = re.fullmatch(_DIRECTIVE, line.strip(SPACE))
        name = match[1].lower() if match else ""
        if not match or name not in ("syntax", "escape", "check"):
            break
        place = Source(file, number, number, lines=physical)
        if name in found:
            raise place.error(f"only one {name} parser directive can be used", about=name)
        if name == "escape" and match[2] not in ("\\", "`"):
            raise place.error(
                f"invalid escape character {quoted(match[2])}: use a backslash or a backtick", about=match[2]
            )
        if name == "escape" and shebang:
            warnings.append(
                ParseWarning("IgnoredDirective", "an escape directive after a #! line has no effect", number)
            )
        found[name] = match[2]
        last = number
    escape = "\\" if shebang else found.get("escape", "\\")
    return Directives(syntax=found.get("syntax"), check=found.get("check"), escape=escape, last_line=last)


def _joined(physical: tuple[str, ...], at: int, escape: str, warnings: list[ParseWarning]) -> LogicalLine:
    """Join the lines that continue the one at index `at`. The end of the file ends a continuation, too."""
    first = at
    continued = re.compile(_CONTINUED[escape])
    blank = False
    part = physical[at].rstrip("\r").lstrip(SPACE)
    parts: list[str] = []
    places = [(0, at + 1, len(physical[at].rstrip("\r")) - len(part))]
    size = 0
    while end := continued.search(part):
        parts.append(part[: end.start()])
        size += end.start()
        part = ""
        at += 1
        while at < len(physical):
            part = physical[at].rstrip("\r")
            start = part.lstrip(SPACE)
            if start and start[0] != "#":
                break
            blank = blank or not start
            part = ""
            at += 1
        if at == len(physical):
            at -= 1
            break
        places.append((size, at + 1, 0))
    text = "".join([*parts, part])
    if blank:
        message = f"empty continuation line in: {quoted(text)}; a future release will refuse it"
        warnings.append(ParseWarning("NoEmptyContinuation", message, at + 1))
    return LogicalLine(text, first + 1, at + 1, at + 1, tuple(places))


def _with_heredocs(
    line: LogicalLine, physical: tuple[str, ...], escape: str, file: str, warnings: list[ParseWarning]
) -> LogicalLine:
    """Take the bodies of the heredocs that `line` announces from the lines that follow it."""
    place = line.source(file, physical, escape)
    try:
        wanted = takes_heredocs(line.text, escape)
    except DockerfileError as error:
        raise place.placed(error) from None
    if not wanted:
        return line
    try:
        announced = markers(line.text)
    except DockerfileError as error:
        # As in BuildKit, such a line has no heredocs: `<<` may stand in something that only the shell understands.
        warnings.append(ParseWarning("UnreadHeredoc", f"<< is not read as a heredoc: {error.message}", line.first_line))
        return line
    heredocs: list[Heredoc] = []
    at = line.last_line
    for heredoc in announced:
        end = _terminator(physical, at, heredoc)
        if end is None:
            message = f"unterminated heredoc: no line that is just {quoted(heredoc.name)}"
            raise place.error(message, about=heredoc.name, hint=_almost(physical, at, heredoc))
        heredocs.append(replace(heredoc, content="".join(f"{body}\n" for body in physical[at:end])))
        at = end + 1
    return replace(line, last_line=at, heredocs=tuple(heredocs))


def _almost(physical: tuple[str, ...], at: int, heredoc: Heredoc) -> str:
    """Return a hint when a line would end the heredoc but for its white space, or when none is meant."""
    for number in range(at, len(physical)):
        if physical[number].strip(SPACE) == heredoc.name:
            tabs = "" if heredoc.chomp else "; <<- allows tabs before it"
            return f"line {number + 1} has white space around {quoted(heredoc.name)}{tabs}"
    if not re.fullmatch(r"[\w.-]+", heredoc.name):
        return "where << is not meant to begin a heredoc, write it without white space around it, as in $((1<<3))"
    return ""


def _terminator(physical: tuple[str, ...], at: int, heredoc: Heredoc) -> int | None:
    for number in range(at, len(physical)):
        line = physical[number].rstrip("\r")
        if (line.lstrip("\t") if heredoc.chomp else line) == heredoc.name:
            return number
    return None
