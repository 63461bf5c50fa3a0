"""Finding the image that a command line names, and what the larger verbs refuse or make of it."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.errors import InvalidReference, NotFound, Unsupported, UsageError
from imagetool.image.image import Image, load
from imagetool.image.write import write_image, write_layer
from imagetool.layer.tarcodec import write
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index
from imagetool.oci.platform import Platform
from imagetool.progress import Event, Note, silent
from imagetool.runtime.imageprocess import Wishes
from imagetool.streams.codecs import Codec
from imagetool.transfer import copy
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.values import replace
from imagetool.verbs.bundle import SYSTEMS, BundleOptions, bundle, save
from imagetool.verbs.images import found_image
from imagetool.verbs.rootfs import compare, entries, repack, squash, unpack
from imagetool.verbs.volumes import Volume
from tests.support.acicheck import check_aci
from tests.support.workshop import file, folder, link, texts


class OneRepository(MemoryStore):
    """A repository of a registry, in memory."""

    def fetch_root(self, reference: str) -> Descriptor:
        return self.resolve(reference)


class Registries(dict[str, OneRepository]):
    """Every repository there is; remembers which were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    @contextmanager
    def __call__(self, registry: str, repository: str) -> Iterator[Any]:
        self.asked.append(f"{registry}/{repository}")
        if self.asked[-1] not in self:
            raise NotFound(f"{self.asked[-1]} is not there")
        yield self[self.asked[-1]]


@pytest.fixture
def registries() -> Registries:
    return Registries()


@pytest.fixture
def around(tmp_path: Path, registries: Registries) -> Iterator[Surroundings]:
    yield Surroundings(LayoutStore.create(tmp_path / "root"), tmp_path / "scratch", registries, 315_532_800)
    assert not (tmp_path / "scratch").exists() or not os.listdir(tmp_path / "scratch")


def image(store: MemoryStore, *names: str, platform: Platform | None = None) -> Image:
    layers = [
        write_layer(write([folder("d"), file(f"d/{name}", name), link(f"l{name}", "d")]), store, Codec())
        for name in names
    ]
    config = ImageConfig.make(
        platform=platform or Platform(),
        run=RunConfig(cmd=("/d/a",), labels={"k": "v"}),
        diff_ids=[each.diff_id for each in layers],
        history=[History("2020-01-01T00:00:00Z", name) for name in names],
        created="2020-01-01T00:00:00Z",
    )
    return load(store, write_image(store, config, layers).descriptor)


def local(around: Surroundings, name: str, *names: str, platform: Platform | None = None) -> Image:
    """Put an image into the local store."""
    memory = MemoryStore()
    made = image(memory, *names, platform=platform)
    copy(memory, around.store, made.descriptor, tags=[name])
    return made


# -- found -------------------------------------------------------------------------------------


def test_a_local_image_is_found_without_a_registry(around: Surroundings, registries: Registries) -> None:
    made = local(around, "team/app:1", "a")
    for text in ("team/app:1", "docker.io/team/app:1", str(made.descriptor.digest), made.descriptor.digest.hex[:12]):
        with found_image(text, around, observer=silent) as (found, name):
            assert found.descriptor == made.descriptor
            assert name == "team/app:1"
    assert registries.asked == []


def test_an_image_that_is_not_there_is_pulled_once_and_kept(around: Surroundings, registries: Registries) -> None:
    repository = registries["docker.io/library/app"] = OneRepository()
    made = image(repository, "a", "b")
    repository.tag(made.descriptor, "latest")
    events: list[Event] = []
    for _ in range(2):
        with found_image("app", around, observer=events.append) as (found, name):
            assert (found.descriptor, name) == (made.descriptor, "app:latest")
            assert texts(found) == {"d/a": "a", "d/b": "b"}
    assert registries.asked == ["docker.io/library/app"]
    assert [event.text for event in events if isinstance(event, Note)] == ["pulling app"]
    assert around.store.resolve("app:latest").digest == made.descriptor.digest


def test_an_image_that_is_here_for_another_platform_only_is_said_to_be_when_it_cannot_be_pulled(
    around: Surroundings,
) -> None:
    foreign = image(around.store, "a", platform=Platform(architecture="s390x")).descriptor
    index = Index.make([replace(foreign, platform=Platform(architecture="s390x"))])
    root = push_bytes(around.store, index.raw, index.media_type)
    around.store.tag(root, "app:1")
    with pytest.raises(NotFound, match="is not there") as refused, found_image("app:1", around, observer=silent):
        pass
    (note,) = refused.value.__notes__
    assert note.startswith("hint: in the local store, ")
    assert note.endswith("has no image for linux/amd64; it has: linux/s390x")


def test_an_image_that_is_nowhere_is_not_found_and_leaves_nothing(around: Surroundings, registries: Registries) -> None:
    with pytest.raises(NotFound, match="is not there"), found_image("localhost:5000/x:1", around, observer=silent):
        pass
    assert registries.asked == ["localhost:5000/x"]
    assert around.store.names() == {}


