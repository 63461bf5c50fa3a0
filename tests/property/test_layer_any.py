"""Layers that no tool would make: whoever takes them makes the same root filesystem of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagetool.content.memory import MemoryStore
from imagetool.errors import InvalidArchive
from imagetool.image.image import opener
from imagetool.image.write import write_layer
from imagetool.layer.entry import Entry
from imagetool.layer.merge import flatten
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, unpack
from imagetool.layer.whiteout import OPAQUE, PREFIX
from imagetool.snapshot.overlay import OverlaySnapshotter
from imagetool.streams.codecs import Codec
from tests.support.mounts import in_overlay
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: overlays")]
SECOND = 10**9
PATHS = [b"a", b"b", b"a/b", b"a/c", b"b/a", b"a/b/c", b"b/a/d", b"l", b"l/x", b"c"]
Tree = dict[bytes, tuple[object, ...]]

paths = st.sampled_from(PATHS)
times = st.integers(1, 9).map(lambda seconds: seconds * SECOND)
owners = st.sampled_from([0, 7])


def hide(path: bytes) -> Entry:
    folder, slash, base = path.rpartition(b"/")
    return Entry(folder + slash + PREFIX + base, "file", mtime=SECOND)


def hide_all(path: bytes) -> Entry:
    return Entry(path + b"/" + OPAQUE, "file", mtime=SECOND)


def file(path: bytes, mtime: int = SECOND, uid: int = 0) -> Entry:
    return Entry(path, "file", 0o640, uid, mtime=mtime)


def folder(path: bytes, mode: int = 0o700, mtime: int = SECOND, uid: int = 0) -> Entry:
    return Entry(path, "dir", mode, uid, mtime=mtime)


entries = st.one_of(
    st.builds(file, paths, times, owners),
    st.builds(folder, paths, st.sampled_from([0o700, 0o755]), times, owners),
    st.builds(
        lambda path, to: Entry(path, "symlink", 0o777, linkname=to, mtime=SECOND),
        paths,
        st.sampled_from([b"a", b"b", b"../b", b"a/b", b"c", b"/a"]),
    ),
    st.builds(lambda path, to: Entry(path, "link", linkname=to), paths, paths),
    st.builds(hide, paths),
    st.builds(hide_all, paths),
)


def is_hidden_once(layer: list[Entry]) -> bool:
    """Whether no path is hidden in a layer that something below it is hidden in, too, which is then made again."""
    marks = {entry.name for entry in layer}
    below = {path for path in PATHS if hide_all(path).name in marks or any(hide(p).name in marks for p in inside(path))}
    return not any(hide(path).name in marks for path in below)


def inside(path: bytes) -> list[bytes]:
    return [other for other in PATHS if other.startswith(path + b"/")]


def quiet(text: str) -> None:
    raise AssertionError(f"nothing should be left out: {text}")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="any-layers-") as name:
        yield Path(name)


def made(work: Callable[[], Tree]) -> Tree | None:
    """Return the tree, or None where the layers are refused."""
    try:
        return work()
    except InvalidArchive:
        return None


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(layers=st.lists(st.lists(entries, min_size=1, max_size=7).filter(is_hidden_once), min_size=1, max_size=3))
@example(layers=[[file(b"c"), hide(b"a/c"), hide_all(b"l/x")]])
@example(layers=[[folder(b"a"), hide(b"a/c")]])
@example(layers=[[folder(b"a"), file(b"a/b")], [hide(b"a/c"), hide_all(b"a"), folder(b"a", 0o755)]])
@example(layers=[[folder(b"a"), file(b"a/b")], [hide_all(b"a"), file(b"c")]])
@example(layers=[[file(b"a")], [hide(b"a/b")]])
@example(layers=[[hide(b"b/a/d"), folder(b"b"), file(b"a/b/c")]])
@example(layers=[[folder(b"a", 0o700)], [file(b"a/b"), folder(b"a", 0o755)]])
@example(layers=[[file(b"l/x")], [file(b"l"), folder(b"l")]])
@example(layers=[[folder(b"a", 0o711), file(b"a/b", 7, 7)], [Entry(b"c", "link", linkname=b"a/b")]])
@example(
    layers=[[file(b"a/b")], [Entry(b"c", "link", linkname=b"a/b"), Entry(b"l", "link", linkname=b"c"), hide(b"a")]]
)
@example(layers=[[file(b"a/b")], [Entry(b"c", "link", linkname=b"a/b"), folder(b"a"), file(b"a/b", 9)]])
@example(layers=[[file(b"a/b")], [Entry(b"c", "link", linkname=b"a/b"), file(b"c", 9)]])
@example(layers=[[file(b"a")], [Entry(b"b", "link", linkname=b"a"), file(b"b/a")]])
@example(layers=[[file(b"a")], [hide(b"a"), Entry(b"b", "link", linkname=b"a")]])
@example(layers=[[folder(b"b")], [file(b"b/a"), Entry(b"b", "symlink", 0o777, linkname=b"a", mtime=SECOND)]])
@example(layers=[[folder(b"a", 0o711)], [Entry(OPAQUE, "file"), file(b"a/b")]])
def test_whoever_takes_them_makes_the_same_of_them(place: Path, layers: list[list[Entry]]) -> None:
    with tempfile.TemporaryDirectory(dir=place) as name:
        at = Path(name)
        for part in ("directory", "flat", "merged", "empty"):
            (at / part).mkdir()
        store = MemoryStore()
        written = [write_layer(write((entry, ()) for entry in layer), store, Codec("none")) for layer in layers]
        openers = [(opener(store, layer), f"layer {number}") for number, layer in enumerate(written)]

        def in_directory() -> Tree:
            for opened, where in openers:
                with opened() as chunks:
                    unpack(read(chunks, where=where), at / "directory", where=where, warn=quiet)
            return describe(at / "directory")

        def in_stream() -> Tree:
            unpack(flatten(openers), at / "flat", where="flat", warn=quiet)
            return describe(at / "flat")

        def stacked() -> Tree:
            overlays = OverlaySnapshotter(at / "o", user_xattr=False, ownership=Ownership(), warn=quiet)
            with overlays.prepare(written, partial(opener, store)) as workspace:
                return in_overlay([*workspace.lowers, at / "empty"], at / "merged", describe)

        trees = [tree for tree in map(made, (in_directory, in_stream, stacked)) if tree is not None]
        if any(entry.kind == "link" for layer in layers[1:] for entry in layer):
            # A file of the layers below that gets one more name is parted from its others in an overlay.
            trees = [{path: seen[:-1] for path, seen in tree.items()} for tree in trees]
        assert all(tree == trees[0] for tree in trees)


def test_a_hard_link_to_the_whiteout_of_a_layer_is_none(tmp_path: Path) -> None:
    """Otherwise a link could hide what the layer has no whiteout for."""
    link = Entry(b"l", "link", linkname=b"b")
    with pytest.raises(InvalidArchive, match="l is a hard link to b, which is not there"):
        unpack([(entry, ()) for entry in (hide(b"b"), link)], tmp_path, where="t", whiteouts="overlay", warn=quiet)
