"""One logical line taken apart: keyword, flags, arguments, and the three ways in which arguments are split.

Source: Dockerfile reference; BuildKit frontend/dockerfile/parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Final, Never

from imagetool.dockerfile.words import SPACE
from imagetool.errors import DockerfileError
from imagetool.values import dataclass

#: Separates the keyword from the arguments, and those of FROM, EXPOSE, COPY, ADD and VOLUME. Not all white space is in.
_SEPARATOR: Final = re.compile(r"[\t\v\f\r ]+")
_STRING_LIST: Final = re.compile(r'\[[ \t]*+(?:"[^"\\\x00-\x1f]*+"[ \t]*+(?:,[ \t]*+"[^"\\\x00-\x1f]*+"[ \t]*+)*+)?\]')
_STRING: Final = re.compile(r'"([^"]*)"')
_SURROGATE: Final = "[\ud800-\udfff]"


@dataclass(frozen=True, slots=True)
class _Grammar:
    """The expressions that depend on the escape character. Compiled when first needed: hardly a file needs both."""

    pair: re.Pattern[str]  # an escape and its character
    word: re.Pattern[str]  # a word
    flag: re.Pattern[str]  # the same, with escapes in single quotes
    piece: re.Pattern[str]  # an escape or a quoted part of a flag


@cache
def _grammar(escape: str) -> _Grammar:
    e = re.escape(escape)
    pair = rf"{e}[\s\S]"
    double = rf'"((?:{pair}|[^"{e}])*)"?'
    single = rf"'((?:{pair}|[^'{e}])*)'?"
    plain = rf"[^{SPACE}'\"{e}]"
    # A quote that is not closed reaches to the end.
    return _Grammar(
        re.compile(pair),
        re.compile(rf"(?:{pair}|'[^']*'?|{double}|{plain})+"),
        re.compile(rf"(?:{pair}|{single}|{double}|{plain})+"),
        re.compile(rf"{pair}|{single}|{double}"),
    )


def split_statement(line: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """Take a logical line apart; never fails.

    Returns:
        The keyword in upper case, not checked; the leading `--name[=value]` words without their quotes and escapes;
        everything after them, trimmed, otherwise as written.
    """
    keyword, *rest = _SEPARATOR.split(line.strip(SPACE), maxsplit=1)
    flags, arguments = _flags(rest[0], escape) if rest else ((), "")
    return keyword.upper(), flags, arguments.strip(SPACE)


def _flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Read leading flags; a lone `--` ends them and is dropped. Inside them even single quotes honour escapes."""
    flags: list[str] = []
    grammar = _grammar(escape)
    at = _skip_space(text, 0)
    for start, end in flag_spans(text, 0, escape):
        flag = _bare(text[start:end], grammar)
        at = _skip_space(text, end)
        if flag != "--":
            flags.append(flag)
    # An escape that nothing follows belonged to the last flag.
    return tuple(flags), "" if flags and text[at:] == escape else text[at:]


def flag_spans(text: str, at: int, escape: str) -> Iterator[tuple[int, int]]:
    """Yield where each flag that begins at or after `at` stands, the lone `--` that ends them included."""
    grammar = _grammar(escape)
    at = _skip_space(text, at)
    while text.startswith("--", at):
        word = grammar.flag.match(text, at)
        assert word is not None  # at least the two dashes
        yield at, word.end()
        if _bare(word[0], grammar) == "--":
            return
        at = _skip_space(text, word.end())


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in SPACE:
        at += 1
    return at


def _bare(flag: str, grammar: _Grammar) -> str:
    """Take quotes and escapes away."""

    def inner(piece: re.Match[str]) -> str:
        if piece.lastindex is None:
            return piece[0][1]
        return grammar.pair.sub(lambda pair: pair[0][1], piece[piece.lastindex])

    return grammar.piece.sub(inner, flag)


def split_words(text: str, escape: str) -> list[str]:
    """Split at white space outside quotes, as ENV, LABEL and ARG do; quotes and escapes stay for the expansion.

    A quote that is not closed reaches to the end; a trailing escape character is dropped.
    """
    return [word[0] for word in _grammar(escape).word.finditer(text)]


def word_spans(text: str, at: int, escape: str) -> Iterator[tuple[int, int]]:
    """Yield where each word of `split_words` stands, from `at` on."""
    return (word.span() for word in _grammar(escape).word.finditer(text, at))


def split_fields(text: str) -> tuple[str, ...]:
    """Split at white space and nothing else: FROM, EXPOSE, COPY, ADD and VOLUME know no quotes."""
    return tuple(_SEPARATOR.split(text)) if text else ()


def split_first(text: str) -> tuple[str, str | None]:
    """Split the first field off; the rest is as written, None when there is none."""
    first, *rest = _SEPARATOR.split(text, maxsplit=1)
    return first, rest[0] if rest else None


def json_form(arguments: str) -> tuple[str, ...] | None:
    """Read `["a", "b"]`; None when the text is no JSON array, which makes it the shell form.

    Raises:
        DockerfileError: without a place: an array that holds something other than strings.
    """
    if not arguments.startswith("["):
        return None
    if _STRING_LIST.fullmatch(arguments):
        return tuple(_STRING.findall(arguments))
    try:
        array = json.loads(arguments, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(array, list) or not all(isinstance(item, str) for item in array):
        raise DockerfileError("arrays in JSON form must hold only strings in double quotes", about=arguments)
    return tuple(re.sub(_SURROGATE, "\ufffd", item) for item in array)


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")
