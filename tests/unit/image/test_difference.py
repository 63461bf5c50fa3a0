"""Differences of images are right whatever the paths are called, and take little memory however many there are."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.image import contents, difference
from imagetool.image.contents import diff_images
from imagetool.image.difference import ASPECTS, Change, Changes, Paths
from imagetool.image.image import Image
from imagetool.image.write import write_image, write_layer
from imagetool.layer.entry import Entry, Item
from imagetool.layer.tarcodec import write
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec


def image(store: MemoryStore | LayoutStore, *layers: Iterable[Item]) -> Image:
    made = [write_layer(write(items), store, Codec.parse("none")) for items in layers]
    config = ImageConfig.make(
        platform=Platform(),
        run=RunConfig(),
        diff_ids=[layer.diff_id for layer in made],
        history=[History(created_by="a test") for _ in made],
        created="",
    )
    return Image(write_image(store, config, made), config, tuple(made), store)


@pytest.mark.parametrize("run", [64, 1000, 1 << 30])
def test_paths_and_changes_come_sorted_however_many_runs_they_were_packed_in(
    run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(difference, "_RUN", run)
    monkeypatch.setattr(difference, "_BLOCK", 50)
    draw = random.Random(run)
    names = [
        b"/".join(draw.choice((b"a", b"a-", b"b\xff\n", b"\x01")) for _ in range(draw.randrange(1, 9)))
        for _ in range(400)
    ]
    paths, changes = Paths(), Changes()
    told = []
    for name in names:
        paths.add(name)
        aspects = tuple(draw.sample(ASPECTS, draw.randrange(1, len(ASPECTS) + 1)))
        changes.add(name, aspects)
        told.append(Change(name, aspects))
    for _ in range(2):
        assert list(paths) == sorted(names)
        assert [change.path for change in changes] == sorted(names)
        assert sorted(changes, key=repr) == sorted(told, key=repr)
    assert len(paths) == len(changes) == len(names)


_NAMES = st.lists(st.sampled_from([b"a", b"a-", b"a.b", b"b", b"\x01", b"z"]), min_size=1, max_size=3).map(b"/".join)
_FILES = st.tuples(_NAMES, st.sampled_from([b"", b"1", b"2"]), st.sampled_from([0o644, 0o755]), st.sampled_from([0, 1]))
_SIDE = st.lists(_FILES, max_size=12).map(lambda files: {name: rest for name, *rest in files})


def _items(files: dict[bytes, list[object]]) -> list[Item]:
    """Files, but directories where others are below them, those with an even mode without an entry."""
    items: list[Item] = []
    for name, (data, mode, uid) in files.items():
        if not any(other.startswith(name + b"/") for other in files):
            items.append((Entry(name, "file", mode, uid, 0, len(data)), (data,) if data else ()))  # type: ignore[arg-type]
        elif mode == 0o755:
            items.append((Entry(name, "dir", mode, uid), ()))  # type: ignore[arg-type]
    return items


@given(_SIDE, _SIDE, _SIDE, st.booleans())
def test_a_difference_is_that_of_what_is_at_each_path(
    shared: dict[bytes, list[object]], left: dict[bytes, list[object]], right: dict[bytes, list[object]], packed: bool
) -> None:
    common = {b"c/" + name: rest for name, rest in shared.items()}
    with pytest.MonkeyPatch.context() as patch:
        if packed:
            patch.setattr(contents, "_BLOCK", 150)
            patch.setattr(difference, "_RUN", 150)
        store = MemoryStore()
        first, second = (image(store, _items(common), _items(side)) for side in (left, right))
        found = diff_images(first, second).total
    one, other = ({item[0].name: item for item in _items({**common, **side})} for side in (left, right))
    assert list(found.added) == sorted(other.keys() - one.keys())
    gone = one.keys() - other.keys()
    assert list(found.removed) == sorted(name for name in gone if name.rpartition(b"/")[0] not in gone)
    expected = {}
    for name in one.keys() & other.keys():
        (before, old), (after, new) = one[name], other[name]
        aspects = [
            aspect
            for aspect, differs in (
                ("type", before.kind != after.kind),
                ("mode", before.mode != after.mode),
                ("owner", before.uid != after.uid),
                ("size", before.size != after.size),
                ("content", before.kind == after.kind == "file" and b"".join(old) != b"".join(new)),
            )
            if differs
        ]
        if aspects:
            expected[name] = aspects
    assert {change.path: list(change.aspects) for change in found.changed} == expected


#: Not `ru_maxrss`, which begins with what the process had that started this one.
_RUN = """
import runpy, sys
try:
    runpy.run_module("imagetool", run_name="__main__", alter_sys=True)
finally:
    peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(*peak, file=sys.stderr)
"""


@pytest.mark.parametrize("option", ["--json", "--total"])
def test_two_images_of_many_entries_are_compared_in_the_memory_of_one(option: str, tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path / "layout")
    with store.session():
        for side in (0, 1):
            names = [b"d%d/file%d" % (n // 100, n + (n % 10 == 0) * side * 10**6) for n in range(100_000)]
            text = (b"one", b"two")[side]
            items = ((Entry(name, "file", size=3, mtime=n % 9 * 10**9), (text,)) for n, name in enumerate(names))
            made = image(store, items)
            store.tag(made.descriptor, "ab"[side])
    places = [f"oci:{tmp_path / 'layout'}:{name}" for name in "ab"]
    args = ["--root", str(tmp_path / "root"), "diff", option, *places]
    done = subprocess.run([sys.executable, "-c", _RUN, *args], capture_output=True, text=True, check=True)
    if option == "--json":
        tree = json.loads(done.stdout)
        assert [len(tree["total"][what]) for what in ("added", "changed", "removed")] == [10_000, 90_000, 10_000]
        assert tree["total"]["changed"][:1] == [{"path": "d0/file1", "what": ["content"]}]
    else:
        assert done.stdout.splitlines()[0].endswith(": 110000 entries")
        assert done.stdout.splitlines()[1:3] == ["D /d0/file0", "C /d0/file1  (content)"]
    assert int(done.stderr.split()[-1]) < 60 << 10
