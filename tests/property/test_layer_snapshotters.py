"""A stack of layers is the same root filesystem wherever it is put together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagetool.content.memory import MemoryStore
from imagetool.image.image import Layer, opener
from imagetool.image.write import write_layer
from imagetool.layer.directory import scan_directory
from imagetool.layer.entry import Entry, Item
from imagetool.layer.merge import flatten
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
from imagetool.layer.unpack import Ownership, unpack
from imagetool.layer.whiteout import OPAQUE
from imagetool.snapshot.directory import DirectorySnapshotter
from imagetool.snapshot.overlay import OverlaySnapshotter
from imagetool.streams.codecs import Codec
from tests.support.changes import START, change, operations
from tests.support.mounts import in_overlay
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: overlays")]
Operation = tuple[str, bytes, object]


def quiet(text: str) -> None:
    raise AssertionError(f"nothing should be left out: {text}")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="snapshotters-") as folder:
        yield Path(folder)


def terse(items: Iterator[Item]) -> Iterator[Item]:
    """Leave out every second directory that only has something new in it, as builders do that say only what changed."""
    whole = [(entry, tuple(content)) for entry, content in items]
    opaque = {entry.name.rpartition(b"/")[0] for entry, _ in whole if entry.name.endswith(OPAQUE)}
    folders = 0
    for entry, content in whole:
        may_go = entry.kind == "dir" and entry.name not in opaque
        folders += may_go
        if not may_go or folders % 2:
            yield entry, content


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    steps=st.lists(st.lists(operations, min_size=1, max_size=8), min_size=1, max_size=3),
    is_terse=st.booleans(),
    last=st.lists(operations, min_size=1, max_size=8),
)
def test_overlay_directory_and_flattened_stream_agree(
    place: Path, steps: list[list[Operation]], is_terse: bool, last: list[Operation]
) -> None:
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        (folder / "merged").mkdir()
        (folder / "flat").mkdir()
        store = MemoryStore()
        layers: list[Layer] = []
        overlays = OverlaySnapshotter(folder / "o", user_xattr=False, ownership=Ownership(), warn=quiet)
        directories = DirectorySnapshotter(folder / "d", ownership=Ownership(), warn=quiet)

        def tar_of(layer: Layer) -> object:
            return opener(store, layer)

        for step in ([*START], *steps):
            with overlays.prepare(layers, tar_of) as workspace:  # type: ignore[arg-type]
                in_overlay(
                    workspace.lowers, folder / "merged", partial(change, wanted=step), upper=workspace.upper.parent
                )
                items = scan_upper(workspace.upper, clamp=None, warn=quiet)
                layers.append(write_layer(write(terse(items) if is_terse else items), store, Codec("none")))
        for name in os.listdir(folder / "o"):
            assert not name.startswith("new-")
        overlays.discard()
        with overlays.prepare(layers, tar_of) as workspace, directories.prepare(layers, tar_of) as directory:  # type: ignore[arg-type]
            seen = in_overlay(workspace.lowers, folder / "merged", describe)
            assert describe(directory.root) == seen
            assert directory.before == scan_directory(directory.root)  # though it asked less
            openers = [(opener(store, layer), "layer") for layer in layers]
            unpack(flatten(openers), folder / "flat", where="flat", warn=quiet)
            assert describe(folder / "flat") == seen

            change(directory.root, last)
            changed = write_layer(write(directory.changes(clamp=None, warn=quiet)), store, Codec("none"))
            wanted = describe(directory.root)
        with overlays.prepare([*layers, changed], tar_of) as workspace:  # type: ignore[arg-type]
            assert in_overlay(workspace.lowers, folder / "merged", describe) == wanted


def _said(path: bytes, kind: str) -> Entry:
    return Entry(path, "dir" if kind == "dir" else "file", 0o755)


@pytest.mark.parametrize(
    "names",
    [
        [b"b/b/.wh.c", b".wh.b"],
        [b"c/.wh..wh..opq", b".wh.c"],
        [b"c/c/.wh.x", b"c/.wh.c", b".wh.c"],
        [b"b/.wh.b", b".wh.b", b"b/new"],
        [b"c/.wh.b", b"c/new", b".wh.c"],
        [b"c/.wh.b", b"c", b".wh.c"],
        [b".wh.c", b"c/.wh.b", b".wh.c"],
    ],
    ids=lambda names: b" ".join(names).decode(),
)
def test_a_marker_after_those_below_what_it_hides_leaves_nothing_of_it(place: Path, names: list[bytes]) -> None:
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        for each in ("merged", "flat"):
            (folder / each).mkdir()
        store = MemoryStore()
        lower = [_said(b"b", "file"), _said(b"c", "dir"), _said(b"c/b", "file"), _said(b"c/c", "dir")]
        upper = [_said(path, "dir" if path == b"c" else "file") for path in names]
        layers = [
            write_layer(write([(entry, ()) for entry in entries]), store, Codec("none")) for entries in (lower, upper)
        ]
        overlays = OverlaySnapshotter(folder / "o", user_xattr=False, ownership=Ownership(), warn=quiet)
        directories = DirectorySnapshotter(folder / "d", ownership=Ownership(), warn=quiet)

        def tar_of(layer: Layer) -> object:
            return opener(store, layer)

        with overlays.prepare(layers, tar_of) as workspace, directories.prepare(layers, tar_of) as directory:  # type: ignore[arg-type]
            upper_folder = workspace.upper.parent
            seen = in_overlay(workspace.lowers, folder / "merged", describe, upper=upper_folder)
            assert {*seen} == {*describe(directory.root)}
        unpack(
            flatten([(opener(store, layer), "layer") for layer in layers]), folder / "flat", where="flat", warn=quiet
        )
        assert {*seen} == {*describe(folder / "flat")}
