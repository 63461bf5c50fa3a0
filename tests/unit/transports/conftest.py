"""Surroundings without a registry, what must not be left in them, and images to put into places."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.image.image import Image, load
from imagetool.image.verify import verify
from imagetool.image.write import write_image, write_layer
from imagetool.layer.tarcodec import write
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.platform import Platform
from imagetool.progress import Event, Note
from imagetool.streams.codecs import Codec
from imagetool.transfer import copy
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from tests.support.workshop import file, folder, link, texts

CODECS = [bytes, gzip.compress, bz2.compress, lzma.compress]
FILES = {"d/a": "a", "d/b": "b"}


class Notes(list[str]):
    """An observer that keeps what is said to the user."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.append(event.text)


def no_registry(registry: str, repository: str) -> AbstractContextManager[Any]:
    raise AssertionError(f"nobody asked for {registry}/{repository}")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def around(tmp_path: Path, notes: Notes) -> Iterator[Surroundings]:
    """A local store and scratch space; scratch space is empty again when the test ends."""
    store = LayoutStore.create(tmp_path / "root")
    yield Surroundings(store, tmp_path / "scratch", no_registry, 315_532_800, notes)
    scratch = tmp_path / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())


def image(store: MemoryStore, *names: str, run: RunConfig | None = None) -> Image:
    """Put an image of real layers into a store, one for each name."""
    layers = [
        write_layer(write([folder("d"), file(f"d/{name}", name), link("l", "d")]), store, Codec()) for name in names
    ]
    config = ImageConfig.make(
        platform=Platform(),
        run=run or RunConfig(cmd=("/d/a",)),
        diff_ids=[each.diff_id for each in layers],
        history=[History("2020-01-01T00:00:00Z", name) for name in names],
        created="2020-01-01T00:00:00Z",
    )
    return load(store, write_image(store, config, layers).descriptor)


def put(place: str, store: MemoryStore, root: Descriptor, around: Surroundings) -> None:
    transport, rest = find(place)
    with transport.destination(rest, around) as target:
        copy(store, target.store, root, tags=target.tags)


def got(place: str, around: Surroundings) -> tuple[Image, dict[str, str]]:
    """Return the image at a place, verified, and its files."""
    transport, rest = find(place)
    with transport.source(rest, around) as source:
        found = load(source.store, source.root)
        assert [check.problem for check in verify(source.store, source.root) if check.problem] == []
        return found, texts(found)
