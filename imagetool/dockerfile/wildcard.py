"""Wildcard patterns as automata: no pattern, however hostile, takes more than linear time in the text.

Shell patterns (`${v#p}`), COPY sources and .dockerignore rules differ in syntax only; each is read into the same
tokens. A backtracking regular expression runs the common ones, which have few wildcards; the others run on a
non-deterministic automaton whose states are the bits of an integer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from imagetool.values import dataclass, field

ANY: Final = r"[\s\S]"
NOT_SLASH: Final = "[^/]"
NOT_NEWLINE: Final = r"[^\n]"
NOTHING: Final = r"[^\s\S]"

#: Up to so many variable-length tokens a regular expression is used: its worst case is then quadratic.
_BACKTRACKED: Final = 2


#: How often a token matches a character of its set, and the set, written as a regular expression for one character.
#: `directories` matches nothing or anything that ends in a slash, as `**/` does; its set says nothing.
Token = tuple[Literal["one", "many", "directories"], str]
DIRECTORIES: Final[Token] = ("directories", ANY)


def one(chars: str) -> Token:
    """Return the token for one character of a set."""
    return "one", chars


def many(chars: str) -> Token:
    """Return the token for any number of characters of a set."""
    return "many", chars


def literal(char: str) -> Token:
    """Return the token that matches just `char`."""
    return "one", re.escape(char)


def matcher(tokens: Sequence[Token]) -> Callable[[str], bool]:
    """Return the test whether a whole text matches `tokens`."""
    if sum(kind != "one" for kind, _ in tokens) > _BACKTRACKED:
        automaton = Automaton.of(tokens)
        return lambda text: automaton.longest(text) == len(text)
    fullmatch = re.compile("".join(map(_expression, tokens))).fullmatch
    return lambda text: fullmatch(text) is not None


def _expression(token: Token) -> str:
    kind, chars = token
    match kind:
        case "one":
            return chars
        case "many":
            return f"{chars}*"
        case "directories":
            return f"(?:{chars}*/)?"


@dataclass(frozen=True, slots=True)
class Automaton:
    """States are bits: bit i is set when the first i steps are done. One step consumes one character or none.

    Attributes:
        steps: per step its character set, or None for a step that may be skipped or walked without a character.
        loops: per state the set of characters that leave it set, or None.
        free: the bits of the states whose next step is None.
    """

    steps: tuple[str | None, ...]
    loops: tuple[str | None, ...]
    free: int
    _masks: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tokens: Sequence[Token]) -> Automaton:
        """Build the automaton that accepts what `tokens` match; of two `many` in a row one has the larger set."""
        steps: list[str | None] = []
        loops: dict[int, str] = {}
        before = ""
        for kind, chars in tokens:
            if kind == "one":
                steps.append(chars)
            elif kind == "many":
                loops[len(steps)] = ANY if before == "many" and chars != loops[len(steps)] else chars
            elif before != kind:
                # One skips both steps, or walks into the loop and leaves it by a slash. Two in a row are one.
                loops[len(steps) + 1] = chars
                steps += [None, "/"]
            before = kind
        free = sum(1 << at for at, chars in enumerate(steps) if chars is None)
        return cls(tuple(steps), tuple(loops.get(at) for at in range(len(steps) + 1)), free)

    def ends(self, text: str, start: int = 0) -> Iterator[int]:
        """Yield, ascending, every position where a match that begins at `start` can end."""
        accept = 1 << len(self.steps)
        states = self._walked(1)
        if states & accept:
            yield start
        for at in range(start, len(text)):
            step, loop = self._mask(text[at])
            states = self._walked((states & step) << 1 | states & loop)
            if not states:
                return
            if states & accept:
                yield at + 1

    def shortest(self, text: str) -> int | None:
        """Return the length of the shortest prefix of `text` that matches, None when none does."""
        return next(self.ends(text), None)

    def longest(self, text: str, start: int = 0) -> int | None:
        """Return where the longest match that begins at `start` ends, None when there is none."""
        end = None
        for end in self.ends(text, start):  # noqa: B007 the last one is the answer
            pass
        return end

    def _walked(self, states: int) -> int:
        free = states & self.free
        while free:
            reached = (free << 1 | free << 2) & ~states
            states |= reached
            free = reached & self.free
        return states

    def _mask(self, char: str) -> tuple[int, int]:
        known = self._masks.get(char)
        if known is None:
            known = self._masks[char] = (_bits(self.steps, char), _bits(self.loops, char))
        return known


def _bits(sets: Sequence[str | None], char: str) -> int:
    return sum(1 << at for at, chars in enumerate(sets) if chars is not None and re.fullmatch(chars, char))
