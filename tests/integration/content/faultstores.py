"""Images and records written while the disk fails, and what a store and a cache must hold afterwards."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from imagetool.build.cache import FolderCache, Result
from imagetool.content.layout import LayoutStore
from imagetool.content.store import push_bytes
from imagetool.image.image import Layer
from imagetool.image.verify import verify
from imagetool.image.write import write_layer
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from tests.support import tars
from tests.support.faults import Strike, Struck

Tell = Callable[[str], None]


def layer_of(store: LayoutStore, name: str) -> Layer:
    tar = tars.file(name.encode(), name.encode() * 500) + tars.END
    return write_layer([tar], store, Codec.parse("gzip"))


def image_of(store: LayoutStore, name: str, tell: Tell = str) -> Descriptor:
    """Write an image of two layers, telling of each blob that is stored."""
    layers = []
    for part in ("one", "two"):
        layers.append(layer_of(store, f"{name}-{part}"))
        tell(f"blob {layers[-1].descriptor.digest}")
    config = ImageConfig.make(
        platform=Platform(), run=RunConfig(), diff_ids=[layer.diff_id for layer in layers], history=[], created=""
    )
    push_bytes(store, config.raw, mediatype.OCI_CONFIG)
    tell(f"blob {config.descriptor.digest}")
    manifest = Manifest.make(config.descriptor, [layer.descriptor for layer in layers])
    push_bytes(store, manifest.raw, manifest.media_type)
    tell(f"blob {manifest.descriptor.digest}")
    return manifest.descriptor


def build_and_tag(folder: Path, tell: Tell) -> None:
    store = LayoutStore.create(folder)
    with store.session():
        root = image_of(store, "new", tell)
        store.tag(root, "new")
        tell("tag new")
        store.tag(root, "again")
        tell("tag again")


def tag_over(folder: Path, tell: Tell) -> None:
    store = LayoutStore.create(folder)
    store.tag(store.resolve("old"), "kept")
    tell("tag kept")


def untag_and_collect(folder: Path, tell: Tell) -> None:
    store = LayoutStore.create(folder)
    if "old" in store.names():
        store.untag("old")
    tell("untag old")
    store.collect()
    tell("collect")


def make(folder: Path, tell: Tell) -> None:
    store = LayoutStore.create(folder / "fresh")
    tell("made")
    store.tag(image_of(store, "first"), "first")
    tell("tag first")


RECORD = Result(Layer(Descriptor("x/y", Digest.of(b"layer"), 5), Digest.of(b"diff")))


def cache(folder: Path, tell: Tell) -> None:
    records = FolderCache(folder / "cache")
    records.record("aa", RECORD)
    tell("record aa")
    records.record_facts("aa", {"user": "root"})
    tell("facts aa")
    records.record("kept", Result(None))
    tell("record kept")
    records.clear()
    tell("clear")


def start(folder: Path) -> None:
    """Make what is there before: two tagged images, a blob that nothing needs, records of a cache."""
    store = LayoutStore.create(folder)
    for name in ("kept", "old"):
        store.tag(image_of(store, name), name)
    push_bytes(store, b"garbage", "x/y")


def start_cache(folder: Path) -> None:
    FolderCache(folder / "cache").record("kept", RECORD)


def whole(store: LayoutStore, struck: Struck, strike: Strike) -> None:
    """Check what holds after every failure, whatever was being done."""
    if strike in ("full", "broken") and struck.error:
        assert re.match(r"StorageError: .*(No space left on device; free some space|Input/output error)", struck.error)
        if strike == "broken":
            assert not (store.folder / ".staging").exists() or not os.listdir(store.folder / ".staging"), "staged"
    LayoutStore.create(store.folder)  # the next start
    for root in store.names().values():
        assert [check.problem for check in verify(store, root) if check.problem] == []
    for path in store.folder.rglob("*"):
        name = str(path.relative_to(store.folder))
        if path.is_file() and name not in ("oci-layout", "index.json"):
            assert re.fullmatch("blobs/sha256/[0-9a-f]{64}", name), f"left behind: {name}"
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, f"half written: {name}"
    if "collect" not in struck.acknowledged:
        for line in struck.acknowledged:
            if line.startswith("blob "):
                assert store.path(Digest.parse(line[5:])).exists(), f"lost: {line}"


def names_after(folder: Path, struck: Struck, strike: Strike) -> None:
    store = LayoutStore(folder)
    whole(store, struck, strike)
    names = store.names()
    done = struck.acknowledged
    for line in done:
        if line.startswith("tag "):
            assert line[4:] in names, f"lost: {line}"
    assert "kept" in names
    assert ("old" not in names) if "untag old" in done else ("old" in names or "untag" in struck.last or done == [])
    if "tag kept" in done:
        assert names["kept"] == names["old"]
    if "collect" in done and strike != "power":  # what was removed may come back and be removed again
        assert len(list((folder / "blobs/sha256").iterdir())) == 4


def made_after(folder: Path, struck: Struck, strike: Strike) -> None:
    store = LayoutStore.create(folder / "fresh")
    if "made" in struck.acknowledged:
        whole(store, struck, strike)
    assert "tag first" not in struck.acknowledged or list(store.names()) == ["first"]


def cached_after(folder: Path, struck: Struck, strike: Strike) -> None:
    records = FolderCache(folder / "cache")
    done = struck.acknowledged
    assert not struck.error or re.match("StorageError: cannot (make|write|clear|stage) ", struck.error), struck.error
    found, facts, kept = records.lookup("aa"), records.facts("aa"), records.lookup("kept")
    assert found in (None, RECORD)
    assert facts in (None, {"user": "root"})
    assert kept in (None, RECORD, Result(None))
    if (
        strike not in ("power", "torn")
        and "record kept" in done
        and "clear" not in done
        and "unlink" not in struck.last
    ):
        assert (found, kept) == (RECORD, Result(None))
    FolderCache(folder / "cache")  # the next start
    left = os.listdir(folder / "cache") if (folder / "cache").exists() else []
    assert [name for name in left if not name.endswith(".json")] == [], "left behind"
