"""The one JSON decoder for every document that comes from outside, and typed access to its tree.

`decode` refuses what the stdlib accepts silently: duplicate keys, NaN, numbers and nesting
without bound. Field access goes through the `get_*` functions. Errors of both name the JSON
path. `encode` writes the canonical form of the documents we make ourselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar

from imagetool import limits
from imagetool.errors import InvalidDocument, LimitExceeded

Tree = Mapping[str, Any]
T = TypeVar("T")

_RFC3339: Final = re.compile(
    r"(\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]))[Tt]((?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60))"
    r"(\.\d{1,9})?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)\Z",
    re.ASCII,
)

_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}:,]|[^\s\[\]{}:,"]+', re.DOTALL)
_PATH_LIMIT: Final = 200  # characters of a path in an error


def decode(raw: bytes, *, what: str, limit: str = "DOCUMENT_BYTES") -> dict[str, Any]:
    """Parse an untrusted JSON object.

    Args:
        raw: UTF-8 bytes.
        limit: the constant of `limits` that bounds them.
        what: the document's name for errors, for example "manifest sha256:…".

    Raises InvalidDocument for malformed JSON, a duplicate key, a non-object at the top, an
    integer longer than `limits.DOCUMENT_INT_DIGITS` or nesting deeper than
    `limits.DOCUMENT_DEPTH`; LimitExceeded for too many bytes.
    """
    if len(raw) > getattr(limits, limit):
        raise LimitExceeded(f"{what}: JSON larger than {limits.named(limit)}")
    if _depth(raw) > limits.DOCUMENT_DEPTH:
        raise InvalidDocument(
            f"{what}: {_place(raw, _Refused())} is nested deeper than {limits.named('DOCUMENT_DEPTH')}"
        )
    try:
        tree = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except _Refused as refused:
        raise InvalidDocument(f"{what}: {_place(raw, refused)} {refused}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"{what}: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidDocument(f"{what}: $ is {_kind(tree)}, expected an object")
    if b"\\u" in raw:
        _refuse_lone_surrogates(tree, what)
    return tree


def encode(tree: Tree) -> bytes:
    """Return the canonical bytes of a document we make: UTF-8, no spaces, keys in the tree's order."""
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


class _Refused(ValueError):
    """A value that is JSON but not allowed: one with the text `token`, or an object with `key` twice."""

    def __init__(self, problem: str = "", *, token: str = "", key: str | None = None) -> None:
        super().__init__(problem)
        self.token = token
        self.key = key


def _depth(raw: bytes) -> int:
    """Return how deep a document is nested, before the recursive parser meets it; strings do not count."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(raw):
        first = raw[token.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _place(raw: bytes, refused: _Refused) -> str:
    """Return the JSON path of what was refused: a second pass, which only a bad document costs.

    The refused value is the first that the parser finished, which is the first in the text for a
    number or word, and the innermost for an object with a key twice.
    """
    path: list[str | int] = []
    keys: list[set[str] | None] = []  # of every open object; None for an array
    pending = ""  # a string that is a key if a colon follows
    for token in _TOKENS.finditer(raw.decode("utf-8", "replace")):
        text = token[0]
        if text in "{[":
            path.append("" if text == "{" else 0)
            keys.append(set() if text == "{" else None)
            if len(path) > limits.DOCUMENT_DEPTH and not refused.token and refused.key is None:
                path.pop()
                break
        elif text in "}]" and path:
            path.pop()
            keys.pop()
        elif text == ":" and path and (seen := keys[-1]) is not None:
            path[-1] = _key(pending)
            if path[-1] == refused.key and path[-1] in seen:
                break
            seen.add(str(path[-1]))
        elif text == "," and path and isinstance(path[-1], int):
            path[-1] += 1
        elif text.startswith('"'):
            pending = text
        elif refused.token and text == refused.token:
            break
    parts = (f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in path)
    shown = "".join(parts).encode("utf-8", "backslashreplace").decode("utf-8")
    return f"${shown if len(shown) <= _PATH_LIMIT else shown[:_PATH_LIMIT] + '…'}"


def _key(text: str) -> str:
    """Return what a string says; of one that is none, as too deep a document may have, its text."""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text


def _refuse_lone_surrogates(tree: Tree, what: str) -> None:
    """A string with half a surrogate pair cannot be written again as UTF-8, nor printed."""
    try:
        encode(tree)
    except UnicodeEncodeError:
        raise InvalidDocument(f"{what}: a string holds half a surrogate pair") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused("is there twice", key=key)
            seen.add(key)
    return tree


def _integer(text: str) -> int:
    digits = len(text.removeprefix("-"))
    if digits > limits.DOCUMENT_INT_DIGITS:
        raise _Refused(f"is an integer of {digits} digits, more than {limits.named('DOCUMENT_INT_DIGITS')}", token=text)
    return int(text)


def _float(text: str) -> float:
    if len(text) > 64:
        raise _Refused(f"is a number of {len(text)} characters", token=text)
    value = float(text)
    if value in (float("inf"), float("-inf")):  # no document could be written with it again
        raise _Refused("is a number beyond all that can be kept", token=text)
    return value


def _constant(text: str) -> NoReturn:
    raise _Refused(f"is {text}, which is not JSON", token=text)


def _kind(value: object) -> str:
    names: dict[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def expect(value: object, kind: type[T], path: str, what: str) -> T:
    """Return `value` when it is a `kind`; raises InvalidDocument naming `path` otherwise."""
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    wanted = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer"}[kind]
    raise InvalidDocument(f"{what}: {path} is {_kind(value)}, expected {wanted}")


def get(tree: Tree, key: str, kind: type[T], default: T | None, *, path: str, what: str) -> T:
    """Return field `key` of `tree`, or `default` when it is absent or null.

    With `default=None` the field is required. Raises InvalidDocument naming `path.key`.
    """
    value = tree.get(key)
    if value is None:
        if default is None:
            raise InvalidDocument(f"{what}: {path}.{key} is missing")
        return default
    return expect(value, kind, f"{path}.{key}", what)


def get_list(tree: Tree, key: str, item: Callable[[object, str], T], *, path: str, what: str) -> tuple[T, ...]:
    """Return array field `key` with every element read by `item(value, path)`; absent or null is empty."""
    values: list[Any] = get(tree, key, list, [], path=path, what=what)
    return tuple(item(value, f"{path}.{key}[{number}]") for number, value in enumerate(values))


def get_strings(tree: Tree, key: str, *, path: str, what: str) -> tuple[str, ...]:
    """Return array-of-strings field `key`; absent or null is empty."""
    return get_list(tree, key, lambda value, at: expect(value, str, at, what), path=path, what=what)


def get_string_map(tree: Tree, key: str, *, path: str, what: str) -> dict[str, str]:
    """Return string-to-string field `key`; absent or null is empty."""
    values: dict[str, Any] = get(tree, key, dict, {}, path=path, what=what)
    return {name: expect(value, str, f"{path}.{key}.{name}", what) for name, value in values.items()}


def check_timestamp(text: str, *, path: str, what: str) -> str:
    """Return `text` when it is an RFC 3339 date-time, as the spec asks of `created`."""
    match = _RFC3339.match(text)
    if match:
        try:
            datetime.fromisoformat(match[1])
        except ValueError:
            match = None
    if not match:
        raise InvalidDocument(f"{what}: {path} is not an RFC 3339 date-time: {text[:40]!r}")
    return text
