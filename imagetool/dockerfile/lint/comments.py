"""The comments above an instruction."""

from __future__ import annotations

from collections.abc import Iterator

from imagetool.dockerfile.lint.options import CheckOptions, comment_options
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.words import SPACE
from imagetool.errors import DockerfileError


def above(source: Source) -> Iterator[tuple[int, str]]:
    """Yield the number and text of the comments between an instruction and the one before it, nearest first.

    Blank lines do not end the block; another instruction does, and so does the body of a heredoc.
    """
    for number in range(source.first_line - 1, 0, -1):
        text = source.lines[number - 1].strip(SPACE + "\ufeff")
        if text.startswith("#"):
            yield number, text
        elif text:
            return


def instruction_options(source: Source, directives: int) -> CheckOptions:
    """Return what `# check=` comments above an instruction say, the first `directives` lines of the file left out.

    Raises DockerfileError at the comment.
    """
    for number, text in above(source):
        if number <= directives:
            break
        try:
            found = comment_options(text)
        except DockerfileError as error:
            raise Source(source.file, number, number, lines=source.lines).placed(error) from None
        if found:
            return found
    return CheckOptions()


def description(source: Source) -> tuple[int, str] | None:
    """Return the comment line right above an instruction without its `#`, None when there is none or it is empty."""
    number = source.first_line - 1
    text = source.lines[number - 1].strip(SPACE) if number else ""
    if not text.startswith("#") or comment_options(text):
        return None
    text = text[1:].strip(SPACE)
    return (number, text) if text else None
