"""Settings files of `key = value` lines, whose keys must all be known to the system they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from imagetool.errors import InvalidDocument, Unsupported
from imagetool.runtime.bundles.shape import Shape

Pairs = Iterable[tuple[str, str]]


def checked(pairs: Pairs, known: Mapping[str, Shape], *, what: str) -> list[tuple[str, str]]:
    """Return the pairs when each key is known and its value right; raises InvalidDocument naming the key.

    Raises Unsupported for a line break, which none of these formats can hold.
    """
    found = []
    for key, value in pairs:
        if key not in known:
            raise InvalidDocument(f"{what}: {key} is not a setting of that system")
        try:
            known[key](value, key)
        except InvalidDocument as error:
            raise InvalidDocument(f"{what}: {error}") from None
        if "\n" in value or "\r" in value:
            raise Unsupported(f"{what}: {key} would hold a line break, which this format cannot say")
        found.append((key, value))
    return found
