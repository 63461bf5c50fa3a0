"""Snapshots, copies, unpacked trees and containers made while the disk fails, and what must hold afterwards."""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import NoReturn

from imagetool.build.settings import Settings
from imagetool.content.layout import LayoutStore
from imagetool.content.staging import storage_errors
from imagetool.image.image import Layer, load, opener
from imagetool.image.verify import verify
from imagetool.image.write import write_layer
from imagetool.layer.entry import Entry
from imagetool.layer.merge import Opener
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership
from imagetool.progress import silent
from imagetool.snapshot.bundle import open_bundle
from imagetool.snapshot.overlay import OverlaySnapshotter
from imagetool.streams.codecs import Codec
from imagetool.transfer import copy
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.verbs import committing, copyinto, rootfs, working
from imagetool.verbs.workplace import Workplace
from tests.integration.content.faultstores import Tell, image_of
from tests.support import tars
from tests.support.faults import Strike, Struck

FILES = {"one": b"1" * 3000, "deep/two": b"2" * 70_000, "deep/three": b""}


def layered(folder: Path) -> tuple[LayoutStore, list[Layer]]:
    store = LayoutStore.create(folder / "layout")
    made = []
    for name, data in FILES.items():
        made.append(write_layer([tars.file(name.encode(), data) + tars.END], store, Codec.parse("gzip")))
    return store, made


def start_snapshots(folder: Path) -> None:
    layered(folder)
    (folder / "snapshots").mkdir()


def snapshots_of(folder: Path) -> OverlaySnapshotter:
    return OverlaySnapshotter(folder / "snapshots", user_xattr=False, ownership=Ownership(), warn=print)


def unpack_and_discard(folder: Path, tell: Tell) -> None:
    store, layers = layered(folder)
    snapshots = snapshots_of(folder)
    for count in (1, 2, 3):
        with snapshots.prepare(layers[:count], partial(opener, store)):
            tell("unpacked")
    snapshots.discard()
    tell("discarded")


def snapshots_after(folder: Path, struck: Struck, strike: Strike) -> None:
    """Check that each snapshot that is there is whole, and nothing else."""
    assert not struck.error or struck.error.startswith("StorageError: "), struck.error
    if strike in ("power", "torn"):
        (folder / "snapshots/boot").unlink(missing_ok=True)  # as if the machine had started anew
    snapshots_of(folder)
    for path in (folder / "snapshots").iterdir():
        if path.name in ("boot", "empty"):
            continue
        assert re.fullmatch("[0-9a-f]{64}", path.name), f"left behind: {path.name}"
        for found in (path / "fs").rglob("*"):
            if found.is_file():
                assert FILES[str(found.relative_to(path / "fs"))] == found.read_bytes(), f"half written: {found}"
        assert any(found.is_file() for found in (path / "fs").rglob("*")), "half made, or half removed"


#: Where images are copied to, and how many points there are at least.
DESTINATIONS = {
    "dir:{}/out": 15,
    "oci-archive:{}/out.tar:x": 20,
    "docker-archive:{}/docker.tar:x:1": 20,
    "aci:{}/out.aci": 20,
}


def no_registry(registry: str, repository: str) -> NoReturn:
    raise AssertionError(f"{registry}/{repository}")


def around(folder: Path) -> Surroundings:
    return Surroundings(LayoutStore.create(folder / "layout"), folder / "scratch", no_registry, 0)


def start_copies(folder: Path) -> None:
    folder.mkdir()
    store = LayoutStore.create(folder / "layout")
    for name in ("old", "new"):
        store.tag(image_of(store, name), name)
    for place in DESTINATIONS:
        send(folder, place, "old")
    shutil.rmtree(folder / "scratch")


def send(folder: Path, place: str, name: str) -> None:
    store = LayoutStore.create(folder / "layout")
    transport, rest = find(place.format(folder))
    with transport.destination(rest, around(folder)) as target:
        copy(store, target.store, store.resolve(name), tags=target.tags)


def send_new(place: str, folder: Path, tell: Tell) -> None:
    send(folder, place, "new")
    tell("sent")


