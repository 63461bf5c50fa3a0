"""The tokens of an instruction, each with its place in the file: what errors and the lint point at.

The parser itself works on plain text, which is faster; it names the text that is wrong, and the token that reads so
is found here. Of two tokens that read the same, what is wrong with one is wrong with both, so the first is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal

from imagetool.dockerfile.span import Span
from imagetool.dockerfile.statement import flag_spans, json_form, word_spans
from imagetool.dockerfile.words import SPACE
from imagetool.errors import DockerfileError
from imagetool.values import dataclass

_KEYWORD: Final = re.compile(r"[^\t\v\f\r ]+")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_QUOTE_AWARE: Final = frozenset({"ENV", "LABEL", "ARG", "RUN", "CMD", "ENTRYPOINT"})


Kind = Literal["keyword", "flag", "word", "string"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it is written: an instruction's keyword, a flag, a word, or a string of a JSON array.

    `start` and `end` are offsets in the text of the source. The CMD of a HEALTHCHECK and the keyword after ONBUILD are
    keywords, too.
    """

    kind: Kind
    text: str
    start: int
    end: int
    span: Span


def tokens(text: str, escape: str, place: Callable[[int, int], Span]) -> tuple[Token, ...]:
    """Take the text of an instruction apart, in order; `place` tells where a piece of it stands in the file."""
    return tuple(
        Token(kind, text[start:end], start, end, place(start, end)) for kind, start, end in _tokens(text, 0, escape)
    )


def find_token(text: str, about: str, escape: str) -> int:
    """Return where the first token begins that reads `about`, else where the first that holds it does so; or -1."""
    inside = -1
    for kind, start, end in _tokens(text, 0, escape):
        if end - start == len(about) and text.startswith(about, start):
            return start
        if inside < 0 and kind != "keyword" and (found := text.find(about, start, end)) >= 0:
            inside = found
    return inside


def _tokens(text: str, at: int, escape: str) -> Iterator[tuple[Kind, int, int]]:
    first = _KEYWORD.search(text, at)
    if not first:
        return
    keyword = first[0].upper()
    yield "keyword", first.start(), first.end()
    at = first.end()
    for start, end in flag_spans(text, at, escape):
        at = end
        yield "flag", start, end
    if keyword in ("ONBUILD", "HEALTHCHECK"):
        yield from _tokens(text, at, escape)
    elif _is_json(text[at:].strip(SPACE)):
        yield from (("string", match.start(), match.end()) for match in _STRING.finditer(text, at))
    elif keyword in _QUOTE_AWARE:
        yield from (("word", start, end) for start, end in word_spans(text, at, escape))
    else:
        yield from (("word", match.start(), match.end()) for match in _KEYWORD.finditer(text, at))


def _is_json(arguments: str) -> bool:
    try:
        return json_form(arguments) is not None
    except DockerfileError:
        return True  # an array, of things that it may not hold
