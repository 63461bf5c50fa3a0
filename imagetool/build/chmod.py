"""The value of COPY --chmod: octal, or symbolic as chmod(1) has it.

Source: Dockerfile reference, "COPY --chmod"; POSIX.1-2017 chmod, "EXTENDED DESCRIPTION".
"""

from __future__ import annotations

import re
from typing import Final

from imagetool.errors import BuildError
from imagetool.values import dataclass

_OCTAL: Final = re.compile(r"[0-7]{1,5}\Z")
_CLAUSE: Final = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)\Z")
_ACTION: Final = re.compile(r"([-+=])([rwxXstugo]*)")
_SHIFT: Final = {"u": 6, "g": 3, "o": 0}
_BITS: Final = {"r": 4, "w": 2, "x": 1}


@dataclass(frozen=True, slots=True)
class Chmod:
    """A mode to set, or a list of changes to make to the mode a file has."""

    octal: int | None = None
    clauses: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Chmod:
        """Read a mode; raises BuildError."""
        if _OCTAL.match(text) and int(text, 8) <= 0o7777:
            return cls(octal=int(text, 8))
        clauses = []
        for part in text.split(","):
            match = _CLAUSE.match(part)
            if not match:
                raise BuildError(
                    f"--chmod={text[:40]}: should be an octal number from 0 to 07777, or as u=rwX,go=rX", about=text
                )
            actions = tuple((operator, letters) for operator, letters in _ACTION.findall(match[2]))
            clauses.append((match[1] or "a", actions))
        return cls(clauses=tuple(clauses))

    def apply(self, mode: int, *, is_folder: bool) -> int:
        """Return the mode that a file with `mode` gets."""
        if self.octal is not None:
            return self.octal
        for who, actions in self.clauses:
            classes = "ugo" if "a" in who else who
            for operator, letters in actions:
                mode = _act(mode, classes, operator, letters, is_folder)
        return mode


def _act(mode: int, classes: str, operator: str, letters: str, is_folder: bool) -> int:
    bits = mask = 0
    for letter in classes:
        shift = _SHIFT[letter]
        mask |= 7 << shift
        bits |= _permissions(mode, letters, is_folder) << shift
    if "s" in letters:
        bits |= (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
    if "t" in letters:
        bits |= 0o1000
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    special = (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
    return mode & ~(mask | special) | bits


def _permissions(mode: int, letters: str, is_folder: bool) -> int:
    bits = 0
    for letter in letters:
        if letter in _BITS:
            bits |= _BITS[letter]
        elif letter == "X" and (is_folder or mode & 0o111):
            bits |= 1
        elif letter in _SHIFT:
            bits |= mode >> _SHIFT[letter] & 7
    return bits