@pytest.mark.parametrize("text", ["UPPER", "a b", "a:b:c", ""])
def test_what_is_no_name_is_asked_of_no_registry(around: Surroundings, registries: Registries, text: str) -> None:
    with pytest.raises((InvalidReference, NotFound)), found_image(text, around, observer=silent):
        pass
    assert registries.asked == []


def test_a_registrys_image_is_named_as_it_was_asked_for(around: Surroundings, registries: Registries) -> None:
    repository = registries["localhost:5000/x"] = OneRepository()
    made = image(repository, "a")
    repository.tag(made.descriptor, "1")
    with found_image("docker://localhost:5000/x:1", around, observer=silent) as (_, name):
        assert name == "localhost:5000/x:1"
    assert around.store.names() == {}  # looked at, not pulled


def test_an_image_without_a_name_goes_by_its_digest(around: Surroundings, tmp_path: Path) -> None:
    made = local(around, "a:1", "a")
    transport, rest = find(f"oci:{tmp_path}/x")
    with transport.destination(rest, around) as target:
        copy(around.store, target.store, made.descriptor, tags=target.tags)
    with found_image(f"oci:{tmp_path}/x", around, observer=silent) as (_, name):
        assert name == str(made.descriptor.digest)


# -- bundle and save ---------------------------------------------------------------------------


