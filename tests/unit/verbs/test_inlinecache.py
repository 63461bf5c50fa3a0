"""The build cache in an image's config: what is read of it is checked like everything from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.errors import InvalidDocument
from imagetool.image.image import Layer
from imagetool.image.write import write_image, write_layer
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.manifest import Manifest
from imagetool.oci.patch import patch
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.verbs.inlinecache import FIELD, read_inline_cache

KEY = "0a" * 32


def image_with(store: MemoryStore, value: Any) -> tuple[Manifest, Layer]:
    layer = write_layer([b"\0" * 1024], store, Codec())
    made = ImageConfig.make(platform=Platform(), run=RunConfig(), diff_ids=[layer.diff_id], history=(), created="")
    config = ImageConfig.parse(patch(made.raw, {(FIELD,): value}))
    return write_image(store, config, [layer]), layer


def test_records_name_layers_by_position() -> None:
    store = MemoryStore()
    manifest, layer = image_with(store, {"records": {KEY: 0}, "facts": {KEY: {"x": 1}}})
    assert read_inline_cache(store, manifest) == ({KEY: layer}, {KEY: {"x": 1}})


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"records": {}},
        {"records": {"short": 0}, "facts": {}},
        {"records": {KEY: 1}, "facts": {}},
        {"records": {KEY: -1}, "facts": {}},
        {"records": {KEY: True}, "facts": {}},
        {"records": {KEY: "0"}, "facts": {}},
        {"records": {}, "facts": {"short": {}}},
        {"records": {}, "facts": {KEY: 1}},
    ],
    ids=json.dumps,
)
def test_what_is_no_record_is_refused(value: Any) -> None:
    store = MemoryStore()
    manifest, _ = image_with(store, value)
    with pytest.raises(InvalidDocument, match="buildcache"):
        read_inline_cache(store, manifest)
