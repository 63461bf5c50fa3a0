"""Edit a JSON document in place: the bytes of everything that is not edited stay as they were.

Decoding and encoding again would rewrite numbers, escapes and white space of fields we do
not know, and so change what their author signed or hashed. Only documents that `decode`
has accepted may come here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from imagetool.oci.document import encode
from imagetool.values import dataclass

Span = tuple[int, int]
_DECODER: Final = json.JSONDecoder()
_SPACE: Final = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A value as JSON text that is to be written exactly so."""

    text: str


class _Removed:
    """The value that removes a field."""


REMOVED: Final = _Removed()


def patch(raw: bytes, edits: Mapping[tuple[str, ...], Any]) -> bytes:
    """Return the object `raw` with fields set, added or removed.

    Args:
        raw: a JSON object that `document.decode` accepts.
        edits: path of keys -> new value (a JSON value, `Verbatim`, or `REMOVED`). Objects on
            the way that are missing or null are made; a new field goes last in its object.
    """
    text = raw.decode("utf-8")
    for path, value in edits.items():
        text = _set(text, path, value)
    return text.encode("utf-8")


def elements(raw: bytes, key: str) -> list[Verbatim]:
    """Return the elements of array field `key`, each as the text it has in the document; absent or null is []."""
    text = raw.decode("utf-8")
    span = _fields(text).get(key)
    if span is None or text[slice(*span)] == "null":
        return []
    array = text[slice(*span)]
    position = _skip(array, 1)
    found = []
    while array[position] != "]":
        _, end = _DECODER.raw_decode(array, position)
        found.append(Verbatim(array[position:end]))
        position = _skip(array, end)
        if array[position] == ",":
            position = _skip(array, position + 1)
    return found


def render(value: Any) -> str:
    """Return the JSON text of a value, `Verbatim` parts within lists as they are."""
    if isinstance(value, Verbatim):
        return value.text
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(render(item) for item in value) + "]"
    return encode(value).decode("utf-8")


def _set(text: str, path: tuple[str, ...], value: Any) -> str:
    key, *rest = path
    fields = _fields(text)
    span = fields.get(key)
    if span is None:
        if value is REMOVED:
            return text
        for name in reversed(rest):
            value = {name: value}
        closing = text.rindex("}")
        field = f"{json.dumps(key, ensure_ascii=False)}:{render(value)}"
        return text[:closing].rstrip(_SPACE) + ("," if fields else "") + field + text[closing:]
    start, end = span
    if rest:
        inner = text[start:end]
        return text[:start] + _set("{}" if inner == "null" else inner, tuple(rest), value) + text[end:]
    if value is REMOVED:
        return _remove(text, key)
    return text[:start] + render(value) + text[end:]


def _remove(text: str, key: str) -> str:
    fields = _fields(text)
    kept = [(name, text[slice(*span)]) for name, span in fields.items() if name != key]
    return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{value}" for name, value in kept) + "}"


def _fields(text: str) -> dict[str, Span]:
    """Return where each field's value stands in the object `text`, in order."""
    spans: dict[str, Span] = {}
    position = _skip(text, _skip(text, 0) + 1)
    while text[position] != "}":
        key, end = _DECODER.raw_decode(text, position)
        start = _skip(text, _skip(text, end) + 1)
        _, end = _DECODER.raw_decode(text, start)
        spans[key] = (start, end)
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return spans


def _skip(text: str, position: int) -> int:
    while text[position] in _SPACE:
        position += 1
    return position
