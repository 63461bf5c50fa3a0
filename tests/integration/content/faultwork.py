"""What is done to a store while its disk fails, and what must hold afterwards: run by `test_faults`, in a process.

python -m tests.integration.content.faultwork WORK STRIKE FOLDER
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from imagetool.build.cache import FolderCache, Result
from imagetool.build.settings import Settings
from imagetool.content.layout import LayoutStore
from imagetool.content.staging import storage_errors
from imagetool.content.store import push_bytes
from imagetool.image.image import Layer, load, opener
from imagetool.image.verify import verify
from imagetool.image.write import write_layer
from imagetool.layer.entry import Entry
from imagetool.layer.merge import Opener
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest
from imagetool.oci.platform import Platform
from imagetool.progress import silent
from imagetool.snapshot.bundle import open_bundle
from imagetool.snapshot.overlay import OverlaySnapshotter
from imagetool.streams.codecs import Codec
from imagetool.transfer import copy
from imagetool.transports import Surroundings, find
from imagetool.verbs import committing, copyinto, rootfs, working
from imagetool.verbs.workplace import Workplace
from tests.support import tars
from tests.support.faults import STRIKES, Strike, Struck, each_point

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


@dataclass(frozen=True)
class Case:
    start: Callable[[Path], None]
    work: Callable[[Path, Tell], None]
    check: Callable[[Path, Struck, Strike], None]
    points: int  # at least
    strikes: tuple[Strike, ...] = STRIKES


CASES = {
    "build and tag": Case(start, build_and_tag, names_after, 45),
    "tag over": Case(start, tag_over, names_after, 5),
    "untag and collect": Case(start, untag_and_collect, names_after, 9),
    "make": Case(lambda folder: folder.mkdir(), make, made_after, 50),
    "cache": Case(start_cache, cache, cached_after, 9),
    "snapshots": Case(start_snapshots, unpack_and_discard, snapshots_after, 30),
    **{
        place.partition(":")[0]: Case(start_copies, partial(send_new, place), partial(sent_after, place), points)
        for place, points in DESTINATIONS.items()
    },
    "by hand": Case(start_hand, by_hand, hand_after, 60),
    "unpack and repack": Case(start_bundle, unpack_and_repack, bundle_after, 20),
}


def main(name: str, strike: Strike, folder: Path) -> None:
    """Let the disk fail at every point of a case; after each failure the same work must succeed."""
    case = CASES[name]
    case.start(folder / "template")

    def check(place: Path, struck: Struck) -> None:
        case.check(place, struck, strike)
        told: list[str] = []
        case.work(place, told.append)
        case.check(place, Struck(True, told, "", ""), strike)

    points = each_point(folder / "template", folder, strike, case.work, check)
    assert points >= case.points, f"only {points} points were found: is everything watched?"
    print(points)


if __name__ == "__main__":
    assert sys.argv[2] in STRIKES
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))  # type: ignore[arg-type]
