"""What the lint finds, and the rules that it finds by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from imagetool.dockerfile.lint.subject import Subject
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.span import Span
from imagetool.values import dataclass, field

Level = Literal["note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Complaint:
    """What one rule has to say about one instruction: the text it is about, and the message."""

    source: Source
    message: str
    about: str = ""
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Attributes:
        name: BuildKit's name, which `# check=skip=` takes.
        summary: one sentence on what is wrong.
        check: yields what it finds, in any order.
        experimental: only checked when the file or the caller asks for it.
    """

    name: str
    summary: str
    check: Callable[[Subject], Iterator[Complaint]] = field(repr=False, compare=False)
    experimental: bool = False

    @property
    def anchor(self) -> str:
        """Where the rule is explained, relative to the project's root."""
        return f"docs/reference/lint.md#{self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, with its place.

    Attributes:
        detail: what is wrong here, in one line.
        level: `error` where the file asks for `error=true`, `note` for experimental rules.
        source: the instruction it was found in.
    """

    rule: Rule
    span: Span
    detail: str
    level: Level = "warning"
    source: Source = field(default=Source(), repr=False)

    @property
    def file(self) -> str:
        """The Dockerfile's name as the user gave it."""
        return self.source.file

    @property
    def line(self) -> int:
        """The line it begins on."""
        return self.span.line
