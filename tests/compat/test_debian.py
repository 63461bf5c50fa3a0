"""Other people's tools see the same Debian image as we do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bases import unpack_image
from tests.support.command import imagetool, registry
from tests.support.peers import peer
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(300)]


def test_umoci_unpacks_to_the_same_tree(debian_images: Path, tmp_path: Path) -> None:
    imagetool("copy", "stage:1", f"oci:{tmp_path}/layout:x", root=debian_images)
    peer("umoci", "unpack", "--image", f"{tmp_path}/layout:x", tmp_path / "bundle")
    theirs = describe(tmp_path / "bundle/rootfs")
    ours = describe(unpack_image(debian_images, "stage:1", tmp_path / "ours"))
    assert len(ours) > 5000
    assert {
        name: (ours.get(name), theirs.get(name))
        for name in ours.keys() | theirs.keys()
        if ours.get(name) != theirs.get(name)
    } == {}


def test_skopeo_copies_from_our_layout_and_registry_without_a_change(debian_images: Path, tmp_path: Path) -> None:
    digest = json.loads(imagetool("inspect", "stage:1", root=debian_images).stdout)["digest"]
    peer("skopeo", "copy", f"oci:{debian_images}/layout:stage:1", f"oci:{tmp_path}/copied:x")
    assert json.loads(peer("skopeo", "inspect", f"oci:{tmp_path}/copied:x"))["Digest"] == digest
    with registry(tmp_path / "registry") as address:
        to, back = "--dest-tls-verify=false", "--src-tls-verify=false"
        peer("skopeo", "copy", to, f"oci:{tmp_path}/copied:x", f"docker://{address}/a/stage:1")
        shown = json.loads(peer("skopeo", "inspect", "--tls-verify=false", f"docker://{address}/a/stage:1"))
        assert shown["Digest"] == digest
        assert shown["RepoTags"] == ["1"]
        peer("skopeo", "copy", back, f"docker://{address}/a/stage:1", f"dir:{tmp_path}/dir")
        assert imagetool("pull", f"{address}/a/stage:1", root=tmp_path / "store").stdout.strip() == digest
    assert "FAILED" not in imagetool("verify", f"dir:{tmp_path}/dir", root=tmp_path / "store").stdout
