"""Of an index, what is asked for is pulled and the rest is left: the name means the index all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.image.image import this_platform
from imagetool.image.write import write_image, write_layer
from imagetool.layer.tarcodec import write
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.transfer import copy
from tests.support.command import imagetool, registry
from tests.support.workshop import file

HERE = str(this_platform())
OTHERS = ["linux/s390x", "linux/riscv64"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with registry(tmp_path / "registry") as address:
        yield address


@pytest.fixture
def index(tmp_path: Path, server: str) -> Descriptor:
    """Push an index of three platforms as team/app:1."""
    memory = MemoryStore()
    entries = []
    for name in [HERE, *OTHERS]:
        layers = [write_layer(write([file(f"{name}-{number}")]), memory, Codec()) for number in range(2)]
        config = ImageConfig.make(
            platform=Platform.parse(name),
            run=RunConfig(),
            diff_ids=[layer.diff_id for layer in layers],
            history=[],
            created="",
        )
        image = write_image(memory, config, layers).descriptor
        entries.append(Descriptor(image.media_type, image.digest, image.size, platform=Platform.parse(name)))
    raw = Index.make(entries).raw
    made = push_bytes(memory, raw, Index.make(entries).media_type)
    layout = LayoutStore.create(tmp_path / "layout")
    copy(memory, layout, made, tags=("all",))
    imagetool("copy", f"oci:{tmp_path}/layout:all", f"docker://{server}/team/app:1", root=tmp_path / "other")
    return made


def platforms(root: Path, name: str) -> dict[str, str]:
    """Return what `verify` says of an index's images: ok, or absent."""
    found = json.loads(imagetool("verify", "--json", name, root=root).stdout)
    images = [entry for entry in found if entry["what"] in ("manifest", "absent")]
    return {entry["digest"]: entry["what"] for entry in images}


def test_a_pull_takes_this_machines_image_under_the_indexs_digest(
    tmp_path: Path, server: str, index: Descriptor
) -> None:
    root = tmp_path / "store"
    assert imagetool("pull", f"{server}/team/app:1", root=root).stdout.strip() == str(index.digest)
    assert sorted(platforms(root, f"{server}/team/app:1").values()) == ["absent", "absent", "manifest"]
    assert len(list((root / "layout" / "blobs" / "sha256").iterdir())) == 1 + 1 + 1 + 2
    config = json.loads(imagetool("inspect", "--config", f"{server}/team/app:1", root=root).stdout)
    assert f"linux/{config['architecture']}" == HERE


def test_further_platforms_join_and_all_can_be_had(tmp_path: Path, server: str, index: Descriptor) -> None:
    root, name = tmp_path / "store", f"{server}/team/app:1"
    imagetool("pull", name, root=root)
    imagetool("pull", "--platform", OTHERS[0], name, root=root)
    assert sorted(platforms(root, name).values()) == ["absent", "manifest", "manifest"]
    refused = imagetool("push", name, f"{server}/elsewhere/app:1", root=root, check=False)
    assert refused.returncode == 3
    assert f"it lacks {OTHERS[1]}" in refused.stderr
    assert "--all-platforms" in refused.stderr
    imagetool("pull", "--all-platforms", name, root=root)
    assert sorted(platforms(root, name).values()) == ["manifest"] * 3
    pushed = imagetool("push", name, f"{server}/elsewhere/app:1", root=root)
    assert pushed.stdout.strip() == str(index.digest)


def test_what_was_pulled_for_one_platform_is_pushed_as_that_image(
    tmp_path: Path, server: str, index: Descriptor
) -> None:
    root, name = tmp_path / "store", f"{server}/team/app:1"
    imagetool("pull", "--platform", OTHERS[1], name, root=root)
    done = imagetool("push", name, f"{server}/elsewhere/app:1", root=root)
    assert f"only the image for {OTHERS[1]} is here" in done.stderr
    assert done.stdout.strip() != str(index.digest)
    raw = json.loads(imagetool("inspect", "--raw", f"docker://{server}/elsewhere/app:1", root=root).stdout)
    assert "manifests" not in raw


@pytest.mark.parametrize("pull", ["missing", "always", "newer"])
def test_a_build_pulls_its_platform_only_and_each_build_its_own(
    tmp_path: Path, server: str, index: Descriptor, pull: str
) -> None:
    root, name = tmp_path / "store", f"{server}/team/app:1"
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nENV a=1\n")
    for count, platform in ((1, HERE), (2, OTHERS[0])):
        imagetool("build", f"--pull={pull}", "--platform", platform, "-t", "built", tmp_path, root=root)
        config = json.loads(imagetool("inspect", "--config", "built", root=root).stdout)
        assert f"linux/{config['architecture']}" == platform
        assert list(platforms(root, name).values()).count("manifest") == count


def test_a_platform_that_is_not_here_is_told_with_what_brings_it(
    tmp_path: Path, server: str, index: Descriptor
) -> None:
    root, name = tmp_path / "store", f"{server}/team/app:1"
    imagetool("pull", name, root=root)
    done = imagetool("ls", "--platform", OTHERS[0], name, root=root, check=False)
    assert done.returncode == 3
    assert f"`imagetool pull --platform {OTHERS[0]} NAME` brings it" in done.stderr


def test_an_index_without_this_machines_image_says_what_it_has(tmp_path: Path, server: str, index: Descriptor) -> None:
    done = imagetool("pull", "--platform", "windows/amd64", f"{server}/team/app:1", root=tmp_path / "s", check=False)
    assert done.returncode == 3
    assert "has no image for windows/amd64; it has: linux/" in done.stderr
