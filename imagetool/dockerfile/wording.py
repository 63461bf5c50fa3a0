"""Untrusted text as messages show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_SHOWN_CHARACTERS: Final = 160  # of one line


def printable(text: str, shown: int = _SHOWN_CHARACTERS) -> str:
    """Return untrusted text cut to a line's length, control characters as escapes."""
    cut = text[:shown].rstrip("\r")
    escaped = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in cut)
    return escaped + ("…" if len(text) > shown else "")


def quoted(text: str) -> str:
    """Return untrusted text short, in quotes and free of control characters, for use inside a message."""
    return repr(text if len(text) <= 80 else text[:77] + "…")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ` (did you mean …?)` for the option closest to `word`, or nothing when none is close."""
    from difflib import get_close_matches  # only an error needs it

    close = get_close_matches(word[:80], list(options), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
