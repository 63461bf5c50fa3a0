"""Tools of other projects agree with what we write."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.command import imagetool, registry
from tests.support.peers import docker_registry, peer

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    root = folder / "store"
    imagetool("base", "busybox", root=root)
    (folder / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN mkdir -p /d/e && echo x > /d/e/f && ln /d/e/f /d/hard && ln -s e/f /d/soft && chmod 6755 /d/e/f\n"
        'RUN rm /d/hard && rm -r /d/e && echo file > /d/e && mkfifo /d/fifo\nCMD ["cat", "/d/e"]\n'
    )
    imagetool("build", "-t", "demo:1", folder, root=root)
    return root


def test_skopeo_reads_the_local_store_and_every_archive(store: Path, tmp_path: Path) -> None:
    digest = json.loads(imagetool("inspect", "demo:1", root=store).stdout)["digest"]
    assert json.loads(peer("skopeo", "inspect", f"oci:{store}/layout:demo:1"))["Digest"] == digest
    for name in ("oci-archive:", "docker-archive:", "dir:", "oci:"):
        target = f"{name}{tmp_path / name.strip(':')}"
        imagetool("copy", "demo:1", target, root=store)
        peer("skopeo", "copy", target, f"oci:{tmp_path}/back-{name.strip(':')}:x")


def test_skopeo_and_buildah_pull_from_our_registry(store: Path, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        imagetool("push", "demo:1", f"docker://{address}/a/demo:1", root=store)
        peer("skopeo", "copy", "--src-tls-verify=false", f"docker://{address}/a/demo:1", f"oci:{tmp_path}/pulled:x")
        peer("skopeo", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/pulled:x", f"docker://{address}/b/other:2")
        imagetool("pull", f"{address}/b/other:2", root=store)
        storage = ("--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
        peer("buildah", *storage, "pull", "--tls-verify=false", f"docker://{address}/a/demo:1")


def test_umoci_unpacks_to_the_tree_we_unpack(store: Path, tmp_path: Path) -> None:
    imagetool("copy", "demo:1", f"oci:{tmp_path}/layout:x", root=store)
    peer("umoci", "unpack", "--image", f"{tmp_path}/layout:x", tmp_path / "bundle")
    (tmp_path / "again").mkdir()
    (tmp_path / "again/Dockerfile").write_text("FROM demo:1\n")
    imagetool("build", "-o", f"type=local,dest={tmp_path}/ours", tmp_path / "again", root=store)
    listing = "find . -printf '%P %y %m %U %G %l %T@\\n' | sort"
    theirs = subprocess.run(listing, shell=True, cwd=tmp_path / "bundle/rootfs", capture_output=True, check=True).stdout
    ours = subprocess.run(listing, shell=True, cwd=tmp_path / "ours", capture_output=True, check=True).stdout
    assert [line for line in ours.splitlines() if not line.startswith(b" d")] == [
        line for line in theirs.splitlines() if not line.startswith(b" d")
    ]


def test_our_client_and_debians_registry(store: Path, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as host:
        digest = imagetool("push", "demo:1", f"docker://{host}/x/demo:1", root=store).stdout
        pulled = imagetool("pull", f"{host}/x/demo:1", root=tmp_path / "other").stdout
    assert pulled == digest
