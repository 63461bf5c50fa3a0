"""Here-documents: which words of a line begin one, and what RUN makes of them.

Source: Dockerfile reference, "Here-Documents".
"""

from __future__ import annotations

import re
from typing import Final, assert_never

from imagetool.dockerfile.instructions import ExecForm, Heredoc, Run, ShellForm
from imagetool.dockerfile.statement import json_form, split_statement
from imagetool.dockerfile.words import raw_words, unquoted_words
from imagetool.errors import DockerfileError
from imagetool.values import dataclass

_MARKER: Final = r"([0-9]*)<<(-?)[\t\n\f\r ]*+([^<]*)"
_WITH_HEREDOCS: Final = frozenset({"RUN", "COPY", "ADD"})
_FD_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class ExecutableHeredoc:
    """A script with its own interpreter line: a file of that name to be made executable and run."""

    name: str
    content: str


def takes_heredocs(line: str, escape: str) -> bool:
    """Say whether `<<` means something in a line: in RUN, COPY and ADD, not in JSON form, also after ONBUILD."""
    keyword, _, arguments = split_statement(line, escape)
    if keyword == "ONBUILD":
        keyword, _, arguments = split_statement(arguments, escape)
    return keyword in _WITH_HEREDOCS and json_form(arguments) is None


def markers(line: str) -> tuple[Heredoc, ...]:
    """Return the heredocs that a logical line announces, in order, without content.

    Raises:
        DockerfileError: without a place: the line has no words, because a quote or a brace is not closed.
    """
    found = (marker(word) for word in raw_words(line) if "<<" in word)
    return tuple(heredoc for heredoc in found if heredoc)


def marker(word: str) -> Heredoc | None:
    """Read one shell word, quotes included, as `[fd]<<[-]MARKER`; None when it is not one."""
    match = re.fullmatch(_MARKER, word)
    if not match or len(match[1]) > _FD_DIGITS:
        return None
    try:
        names = unquoted_words(match[3])
    except DockerfileError:
        return None  # half of a quoted word
    if len(names) != 1:
        return None
    expand = _quotes(names[0]) == _quotes(match[3])
    return Heredoc(name=names[0], expand=expand, chomp=bool(match[2]), fd=int(match[1] or "0"))


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


def script_of(run: Run) -> ShellForm | ExecForm | ExecutableHeredoc:
    """Return what a RUN executes once its heredocs are put in.

    `RUN <<X` alone makes the body the command line, or an executable file when it begins with `#!`. In any other line
    the shell gets the line, the bodies and their terminators, and reads the heredocs itself.
    """
    match run.command:
        case ExecForm():
            return run.command
        case ShellForm(line=line):
            if not run.heredocs:
                return run.command
            first = run.heredocs[0]
            if len(run.heredocs) > 1 or not marker(line):
                return ShellForm(line + "".join(f"\n{doc.content}{doc.name}" for doc in run.heredocs))
            return ExecutableHeredoc(first.name, first.body) if first.body.startswith("#!") else ShellForm(first.body)
        case _:
            assert_never(run.command)


def with_bodies(line: str, heredocs: tuple[Heredoc, ...]) -> str:
    """Return a logical line followed by its heredocs, text that parses to the same again."""
    return line + "".join(f"\n{doc.content}{doc.name}" for doc in heredocs)
