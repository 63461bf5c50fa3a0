"""Names of appc: identifiers, and what other names become when they must be one.

Source: appc spec v0.8.11, types.md.
"""

from __future__ import annotations

import re
from typing import Final

from imagetool.errors import InvalidDocument

_IDENTIFIER: Final = re.compile(r"[a-z0-9]+(?:[-._~/][a-z0-9]+)*\Z")
_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
#: What actool, docker2aci and rkt let pass: separators may follow each other.
_LOOSE_IDENTIFIER: Final = re.compile(r"[a-z0-9](?:[a-z0-9._~/-]*[a-z0-9])?\Z")
_LOOSE_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z")


def check_identifier(text: str, *, path: str, what: str, strict: bool = True) -> str:
    """Return an AC Identifier; raises InvalidDocument naming the JSON path.

    Not `strict`: accept what the reference implementation does, such as `a--b`.
    """
    if not (_IDENTIFIER if strict else _LOOSE_IDENTIFIER).match(text):
        raise InvalidDocument(f"{what}: {path} is not an AC identifier: {text[:80]!r}")
    return text


def check_name(text: str, *, path: str, what: str, strict: bool = True) -> str:
    """Return an AC Name; raises InvalidDocument naming the JSON path. See `check_identifier`."""
    if not (_NAME if strict else _LOOSE_NAME).match(text):
        raise InvalidDocument(f"{what}: {path} is not an AC name: {text[:80]!r}")
    return text


def sanitised(text: str, *, identifier: bool) -> str:
    """Return the nearest valid AC Identifier (or AC Name): lower case, runs of other characters one separator."""
    allowed, joint = (r"[^a-z0-9._~/-]+", "_") if identifier else (r"[^a-z0-9-]+", "-")
    text = re.sub(allowed, joint, text.lower())
    text = re.sub(r"_+", "-", text)
    text = re.sub(r"([-._~/])[-._~/]+", r"\1", text)
    return text.strip("-._~/") or "unnamed"


def numbered(name: str, taken: set[str]) -> str:
    """Return `name`, with the first free number behind it when it is taken; remember it."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken.add(candidate)
    return candidate