def sent_after(place: str, folder: Path, struck: Struck, strike: Strike) -> None:
    """Check that the old or the new image is there, whole, and the new one once it was sent."""
    assert not struck.error or struck.error.startswith("StorageError: "), struck.error
    transport, rest = find(place.format(folder))
    with transport.source(rest, around(folder)) as found:
        assert [check.problem for check in verify(found.store, found.root) if check.problem] == []
        named = {
            entry.name for chunks, where in load(found.store, found.root).openers() for entry in listed(chunks, where)
        }
    # Both in one piece, never a mixture; the names inside tell them apart.
    named.discard(b".")
    assert named in ({b"old-one", b"old-two"}, {b"new-one", b"new-two"}), named
    if "sent" in struck.acknowledged:
        assert named == {b"new-one", b"new-two"}
    if struck.finished and not struck.last:
        assert not (folder / "scratch").exists() or os.listdir(folder / "scratch") == []
        assert {*os.listdir(folder)} - {"scratch"} == {"docker.tar", "layout", "out", "out.aci", "out.tar"}
        for name in os.listdir(folder / "out"):
            assert re.fullmatch("manifest.json|version|[0-9a-f]{64}", name), f"left behind: {name}"


def listed(chunks: Opener, where: str) -> list[Entry]:
    with chunks() as tar:
        return [entry for entry, _ in read(tar, where=where)]


def start_bundle(folder: Path) -> None:
    folder.mkdir()
    store = LayoutStore.create(folder / "layout")
    store.tag(image_of(store, "old"), "old")


def unpack_and_repack(folder: Path, tell: Tell) -> None:
    source, place = f"oci:{folder}/layout:old", around(folder)
    if not (folder / "bundle/imagetool.scan").exists():
        rootfs.unpack(source, folder / "bundle", place, platform=None, rootless=False, sync=True, observer=silent)
    tell("unpacked")
    with storage_errors("cannot edit"):
        (folder / "bundle/rootfs/edited").write_bytes(b"e" * 3000)
    rootfs.repack(folder / "bundle", f"oci:{folder}/layout:new", place, codec=Codec.parse("gzip"), observer=silent)
    tell("repacked")


def bundle_after(folder: Path, struck: Struck, strike: Strike) -> None:
    assert not struck.error or struck.error.startswith("StorageError: "), struck.error
    store = LayoutStore.create(folder / "layout")
    names = store.names()
    for root in names.values():
        assert [check.problem for check in verify(store, root) if check.problem] == []
    if "unpacked" in struck.acknowledged:
        assert (folder / "bundle/imagetool.scan").exists()
    if (folder / "bundle/imagetool.scan").exists():
        assert open_bundle(folder / "bundle").image == names["old"]
        for name in ("old-one", "old-two"):
            assert (folder / "bundle/rootfs" / name).read_bytes() == name.encode() * 500
    if "repacked" in struck.acknowledged:
        tops = load(store, names["new"]).openers()
        assert [entry.name for entry in listed(*tops[-1])] == [b"edited"]
    if struck.finished and not struck.last:
        assert sorted(os.listdir(folder / "bundle")) == ["imagetool.scan", "rootfs"]


def start_hand(folder: Path) -> None:
    place = Workplace(folder)
    store = place.store
    with store.session():
        store.tag(image_of(store, "old"), "docker.io/library/old:latest")
        store.tag(image_of(store, "old"), "old:latest")
    (folder / "file").write_text("text")


def by_hand(folder: Path, tell: Tell) -> None:
    place = Workplace(folder)
    if not place.containers.names():
        working.begin("old", working.Beginning(name="hand", epoch=1), place)
    tell("begun")
    copyinto.copy_into("hand", copyinto.Copying([str(folder / "file")], "/copied"), place)
    tell("copied")
    working.configure("hand", working.Configuration(Settings(env=["A=1"])), place)
    tell("configured")
    committing.commit("hand", committing.Committing("made"), place, after=lambda _: None)
    tell("committed")
    list(working.remove_containers(["hand"], place))
    tell("removed")


def hand_after(folder: Path, struck: Struck, strike: Strike) -> None:
    assert not struck.error or struck.error.startswith("StorageError: "), struck.error
    place = Workplace(folder)
    found = dict(place.containers.records())
    assert set(found) <= {"hand"}
    if "begun" in struck.acknowledged and not struck.finished and "committed" not in struck.acknowledged:
        assert found, "the container is gone"
    if "removed" in struck.acknowledged:
        assert not found
    place.store.collect(keep=place.needed())
    for record in found.values():
        for layer in record.layers:
            names = [entry.name for entry in listed(opener(place.store, layer), "layer")]
            assert names
        own = record.state.layers[record.state.base_layers :]
        assert ("copied" in struck.acknowledged) <= bool(own)
        assert ("configured" in struck.acknowledged) <= (record.state.run.environment.get("A") == "1")
    names = place.store.names()
    assert ("committed" in struck.acknowledged) <= ("made:latest" in names)
    for root in names.values():
        assert [check.problem for check in verify(place.store, root) if check.problem] == []
    if struck.finished and not struck.last:
        assert os.listdir(folder / "containers") == [".new"]
        assert os.listdir(folder / "containers/.new") == []
