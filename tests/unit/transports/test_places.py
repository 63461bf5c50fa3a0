"""Images written to and read from every place on disk."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.errors import ImagetoolError, InvalidArchive, NotFound, StorageError, UsageError
from imagetool.image.image import Image, load
from imagetool.image.verify import verify
from imagetool.image.write import write_image, write_layer
from imagetool.layer.tarcodec import write
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.transfer import copy
from imagetool.transports import Surroundings, find
from tests.support.acicheck import check_aci
from tests.support.images import add_image, add_index
from tests.support.tars import write_archive
from tests.support.workshop import file, folder, link, texts
from tests.unit.transports.conftest import Notes


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


CODECS = [bytes, gzip.compress, bz2.compress, lzma.compress]
FILES = {"d/a": "a", "d/b": "b"}
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


# -- docker-archive ----------------------------------------------------------------------------


def saved(*names: str, tags: list[str] | None = None) -> tuple[dict[str, Any], list[bytes], bytes]:
    """Return the entry of manifest.json, the layers as plain tars, and the config of an image."""
    memory = MemoryStore()
    before = image(memory, *names)
    tars = [gzip.decompress(memory.blobs[each.descriptor.digest]) for each in before.layers]
    layers = [f"{each.diff_id.hex}/layer.tar" for each in before.layers]
    entry = {"Config": f"{before.config.descriptor.digest.hex}.json", "RepoTags": tags, "Layers": layers}
    return entry, tars, before.config.raw


def old_style(path: Path, squeeze: Callable[[bytes], bytes] = bytes) -> None:
    """Write what docker save did before OCI layouts: a folder for each layer, links for layers that are the same."""
    entry, tars, config = saved("a", "b", "a", tags=["team/app:1", "team/app:latest"])
    first, second, _ = entry["Layers"]
    entry["Layers"] = [first, second, "third/layer.tar"]
    members: dict[str, bytes | tuple[bytes, str]] = {
        "third/layer.tar": (tarfile.SYMTYPE, "../fourth/layer.tar"),  # a link to a link, before what it leads to
        "fourth/layer.tar": (tarfile.SYMTYPE, f"../{first}"),
        "third/VERSION": b"1.0",
        "third/json": b"{}",
        "repositories": b"{}",
        first: squeeze(tars[0]),
        second: squeeze(tars[1]),
        entry["Config"]: config,
        "manifest.json": json.dumps([entry]).encode(),
    }
    write_archive(path, members)


@pytest.mark.parametrize("squeeze", CODECS)
@pytest.mark.parametrize("whole", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_an_archive_of_the_old_style(
    around: Surroundings, tmp_path: Path, squeeze: Callable[[bytes], bytes], whole: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "x.tar"
    old_style(path, squeeze)
    path.write_bytes(whole(path.read_bytes()))
    for name in ("", ":team/app:1", ":team/app", ":docker.io/team/app:latest"):
        found, files = got(f"docker-archive:{path}{name}", around)
        assert files == FILES
        assert len(found.layers) == 3
        assert found.layers[0] == found.layers[2]


def test_one_of_several_is_named(around: Surroundings, tmp_path: Path) -> None:
    members: dict[str, bytes | tuple[bytes, str]] = {}
    entries = []
    for name, tags in (("a", ["<none>:<none>", "a:1"]), ("b", ["b:1", "b:2"]), ("c", None)):
        entry, tars, config = saved(name, tags=tags)
        entries.append(entry)
        members |= {entry["Layers"][0]: tars[0], entry["Config"]: config}
    write_archive(tmp_path / "x.tar", members | {"manifest.json": json.dumps(entries).encode()})
    assert got(f"docker-archive:{tmp_path}/x.tar:b:2", around)[1] == {"d/b": "b"}
    for rest, words in (
        ("", "3 images, one must be named: a:1, b:1, b:2"),
        (":d", "3 images, none is 'd'; it has: a:1"),
    ):
        transport, path = find(f"docker-archive:{tmp_path}/x.tar{rest}")
        with pytest.raises(NotFound, match=words), transport.source(path, around):
            pass


def test_both_readers_read_what_is_written(around: Surroundings, tmp_path: Path) -> None:
    memory = MemoryStore()
    before = image(memory, "a", "b")
    put(f"docker-archive:{tmp_path}/x.tar:team/app:1", memory, before.descriptor, around)
    assert got(f"oci-archive:{tmp_path}/x.tar:1", around)[0].descriptor == before.descriptor
    assert got(f"docker-archive:{tmp_path}/x.tar:team/app:1", around)[1] == FILES
    with tarfile.open(tmp_path / "x.tar") as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        (entry,) = json.load(member)
    assert entry["RepoTags"] == ["team/app:1"]


SECRET = "outside/secret"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"../outside/secret": b"x"}, "'..'"),
        ({"a/../../outside/secret": b"x"}, "'..'"),
        ({"l": (tarfile.SYMTYPE, "../outside/secret")}, "outside the archive"),
        ({"l": (tarfile.SYMTYPE, "/etc/passwd")}, "outside the archive"),
        ({"l": (tarfile.LNKTYPE, "/etc/passwd"), "manifest.json": b"[]"}, "0 images"),  # below the root: not there
        ({"a/l": (tarfile.LNKTYPE, "../outside")}, "'..'"),
        ({"a": (tarfile.SYMTYPE, "b"), "b": (tarfile.SYMTYPE, "a")}, "too many links"),
        ({"manifest.json": b'[{"Config":"/etc/hostname","Layers":[]}]'}, "is not in the archive"),
        ({"manifest.json": b'[{"Config":"../../../etc/hostname","Layers":[]}]'}, "is not in the archive"),
        ({"manifest.json": b"[]"}, "0 images"),
        ({"manifest.json": b"{}"}, "images is an object"),
        ({"manifest.json": b"[1]"}, "expected an object"),
        ({"x": b""}, "no manifest.json"),
    ],
)
def test_archives_that_reach_out_or_say_nothing_are_refused(
    around: Surroundings, tmp_path: Path, members: dict[str, Any], words: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / SECRET).write_text("secret")
    write_archive(tmp_path / "x.tar", members)
    transport, rest = find(f"docker-archive:{tmp_path}/x.tar")
    with pytest.raises(ImagetoolError) as refused, transport.source(rest, around):
        pass
    assert words in str(refused.value)
    assert (tmp_path / SECRET).read_text() == "secret"
    assert sorted(os.listdir(tmp_path / "outside")) == ["secret"]


def test_absolute_members_stay_in_the_scratch_space(around: Surroundings, tmp_path: Path) -> None:
    entry, tars, config = saved("a")
    members = {entry["Layers"][0]: tars[0], entry["Config"]: config, "manifest.json": json.dumps([entry]).encode()}
    write_archive(
        tmp_path / "x.tar", {f"{tmp_path}/canary": b"x", **{f"/{name}": data for name, data in members.items()}}
    )
    assert got(f"docker-archive:{tmp_path}/x.tar", around)[1] == {"d/a": "a"}
    assert not (tmp_path / "canary").exists()


def test_a_layer_that_is_not_the_configs_is_refused(around: Surroundings, tmp_path: Path) -> None:
    entry, _, config = saved("a")
    other = saved("b")[1][0]
    write_archive(
        tmp_path / "x.tar",
        {entry["Layers"][0]: other, entry["Config"]: config, "manifest.json": json.dumps([entry]).encode()},
    )
    transport, rest = find(f"docker-archive:{tmp_path}/x.tar")
    with pytest.raises(InvalidArchive, match="has diff ID"), transport.source(rest, around):
        pass


def test_a_layout_planted_in_an_archive_is_no_ones_store(around: Surroundings, tmp_path: Path) -> None:
    entry, tars, config = saved("a")
    members: dict[str, bytes | tuple[bytes, str]] = {
        ".layout/oci-layout": b"{}",
        ".layout/index.json/x": b"",
        ".layout/blobs": b"",
        "layout/oci-layout": b"{}",
        entry["Layers"][0]: tars[0],
        entry["Config"]: config,
        "manifest.json": json.dumps([entry]).encode(),
    }
    write_archive(tmp_path / "x.tar", members)
    assert got(f"docker-archive:{tmp_path}/x.tar", around)[1] == {"d/a": "a"}


@pytest.mark.parametrize("cut", [1, 512, 1500])
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_an_archive_that_was_cut_off_is_refused(around: Surroundings, tmp_path: Path, kind: str, cut: int) -> None:
    memory = MemoryStore()
    put(f"docker-archive:{tmp_path}/x.tar", memory, image(memory, "a").descriptor, around)
    data = (tmp_path / "x.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "x.tar").write_bytes(data[:-cut])
    transport, rest = find(f"{kind}:{tmp_path}/x.tar")
    with pytest.raises(ImagetoolError), transport.source(rest, around) as source:
        assert all(not check.problem for check in verify(source.store, source.root))


def test_a_folder_that_cannot_be_written_to_is_a_storage_error(around: Surroundings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    memory = MemoryStore()
    root = add_image(memory)
    for place in ("oci", "dir", "oci-archive", "docker-archive", "aci"):
        if place == "aci":
            root = image(memory, "a").descriptor
        with pytest.raises(StorageError):
            put(f"{place}:{tmp_path}/file/below", memory, root, around)


# -- aci ---------------------------------------------------------------------------------------


def test_an_aci_is_strictly_valid_and_the_same_every_time(around: Surroundings, tmp_path: Path, notes: Notes) -> None:
    memory = MemoryStore()
    before = image(memory, "a", "b", run=RunConfig(cmd=("x",), stop_signal="9", exposed_ports=("http",)))
    identities = set()
    for name in ("My App.aci", "again/My App.aci"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        put(f"aci:{tmp_path}/{name}", memory, before.descriptor, around)
        identity, manifest = check_aci(tmp_path / name)
        identities.add((identity, (tmp_path / name).read_bytes()))
        assert manifest["name"] == "my-app"
    assert len(identities) == 1
    assert [line.split(":")[1].split()[0] for line in notes[:2]] == ["StopSignal", "ExposedPorts"]


def aci(path: Path, members: list[tuple[str, bytes, bytes | str]], squeeze: Callable[[bytes], bytes] = bytes) -> None:
    """Write an ACI of (name, type, content or target) entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, what in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(what, str):
                member.linkname = what
            else:
                member.size = len(what)
            tar.addfile(member, io.BytesIO(what) if isinstance(what, bytes) and kind == tarfile.REGTYPE else None)
    path.write_bytes(squeeze(out.getvalue()))