def test_a_system_that_is_not_there_is_told_with_those_that_are(around: Surroundings, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        bundle("a", tmp_path / "x", "vmware", around)
    assert all(name in str(refused.value) for name in SYSTEMS)
    with pytest.raises(UsageError, match="there are docker, oci and aci"):
        save(["a"], tmp_path / "x", around, format="tar", observer=silent)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("system", ["docker", "podman", "containerd", "rkt"])
@pytest.mark.parametrize(
    "wishes", [{"args": ("x",)}, {"entrypoint": ()}, {"env": {"A": "1"}}, {"user": "5"}, {"cwd": "/"}]
)
def test_an_archive_of_the_image_as_it_is_takes_no_wishes(
    around: Surroundings, tmp_path: Path, system: str, wishes: dict[str, Any]
) -> None:
    local(around, "a:1", "a")
    with pytest.raises(UsageError, match=f"--for {system} writes the image as it is"):
        bundle("a:1", tmp_path / "x", system, around, BundleOptions(wishes=Wishes(**wishes)))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("format_", ["docker", "oci", "aci"])
def test_what_is_saved_can_be_read_back(around: Surroundings, tmp_path: Path, format_: str) -> None:
    made = local(around, "team/app:1", "a", "b")
    path = tmp_path / "x.tar"
    for _ in range(2):  # an archive is replaced
        save(["team/app:1"], path, around, format=format_, observer=silent)
    place = f"aci:{path}" if format_ == "aci" else f"{format_}-archive:{path}"
    transport, rest = find(place)
    with transport.source(rest, around) as source:
        found = load(source.store, source.root)
        assert texts(found) == {"d/a": "a", "d/b": "b"}
        assert found.config.run == made.config.run
    if format_ == "aci":
        _, manifest = check_aci(path)
        assert manifest["name"] == "team/app"
        assert {"name": "version", "value": "1"} in manifest["labels"]
    else:
        with tarfile.open(path) as tar:
            member = tar.extractfile("manifest.json")
            assert member is not None
            assert json.load(member)[0]["RepoTags"] == ["team/app:1"]
    assert sorted(set(os.listdir(tmp_path)) - {"scratch"}) == ["root", "x.tar"]


def test_the_path_of_an_archive_may_not_hold_a_colon(around: Surroundings, tmp_path: Path) -> None:
    local(around, "a:1", "a")
    with pytest.raises(UsageError, match="cannot hold a colon"):
        save(["a:1"], tmp_path / "x:y.tar", around, observer=silent)


@pytest.mark.parametrize("system", ["oci", "nspawn", "chroot", "lxc"])
def test_a_bundle_appears_whole_or_not_at_all(around: Surroundings, tmp_path: Path, system: str) -> None:
    local(around, "win:1", "a", platform=Platform("windows", "amd64"))
    place = tmp_path / "out/bundle"
    with pytest.raises(Unsupported, match="windows"):
        bundle("win:1", place, system, around)
    assert os.listdir(tmp_path / "out") == []
    place.mkdir()
    (place / "mine").write_text("x")
    local(around, "a:1", "a")
    with pytest.raises(UsageError, match="is there already"):
        bundle("a:1", place, system, around)
    assert os.listdir(place) == ["mine"]


# -- root filesystems --------------------------------------------------------------------------


def test_layers_are_listed_by_number_and_by_digest(around: Surroundings) -> None:
    made = local(around, "a:1", "a", "b")
    second = made.layers[1]
    wanted = [b"d", b"d/b", b"lb"]
    for text in ("2", str(second.diff_id), second.diff_id.hex[:20], str(second.descriptor.digest)):
        assert [each.name for each in entries("a:1", around, layer=text)] == wanted
    assert [each.name for each in entries("a:1", around)] == [b"d", b"d/a", b"d/b", b"la", b"lb"]


@pytest.mark.parametrize("text", ["0", "3", "-1", "", "x", "٢", "1.0", "00001", "sha256:", "abc", "f" * 64])
def test_what_names_no_layer_is_refused(around: Surroundings, text: str) -> None:
    local(around, "a:1", "a", "b")
    with pytest.raises(UsageError, match="give a number from 1 to 2"):
        list(entries("a:1", around, layer=text))


def test_two_images_are_compared(around: Surroundings) -> None:
    local(around, "a:1", "a", "b")
    local(around, "a:2", "a", "c")
    found = compare("a:1", "a:2", around)
    assert (len(found.common), [*found.total.added], [*found.total.removed]) == (1, [b"d/c", b"lc"], [b"d/b", b"lb"])
    assert compare("a:1", "a:1", around).total.is_empty


def test_squashing_keeps_the_files_the_settings_and_the_story(around: Surroundings) -> None:
    made = local(around, "a:1", "a", "b")
    root = squash("a:1", "a:2", around, codec=Codec(), observer=silent)
    found = load(around.store, around.store.resolve("a:2"))
    assert found.descriptor.digest == root.digest
    assert texts(found) == texts(load(around.store, made.descriptor))
    assert found.config.run == made.config.run
    assert len(found.layers) == 1
    assert [(step.created_by, step.empty_layer) for step in found.config.history] == [
        ("a", True),
        ("b", True),
        ("imagetool squash", False),
    ]
    again = squash("a:1", "a:3", around, codec=Codec(), observer=silent)
    assert again.digest == root.digest


def test_an_unpacked_image_is_edited_and_packed_again(around: Surroundings, tmp_path: Path) -> None:
    made = local(around, "a:1", "a", "b")
    place = tmp_path / "bundle"
    rootless = os.geteuid() != 0
    unpack("a:1", place, around, platform=None, rootless=rootless, sync=False, observer=silent)
    assert repack(place, "a:2", around, codec=Codec(), observer=silent).layer is None
    assert around.store.resolve("a:2").digest == made.descriptor.digest
    (place / "rootfs/d/a").write_text("new")
    (place / "rootfs/d/b").unlink()
    (place / "rootfs/new").symlink_to("d")
    done = repack(place, "a:3", around, codec=Codec(), comment="by hand", observer=silent)
    assert done.layer is not None
    found = load(around.store, around.store.resolve("a:3"))
    assert found.descriptor == done.image
    assert texts(found) == {"d/a": "new"}
    assert [each.name for each in entries("a:3", around, layer="3")] == [b"d", b"d/.wh.b", b"d/a", b"new"]
    assert found.config.history[-1].comment == "by hand"
    assert load(around.store, made.descriptor).layers == found.layers[:2]


def test_a_bundle_whose_image_is_gone_cannot_be_packed(around: Surroundings, tmp_path: Path) -> None:
    local(around, "a:1", "a")
    unpack("a:1", tmp_path / "bundle", around, platform=None, rootless=os.geteuid() != 0, sync=False, observer=silent)
    around.store.untag("a:1")
    with pytest.raises(NotFound, match="a:1"):
        repack(tmp_path / "bundle", "a:2", around, codec=Codec(), observer=silent)


def test_three_digits_of_a_digest_are_too_few(around: Surroundings) -> None:
    made = local(around, "a:1", "a", "b")
    with pytest.raises(UsageError, match="give a number"):
        list(entries("a:1", around, layer=made.layers[1].diff_id.hex[:3]))


# -- volumes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source", "target", "mode"),
    [
        ("/a:/b", "/a", "/b", "rw"),
        ("/a:/b:ro", "/a", "/b", "ro"),
        ("/a:/b:readonly", "/a", "/b", "ro"),
        ("/a:/b:rw,Z", "/a", "/b", "rw"),
        ("/a:/b:z,ro", "/a", "/b", "ro"),
        ("./a:/b", "/here/a", "/b", "rw"),
        (".:/b", "/here", "/b", "rw"),
        ("../a/../x:/b", "/x", "/b", "rw"),
    ],
)
def test_volumes(text: str, source: str, target: str, mode: str) -> None:
    found = Volume.parse(text, folder=Path("/here"))
    assert (str(found.source), found.target, found.mode) == (source, target, mode)


@pytest.mark.parametrize("text", ["/a", "/a:", ":/b", "name:/b", "/a:b", "/a:/", "/a://", "/a:/b:rx", "/a:/b:ro:x", ""])
def test_volumes_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="--volume"):
        Volume.parse(text, folder=Path("/here"))
