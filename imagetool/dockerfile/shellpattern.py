"""Shell patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, without bracket expressions.

A newline is matched by neither wildcard.

Source: Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

from imagetool import limits
from imagetool.dockerfile.wildcard import ANY, NOT_NEWLINE, Automaton, Token, literal, many, one
from imagetool.dockerfile.wording import quoted
from imagetool.errors import DockerfileError


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """Remove the shortest or longest prefix of `value` that matches."""
    automaton = Automaton.of(_tokens(pattern))
    end = automaton.longest(value) if longest else automaton.shortest(value)
    return value[end or 0 :]


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """Remove the shortest or longest suffix of `value` that matches."""
    automaton = Automaton.of(_tokens(pattern)[::-1])
    backwards = value[::-1]
    end = automaton.longest(backwards) if longest else automaton.shortest(backwards)
    return backwards[end or 0 :][::-1]


def replace(value: str, pattern: str, replacement: str, *, every: bool) -> str:
    """Replace the first or every match, each the longest at the leftmost place, by the literal `replacement`."""
    tokens = _tokens(pattern)
    forwards, backwards = Automaton.of(tokens), Automaton.of(tokens[::-1])
    floating = Automaton.of([many(ANY), *tokens])
    parts: list[str] = []
    size = copied = at = 0
    # A match that ends first also begins leftmost, when it is followed back as far as it goes.
    while at <= len(value) and (first_end := next(floating.ends(value, at), None)) is not None:
        start = first_end - (backwards.longest(value[at:first_end][::-1]) or 0)
        end = forwards.longest(value, start) or start
        at = max(end, start + 1)
        if parts and start == end == copied:
            continue  # an empty match right after another match is part of it
        parts += [value[copied:start], replacement]
        size += start - copied + len(replacement)
        if size > limits.DOCKERFILE_BYTES:
            raise DockerfileError(f"a replacement in ${{…}} grows past {limits.named('DOCKERFILE_BYTES')}")
        copied = end
        if not every:
            break
    return "".join(parts) + value[copied:]


def _tokens(pattern: str) -> list[Token]:
    if len(pattern) > limits.DOCKERFILE_PATTERN:
        raise DockerfileError(f"the pattern {quoted(pattern)} is longer than {limits.named('DOCKERFILE_PATTERN')}")
    tokens: list[Token] = []
    characters = iter(pattern)
    for char in characters:
        if char == "*":
            tokens.append(many(NOT_NEWLINE))
        elif char == "?":
            tokens.append(one(NOT_NEWLINE))
        elif char == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "?", "\\", "}", "/"):
                raise DockerfileError(f"invalid escape {quoted(char + escaped)} in the pattern {quoted(pattern)}")
            tokens.append(literal(escaped))
        else:
            tokens.append(literal(char))
    return tokens