MANIFEST = json.dumps(
    {"acKind": "ImageManifest", "acVersion": "0.8.1", "name": "a--b",
     "app": {"user": "0", "group": "0", "exec": ["/f"]},
     "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}]}
).encode()  # fmt: skip
FILE, DIR, LINK, SYMLINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
ROOTFS: list[tuple[str, bytes, bytes | str]] = [("rootfs", DIR, b""), ("rootfs/f", FILE, b"text")]
NOTE: tuple[str, bytes, bytes | str] = ("manifest", FILE, MANIFEST)


@pytest.mark.parametrize("squeeze", CODECS)
@pytest.mark.parametrize("members", [[NOTE, *ROOTFS], [*ROOTFS, NOTE],
    [("./", DIR, b""), ("./manifest", FILE, MANIFEST), ("./rootfs/", DIR, b""), ("./rootfs/f", FILE, b"text")],
    [ROOTFS[1], ROOTFS[0], NOTE]],
    ids=["manifest first", "manifest last", "dots", "rootfs late"])  # fmt: skip
def test_acis_of_others(
    around: Surroundings,
    tmp_path: Path,
    members: list[tuple[str, bytes, bytes | str]],
    squeeze: Callable[[bytes], bytes],
) -> None:
    aci(tmp_path / "x.aci", members, squeeze)
    found, files = got(f"aci:{tmp_path}/x.aci", around)
    assert files == {"f": "text"}
    assert found.config.run.entrypoint == ("/f",)


#: What actool makes of each, and what it is for us: with every row of the reference that is about the archive.
ROWS: list[tuple[str, list[tuple[str, bytes, bytes | str]], bool, str]] = [
    ("two rootfs entries", [NOTE, *ROOTFS, ROOTFS[0]], True, "there twice"),
    ("a third name", [NOTE, *ROOTFS, ("rootfsfoo", FILE, b"")], True, "neither the manifest nor below rootfs"),
    ("a hard link to the manifest", [NOTE, *ROOTFS, ("rootfs/m", LINK, "manifest")], True, "outside rootfs"),
    ("a way up that stays", [NOTE, *ROOTFS, ("rootfs/a/../b", FILE, b"")], True, "'..'"),
    ("a duplicate path", [NOTE, *ROOTFS, ROOTFS[1]], False, "there twice"),
    ("a duplicate directory", [NOTE, *ROOTFS, ("rootfs/d", DIR, b""), ("rootfs/d/", DIR, b"")], False, "there twice"),
    ("no entry for rootfs", [NOTE, ROOTFS[1]], False, "must hold a manifest and a rootfs directory"),
    ("a symlink as rootfs", [NOTE, ("rootfs", SYMLINK, "/")], False, "neither the manifest nor below rootfs"),
    ("a way out", [NOTE, *ROOTFS, ("rootfs/../../x", FILE, b"")], False, "'..'"),
    ("bytes behind the JSON", [("manifest", FILE, MANIFEST + b"x"), *ROOTFS], False, "manifest"),
    ("two manifests in one", [("manifest", FILE, MANIFEST * 2), *ROOTFS], False, "manifest"),
    ("two manifests", [NOTE, NOTE, *ROOTFS], False, "there twice"),
    ("no manifest", ROOTFS, False, "must hold a manifest and a rootfs directory"),
    ("a manifest that is a link", [("manifest", SYMLINK, "rootfs/f"), *ROOTFS], False, "neither the manifest"),
    ("a hard link outside", [NOTE, *ROOTFS, ("rootfs/m", LINK, "/etc/passwd")], True, "outside rootfs"),
    ("a whiteout's name", [NOTE, *ROOTFS, ("rootfs/.wh.f", FILE, b"")], True, "begins with .wh."),
]


@pytest.mark.parametrize(("members", "words"), [row[1::2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_archives_that_are_refused_also_where_actool_lets_them_pass(
    around: Surroundings, tmp_path: Path, members: list[tuple[str, bytes, bytes | str]], words: str
) -> None:
    aci(tmp_path / "x.aci", members)
    transport, rest = find(f"aci:{tmp_path}/x.aci")
    with pytest.raises(ImagetoolError) as refused, transport.source(rest, around):
        pass
    assert words in str(refused.value)
    assert str(tmp_path / "x.aci") in str(refused.value)


@pytest.mark.parametrize("name", [row[0] for row in ROWS if not row[2]])
def test_the_independent_checker_refuses_what_actool_does(tmp_path: Path, name: str) -> None:
    aci(tmp_path / "x.aci", next(row[1] for row in ROWS if row[0] == name))
    with pytest.raises((AssertionError, ValueError)):
        check_aci(tmp_path / "x.aci")


def test_what_an_aci_loses_is_told(around: Surroundings, tmp_path: Path, notes: Notes) -> None:
    tree = json.loads(MANIFEST) | {"dependencies": [{"imageName": "example.com/base"}], "pathWhitelist": ["/f"]}
    aci(tmp_path / "x.aci", [("manifest", FILE, json.dumps(tree).encode()), *ROOTFS])
    got(f"aci:{tmp_path}/x.aci", around)
    assert [line.split()[2] for line in notes if line.startswith("not carried:")] == ["dependencies", "pathWhitelist"]


def test_an_app_that_runs_as_the_owner_of_a_file_gets_its_numbers(around: Surroundings, tmp_path: Path) -> None:
    tree = json.loads(MANIFEST)
    tree["app"] |= {"user": "/link", "group": "/d/f"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, uid, gid in (("rootfs", DIR, 0, 0), ("rootfs/d", DIR, 1, 1), ("rootfs/d/f", FILE, 1000, 50)):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid = kind, uid, gid
            tar.addfile(member)
        member = tarfile.TarInfo("rootfs/link")
        member.type, member.linkname = SYMLINK, "/d/../d/f"
        tar.addfile(member)
        member = tarfile.TarInfo("manifest")
        member.size = len(raw := json.dumps(tree).encode())
        tar.addfile(member, io.BytesIO(raw))
    (tmp_path / "x.aci").write_bytes(out.getvalue())
    assert got(f"aci:{tmp_path}/x.aci", around)[0].config.run.user == "1000:50"
