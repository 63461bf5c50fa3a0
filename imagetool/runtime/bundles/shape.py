"""Strict shapes of JSON documents that we write: every key must be known, every value of its kind.

A shape is a callable that takes a value and where it is, and raises InvalidDocument. Runtimes and the
published JSON schemas ignore keys that they do not know, so a misspelt one would go unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from imagetool.errors import InvalidDocument

Shape = Callable[[object, str], None]


def _refuse(at: str, value: object, wanted: str) -> InvalidDocument:
    return InvalidDocument(f"{at} is {str(value)[:60]!r}, expected {wanted}")


def text(value: object, at: str) -> None:
    """Take any string without NUL."""
    if not isinstance(value, str) or "\0" in value:
        raise _refuse(at, value, "a string")


def absolute(value: object, at: str) -> None:
    """Take an absolute path."""
    text(value, at)
    if not str(value).startswith("/"):
        raise _refuse(at, value, "an absolute path")


def flag(value: object, at: str) -> None:
    """Take true or false."""
    if not isinstance(value, bool):
        raise _refuse(at, value, "a boolean")


def number(low: int, high: int) -> Shape:
    """Take a whole number from `low` to `high`, both included."""

    def check(value: object, at: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _refuse(at, value, f"a number from {low} to {high}")

    return check


UINT32 = number(0, 2**32 - 1)
UINT64 = number(0, 2**64 - 1)
INT64 = number(-(2**63), 2**63 - 1)


def one_of(*values: str) -> Shape:
    """Take one of these strings."""

    def check(value: object, at: str) -> None:
        if value not in values:
            raise _refuse(at, value, f"one of {', '.join(values)}")

    return check


def matching(pattern: str, wanted: str) -> Shape:
    """Take a string that the pattern matches as a whole; `wanted` says what that is."""
    compiled = re.compile(pattern)

    def check(value: object, at: str) -> None:
        text(value, at)
        if not compiled.fullmatch(str(value)):
            raise _refuse(at, value, wanted)

    return check


def array(item: Shape, *, least: int = 0) -> Shape:
    """Take an array with every element of one shape."""

    def check(value: object, at: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise _refuse(at, value, f"an array of at least {least}" if least else "an array")
        for position, element in enumerate(value):
            item(element, f"{at}[{position}]")

    return check


def mapping(item: Shape) -> Shape:
    """Take an object whose keys are free and not empty."""

    def check(value: object, at: str) -> None:
        if not isinstance(value, dict):
            raise _refuse(at, value, "an object")
        for key, element in value.items():
            text(key, f"{at} key")
            if not key:
                raise InvalidDocument(f"{at} has an empty key")
            item(element, f"{at}[{key[:60]!r}]")

    return check


def record(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """Take an object that has the required keys, may have the optional ones, and no other."""
    known: dict[str, Shape] = {**required, **(optional or {})}

    def check(value: object, at: str) -> None:
        if not isinstance(value, dict):
            raise _refuse(at, value, "an object")
        for key in required:
            if key not in value:
                raise InvalidDocument(f"{at}.{key} is missing")
        for key, element in value.items():
            if key not in known:
                raise InvalidDocument(f"{at}.{str(key)[:60]} is not a key of the specification")
            known[key](element, f"{at}.{key}")

    return check


def check(shape: Shape, tree: Mapping[str, Any], *, what: str) -> None:
    """Check a whole document; raises InvalidDocument with the document's name and the JSON path."""
    try:
        shape(tree, "$")
    except InvalidDocument as error:
        raise InvalidDocument(f"{what}: {error}") from None
