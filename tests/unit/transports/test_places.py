"""Images written to and read from every place on disk; layouts and directories."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.errors import NotFound, StorageError, UsageError
from imagetool.image.image import load
from imagetool.image.verify import verify
from imagetool.oci.platform import Platform
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from tests.support.images import add_image, add_index
from tests.support.workshop import texts
from tests.unit.transports.conftest import FILES, got, image, put

PLACES = ["oci:{}/x", "oci:{}/x:tag", "oci-archive:{}/x.tar", "oci-archive:{}/x.tar:tag", "docker-archive:{}/x.tar",
          "docker-archive:{}/x.tar:team/app:1", "dir:{}/x", "aci:{}/x.aci"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_an_image_comes_back_from_everywhere(around: Surroundings, tmp_path: Path, place: str) -> None:
    memory = MemoryStore()
    before = image(memory, "a", "b")
    there = place.format(tmp_path)
    for _ in range(2):  # the second time over the first
        put(there, memory, before.descriptor, around)
    after, files = got(there, around)
    assert files == FILES
    assert after.config.run == before.config.run
    if not place.startswith("aci:"):
        assert after.config.raw == before.config.raw
        assert [each.diff_id for each in after.layers] == [each.diff_id for each in before.layers]
    if not place.startswith(("aci:", "docker-archive:")):
        assert after.descriptor == before.descriptor


@pytest.mark.parametrize("place", [place for place in PLACES if not place.startswith("oci:")])
def test_a_copy_that_fails_leaves_what_was_there_and_nothing_else(
    around: Surroundings, tmp_path: Path, place: str
) -> None:
    memory = MemoryStore()
    good, bad = image(memory, "a", "b"), image(memory, "c", "d")
    del memory.blobs[bad.layers[1].descriptor.digest]
    there = place.format(tmp_path)

    def seen() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "root" not in path.parts
        }

    with pytest.raises(NotFound):
        put(there, memory, bad.descriptor, around)
    assert seen() == {}
    put(there, memory, good.descriptor, around)
    before = seen()
    with pytest.raises(NotFound):
        put(there, memory, bad.descriptor, around)
    assert seen() == before
    assert got(there, around)[1] == FILES


@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_there_is_one_clear_error(around: Surroundings, tmp_path: Path, place: str) -> None:
    there = place.format(tmp_path)
    transport, rest = find(there)
    with pytest.raises(NotFound) as refused, transport.source(rest, around):
        pass
    assert str(tmp_path / "x") in str(refused.value)


# -- several in one ----------------------------------------------------------------------------


def test_several_images_in_one_layout(around: Surroundings, tmp_path: Path) -> None:
    memory = MemoryStore()
    images = {name: image(memory, name) for name in "abc"}
    for name, each in images.items():
        put(f"oci:{tmp_path}/x:{name}", memory, each.descriptor, around)
    for name, each in images.items():
        assert got(f"oci:{tmp_path}/x:{name}", around)[0].descriptor == each.descriptor
        assert got(f"oci:{tmp_path}/x:{each.descriptor.digest}", around)[1] == {f"d/{name}": name}
    for rest, words in (("", "holds 3 images; name one: a, b, c"), (":d", "no image named 'd'")):
        transport, path = find(f"oci:{tmp_path}/x{rest}")
        with pytest.raises(NotFound, match=words), transport.source(path, around):
            pass


def test_an_archive_of_a_layout_with_several_images(around: Surroundings, tmp_path: Path) -> None:
    memory = MemoryStore()
    for name in "ab":
        put(f"oci:{tmp_path}/x:{name}", memory, image(memory, name).descriptor, around)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "x", ".")
    assert got(f"oci-archive:{tmp_path}/x.tar:b", around)[1] == {"d/b": "b"}
    transport, rest = find(f"oci-archive:{tmp_path}/x.tar")
    with pytest.raises(NotFound, match="holds 2 images; name one: a, b"), transport.source(rest, around):
        pass


@pytest.mark.parametrize("place", ["oci:{}/x:multi", "oci-archive:{}/x.tar", "dir:{}/x"])
def test_an_index_keeps_all_its_images(around: Surroundings, tmp_path: Path, place: str) -> None:
    memory = MemoryStore()
    root = add_index(memory, ["linux/amd64", "linux/arm64"])
    put(place.format(tmp_path), memory, root, around)
    transport, rest = find(place.format(tmp_path))
    with transport.source(rest, around) as source:
        assert source.root == root
        for name in ("linux/amd64", "linux/arm64"):
            wanted = load(memory, root, platform=Platform.parse(name))
            found = load(source.store, source.root, platform=Platform.parse(name))
            assert found.manifest == wanted.manifest


def test_a_layout_may_not_be_made_among_other_files(around: Surroundings, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    memory = MemoryStore()
    root = add_image(memory)
    for place in ("oci", "dir"):
        with pytest.raises(UsageError, match=r"not empty.*thesis\.txt"):
            put(f"{place}:{tmp_path}/mine", memory, root, around)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


# -- dir ---------------------------------------------------------------------------------------


def test_a_directory_has_the_form_that_skopeo_writes(around: Surroundings, tmp_path: Path) -> None:
    memory = MemoryStore()
    before = image(memory, "a", "b")
    put(f"dir:{tmp_path}/x", memory, before.descriptor, around)
    blobs = [before.config.descriptor, *(each.descriptor for each in before.layers)]
    wanted = {each.digest.hex: memory.blobs[each.digest] for each in blobs}
    wanted |= {"version": b"Directory Transport Version: 1.1\n", "manifest.json": before.manifest.raw}
    assert {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()} == wanted


def test_another_image_takes_the_place_of_the_one_before(around: Surroundings, tmp_path: Path) -> None:
    memory = MemoryStore()
    first, second = image(memory, "a", "b"), image(memory, "b", "c")
    put(f"dir:{tmp_path}/x", memory, first.descriptor, around)
    (tmp_path / "x/signature-1").write_text("of somebody")
    put(f"dir:{tmp_path}/x", memory, second.descriptor, around)
    assert got(f"dir:{tmp_path}/x", around)[0].descriptor == second.descriptor
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert first.layers[0].descriptor.digest.hex not in names
    assert "signature-1" in names


@pytest.mark.parametrize("damage", ["gone", "changed", "short"])
def test_a_damaged_blob_of_a_directory_is_found(around: Surroundings, tmp_path: Path, damage: str) -> None:
    memory = MemoryStore()
    before = image(memory, "a")
    put(f"dir:{tmp_path}/x", memory, before.descriptor, around)
    blob = tmp_path / "x" / before.layers[0].descriptor.digest.hex
    data = blob.read_bytes()
    if damage == "gone":
        blob.unlink()
    else:
        blob.write_bytes({"changed": b"x" + data[1:], "short": data[:-1]}[damage])
    transport, rest = find(f"dir:{tmp_path}/x")
    with transport.source(rest, around) as source:
        problems = [check.descriptor for check in verify(source.store, source.root) if check.problem]
    assert problems == [before.layers[0].descriptor]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
@pytest.mark.parametrize("name", ["oci-layout", "index.json", "manifest.json", "blob"])
def test_what_stands_in_the_place_of_a_file_is_refused_and_not_waited_for(
    around: Surroundings, tmp_path: Path, name: str, kind: str
) -> None:
    memory = MemoryStore()
    before = image(memory, "a")
    place = "dir" if name == "manifest.json" else "oci"
    put(f"{place}:{tmp_path}/x", memory, before.descriptor, around)
    blob = before.layers[0].descriptor.digest.hex
    path = tmp_path / "x" / (f"blobs/sha256/{blob}" if name == "blob" else name)
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
    transport, rest = find(f"{place}:{tmp_path}/x")
    with pytest.raises(StorageError, match="cannot read"), transport.source(rest, around) as source:
        texts(load(source.store, source.root))
