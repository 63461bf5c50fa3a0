"""What containerd's stargz-snapshotter makes for lazy pulling is verified and unpacked as what it was made of."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.support.bases import unpack_image
from tests.support.command import imagetool
from tests.support.systems import containerd, need, run, short_folder
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.peer]

NAME = "docker.io/library/made:1"
#: What the converter adds to the tars of layers.
ADDED = (b".no.prefetch.landmark", b"stargz.index.json")


def fill(tree: Path) -> None:
    """Make one of every kind of entry that a table of contents knows."""
    (tree / "d/deep" / ("long" * 40)).mkdir(parents=True)
    (tree / "big").write_bytes(random.Random(1).randbytes(5 << 20))  # in several chunks
    (tree / "d/small").write_text("x")
    (tree / "d/gone").write_text("to be removed")
    (tree / "empty").touch()
    os.link(tree / "d/small", tree / "hard")
    os.symlink("d/small", tree / "name with ä")
    os.mkfifo(tree / "fifo", 0o640)
    os.mknod(tree / "device", 0o20600, os.makedev(5, 1))
    os.setxattr(tree / "big", "user.name", b"\0\xff")
    os.chown(tree / "d/small", 5, 70000)
    os.chmod(tree / "d/small", 0o4751)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A store with an image of two layers, the second with marks and a file that stands for another."""
    context, root = tmp_path / "context", tmp_path / "root"
    fill(context / "tree")
    run("tar", "--xattrs", "-cf", context / "tree.tar", "-C", context / "tree", ".")
    (context / "Dockerfile").write_text('FROM scratch\nADD tree.tar /\nCMD ["/d/small"]\n')
    imagetool("build", "-t", NAME, context, root=root)
    place = tmp_path / "edited"
    imagetool("unpack", NAME, place, root=root)
    (place / "rootfs/d/gone").unlink()
    shutil.rmtree(place / "rootfs/d/deep")
    (place / "rootfs/hard").write_text("another")
    imagetool("repack", place, NAME, root=root)
    return root


@pytest.mark.parametrize("options", [("--estargz", "--estargz-chunk-size", "1048576"), ("--zstdchunked",)])
def test_what_it_converts_is_verified_and_unpacks_to_the_same_files(
    options: tuple[str, ...], image: Path, tmp_path: Path
) -> None:
    need("containerd", "ctr-remote")
    imagetool("save", "-o", tmp_path / "a.tar", NAME, root=image)
    with short_folder() as folder, containerd(folder) as socket:
        remote = ["ctr-remote", "-a", socket, "images"]
        run(*remote, "import", tmp_path / "a.tar")
        run(*remote, "convert", "--oci", *options, NAME, "docker.io/library/lazy:1")
        run(*remote, "export", tmp_path / "lazy.tar", "docker.io/library/lazy:1")
    place = f"oci-archive:{tmp_path / 'lazy.tar'}"
    manifest = json.loads(imagetool("inspect", "--raw", place, root=image).stdout)
    assert all("containerd.io/snapshot/stargz/toc.digest" in one["annotations"] for one in manifest["layers"])
    imagetool("verify", place, root=image)
    imagetool("copy", place, "lazy:1", root=image)
    made = describe(unpack_image(image, NAME, tmp_path / "made"))
    lazy = describe(unpack_image(image, "lazy:1", tmp_path / "lazy"))
    for name in ADDED:
        lazy.pop(name, None)
    assert lazy.keys() == made.keys()
    assert {name: lazy[name] for name in lazy if lazy[name] != made[name]} == {}
    assert b"d/gone" not in made
    assert b"d/small" in made
