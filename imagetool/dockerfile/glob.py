"""Wildcards of COPY and ADD sources: Go's filepath.Match.

`*` and `?` stay within one path element, `[a-z]` and `[^a-z]` are sets, a backslash escapes.

Source: https://pkg.go.dev/path/filepath#Match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from imagetool.dockerfile.wildcard import ANY, DIRECTORIES, NOT_SLASH, NOTHING, Token, literal, many, matcher, one
from imagetool.dockerfile.wording import quoted
from imagetool.errors import DockerfileError


def has_wildcard(path: str) -> bool:
    """Say whether `path` holds an unescaped `*`, `?` or `[`."""
    return re.search(r"[*?\[]", re.sub(r"\\[\s\S]", "", path)) is not None


def match(pattern: str, path: str) -> bool:
    """Say whether `pattern` matches all of `path`, which is slash-separated.

    Raises:
        DockerfileError: without a place: the pattern is malformed.
    """
    return _compiled(pattern)(path)


@lru_cache(maxsize=128)
def _compiled(pattern: str) -> Callable[[str], bool]:
    return matcher(tokens(pattern))


def tokens(pattern: str, *, deep: bool = False) -> list[Token]:
    """Read a pattern; `deep` gives `**` the meaning it has in ignore files. Raises DockerfileError when malformed."""
    found: list[Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if deep and char == "*" and pattern.startswith("*", at):
            at += 2 if pattern.startswith("/", at + 1) else 1
            found.append(DIRECTORIES if at < len(pattern) else many(ANY))
        elif char == "*":
            if not found or found[-1] != many(NOT_SLASH):
                found.append(many(NOT_SLASH))
        elif char == "?":
            found.append(one(NOT_SLASH))
        elif char == "[":
            token, at = _character_set(pattern, at)
            found.append(token)
        elif char == "\\":
            if at == len(pattern):
                raise malformed(pattern, "a backslash at the end")
            found.append(literal(pattern[at]))
            at += 1
        else:
            found.append(literal(char))
    return found


def _character_set(pattern: str, at: int) -> tuple[Token, int]:
    """Read a `[…]` set from after its bracket; return it and the position after the closing one."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges = ""
    first = at
    while at == first or not pattern.startswith("]", at):
        low, at = _set_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _set_character(pattern, at + 1)
        if low <= high:
            ranges += f"{re.escape(low)}-{re.escape(high)}"
    if not ranges:
        return one(ANY if negated else NOTHING), at + 1
    return one(f"[{'^' if negated else ''}{ranges}]"), at + 1


def _set_character(pattern: str, at: int) -> tuple[str, int]:
    escaped = pattern.startswith("\\", at)
    char = pattern[at + escaped : at + escaped + 1]
    if not char or (char in "-]" and not escaped):
        raise malformed(pattern, "a [set] that is empty or not closed")
    if at + escaped + 1 == len(pattern):
        raise malformed(pattern, "a [set] that is not closed")
    return char, at + escaped + 1


def malformed(pattern: str, why: str) -> DockerfileError:
    """Make the error about a malformed pattern."""
    return DockerfileError(f"malformed pattern {quoted(pattern)}: {why}")
