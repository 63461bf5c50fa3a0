"""The build cache inside the image itself: which steps made its layers, in a field of its config.

The field `FIELD` holds `records`, from the key of a step to the position of its layer, and `facts`;
see `build.cache`. Layers are named by position, so that a copy that compresses them anew still is a
cache. docs/adr/0052 has the form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from imagetool.content.store import Documents, Fetcher, fetch_bytes
from imagetool.errors import InvalidDocument
from imagetool.image.image import Image, Layer
from imagetool.image.write import write_image
from imagetool.oci import document
from imagetool.oci.config import ImageConfig
from imagetool.oci.manifest import Manifest
from imagetool.oci.patch import patch

FIELD: Final = "vnd.imagetool.buildcache.v1"
_KEY: Final = re.compile(r"[0-9a-f]{64}\Z")


def with_inline_cache(
    image: Image,
    used: Mapping[str, Layer],
    facts: Mapping[str, Any],
    store: Documents,
    *,
    annotations: Mapping[str, str],
) -> Image:
    """Write the image once more, with a cache in its config; return that one.

    used: the layers that a build used, by the keys of their steps. facts: see `build.cache`.
    """
    positions = {layer.diff_id: number for number, layer in enumerate(image.layers)}
    records = {key: positions[layer.diff_id] for key, layer in used.items() if layer.diff_id in positions}
    tree = {"records": dict(sorted(records.items())), "facts": dict(sorted(facts.items()))}
    config = ImageConfig.parse(patch(image.config.raw, {(FIELD,): tree}), media_type=image.config.media_type)
    manifest = write_image(store, config, image.layers, annotations=annotations)
    return Image(manifest, config, image.layers, image.content)


def read_inline_cache(source: Fetcher, manifest: Manifest) -> tuple[dict[str, Layer], dict[str, Any]]:
    """Return the records and facts that an image holds; raises InvalidDocument for one that holds none, or bad ones."""
    what = f"image config {manifest.config.digest}"
    raw = fetch_bytes(source, manifest.config)
    tree = document.decode(raw, what=what)
    if FIELD not in tree:
        raise InvalidDocument(f"{what}: has no build cache; an image built with --cache-to type=inline has one")
    diff_ids = ImageConfig.parse(raw, media_type=manifest.config.media_type, what=what).diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise InvalidDocument(f"{what}: tells of {len(diff_ids)} layers, and its manifest of {len(manifest.layers)}")
    path = f"$.{FIELD}"
    inline = document.expect(tree[FIELD], dict, path, what)
    records = {}
    for key, number in document.get(inline, "records", dict, None, path=path, what=what).items():
        if not _KEY.match(key) or type(number) is not int or not 0 <= number < len(diff_ids):
            raise InvalidDocument(f"{what}: {path}.records.{key[:80]} is no record")
        records[key] = Layer(manifest.layers[number], diff_ids[number])
    return records, checked_facts(inline, path, what)


def checked_facts(tree: Mapping[str, Any], path: str, what: str) -> dict[str, Any]:
    """Return the `facts` of a cache; raises InvalidDocument."""
    facts = document.get(tree, "facts", dict, None, path=path, what=what)
    if any(not _KEY.match(key) or not isinstance(value, dict) for key, value in facts.items()):
        raise InvalidDocument(f"{what}: {path}.facts holds what are no facts")
    return facts
