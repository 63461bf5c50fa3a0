"""JSON keys as the reference implementation reads them: without regard to case.

The spec's own examples rely on it (`supplementaryGids`). What is written has the spec's spelling.

Source: appc spec v0.8.11 aci.md, "Image Manifest Schema"; Go's encoding/json, "Unmarshal".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetool.errors import InvalidDocument
from imagetool.oci import document


def spelt(tree: Mapping[str, Any], names: tuple[str, ...], *, path: str, what: str) -> dict[str, Any]:
    """Give the known keys of an object the spec's spelling; the others stay as they are, in their places.

    Raises InvalidDocument for two spellings of one key: which of them counts is not the same for every reader.
    """
    canonical = {name.lower(): name for name in names}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = canonical.get(key.replace("ſ", "s").lower(), key)  # Go folds the long s and the Kelvin sign, too
        if name in found:
            raise InvalidDocument(f"{what}: {path}.{name} is there twice, in two spellings")
        found[name] = value
    return found


def objects(tree: Mapping[str, Any], key: str, names: tuple[str, ...], *, path: str, what: str) -> list[dict[str, Any]]:
    """Return an array of objects, keys spelt as `spelt` does; absent or null is empty."""
    items: list[Any] = document.get(tree, key, list, [], path=path, what=what)
    return [
        spelt(
            document.expect(item, dict, f"{path}.{key}[{number}]", what),
            names,
            path=f"{path}.{key}[{number}]",
            what=what,
        )
        for number, item in enumerate(items)
    ]
