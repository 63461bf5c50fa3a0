"""docker-archive: what docker save wrote at all times, and archives that nobody wrote in good faith."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.errors import ImagetoolError, InvalidArchive, NotFound, StorageError
from imagetool.image.verify import verify
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from tests.support.images import add_image
from tests.support.tars import write_archive
from tests.unit.transports.conftest import CODECS, FILES, got, image, put


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
        ({"repositories": b"{}", "aa/layer.tar": b""}, "no manifest.json, only what docker wrote before 1.10"),
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
