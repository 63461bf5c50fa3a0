"""Layers and unpacked images of umoci and buildah, and ours, are the same trees."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

import pytest

from tests.support.changes import START, change
from tests.support.command import imagetool
from tests.support.peers import peer
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners")]
NEXT: list[tuple[str, bytes, object]] = [
    ("append", b"a/a", b"more"),
    ("remove", b"a/b", None),
    ("replace by symlink", b"b", b"a"),
    ("replace by dir", b"d", 0o2750),
    ("write", b"d/new", 70_000),
    ("link", b"d/new", b"d/other name"),
    ("fifo", b"pipe", 0o640),
    ("node", b"null", (0o020000, 1, 3)),
    ("chown", b"a/a", (1000, 50)),
    ("utime", b"a", 1_600_000_000_000_000_000),
]


def seconds(tree: dict[bytes, tuple[object, ...]], *, add: int) -> dict[bytes, tuple[object, ...]]:
    """Return a tree with the times that a tar header without fractions has: umoci rounds them, buildah cuts."""
    return {name: (*seen[:3], (int(str(seen[3])) + add) // 10**9, *seen[4:]) for name, seen in tree.items()}


rounded = partial(seconds, add=5 * 10**8)
cut = partial(seconds, add=0)


@pytest.fixture
def layout(tmp_path: Path) -> str:
    """An OCI layout in which `base` is an image of umoci's with one layer of everything."""
    place = f"{tmp_path}/layout"
    peer("umoci", "init", "--layout", place)
    peer("umoci", "new", "--image", f"{place}:base")
    peer("umoci", "unpack", "--image", f"{place}:base", tmp_path / "first")
    change(tmp_path / "first/rootfs", START)
    peer("umoci", "repack", "--image", f"{place}:base", tmp_path / "first")
    return place


def test_a_layer_of_umoci_unpacks_to_what_it_was_made_of(layout: str, tmp_path: Path) -> None:
    imagetool("unpack", f"oci:{layout}:base", tmp_path / "ours", root=tmp_path / "s")
    assert rounded(describe(tmp_path / "ours/rootfs")) == rounded(describe(tmp_path / "first/rootfs"))


def test_what_we_repack_umoci_unpacks_to_the_same_tree(layout: str, tmp_path: Path) -> None:
    imagetool("unpack", f"oci:{layout}:base", tmp_path / "ours", root=tmp_path / "s")
    change(tmp_path / "ours/rootfs", NEXT)
    imagetool("repack", tmp_path / "ours", f"oci:{layout}:next", root=tmp_path / "s")
    peer("umoci", "unpack", "--image", f"{layout}:next", tmp_path / "theirs")
    assert describe(tmp_path / "theirs/rootfs") == describe(tmp_path / "ours/rootfs")


def test_what_umoci_repacks_we_unpack_to_the_same_tree(layout: str, tmp_path: Path) -> None:
    peer("umoci", "unpack", "--image", f"{layout}:base", tmp_path / "theirs")
    change(tmp_path / "theirs/rootfs", NEXT)
    peer("umoci", "repack", "--image", f"{layout}:next", tmp_path / "theirs")
    imagetool("unpack", f"oci:{layout}:next", tmp_path / "ours", root=tmp_path / "s")
    wanted = describe(tmp_path / "theirs/rootfs")
    assert rounded(describe(tmp_path / "ours/rootfs")) == rounded(wanted)


def test_rootless_bundles_record_owners_as_umoci_does(layout: str, tmp_path: Path) -> None:
    peer("umoci", "unpack", "--image", f"{layout}:base", tmp_path / "theirs")
    change(tmp_path / "theirs/rootfs", [("write", b"owned", 3), ("chown", b"owned", (1000, 300))])
    peer("umoci", "repack", "--image", f"{layout}:owned", tmp_path / "theirs")
    peer("umoci", "unpack", "--rootless", "--image", f"{layout}:owned", tmp_path / "umoci")
    imagetool("unpack", "--rootless", f"oci:{layout}:owned", tmp_path / "ours", root=tmp_path / "s")
    ours, theirs = (
        os.getxattr(tmp_path / who / "rootfs/owned", "user.rootlesscontainers") for who in ("ours", "umoci")
    )
    assert ours == theirs


def test_layers_of_buildah_unpack_to_what_buildah_mounts(tmp_path: Path) -> None:
    storage = ("--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
    name = peer("buildah", *storage, "from", "scratch").strip()
    for step in (START, NEXT):
        mounted = Path(peer("buildah", *storage, "mount", name).strip())
        change(mounted, step)
        peer("buildah", *storage, "umount", name)
        peer("buildah", *storage, "commit", name, f"oci:{tmp_path}/layout:x")
    wanted = describe(Path(peer("buildah", *storage, "mount", name).strip()))
    imagetool("unpack", f"oci:{tmp_path}/layout:x", tmp_path / "ours", root=tmp_path / "s")
    assert cut(describe(tmp_path / "ours/rootfs")) == cut(wanted)
    peer("buildah", *storage, "rm", name)


MAPS = {
    "all": ("--uid-map", "0:100000:65536", "--gid-map", "0:200000:65536"),
    "several": ("--uid-map=0:1000:1", "--uid-map=1:100000:65535", "--gid-map=0:50:51", "--gid-map=51:200000:60000"),
    "users only": ("--uid-map", "0:100000:65536"),
}


@pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)
def test_mapped_ids_are_those_of_umoci_and_each_repacks_to_what_the_other_unpacks(
    maps: tuple[str, ...], layout: str, tmp_path: Path
) -> None:
    """But that access control lists and file capabilities have mapped ids, too; with umoci they are the image's."""
    base = f"{layout}:base"
    peer("umoci", "unpack", *maps, "--image", base, tmp_path / "theirs")
    imagetool("unpack", *maps, f"oci:{base}", tmp_path / "ours", root=tmp_path / "s")
    for who in ("ours", "theirs"):
        assert rounded(without_ids_in_attributes(tmp_path / who)) == rounded(
            without_ids_in_attributes(tmp_path / "theirs")
        )
        change(tmp_path / who / "rootfs", [*NEXT[:-4], ("chown", b"d/new", (100_042, 200_043))])
        for path in (b"a/a", b"d", b"b"):
            os.chown(os.fsencode(tmp_path / who / "rootfs") + b"/" + path, 100_005, 200_006, follow_symlinks=False)
        os.utime(tmp_path / who / "rootfs/a/a", ns=(5 * 10**9, 5 * 10**9))
    peer("umoci", "repack", "--image", f"{layout}:theirs", tmp_path / "theirs")
    imagetool("repack", tmp_path / "ours", f"oci:{layout}:ours", root=tmp_path / "s")
    for tag in ("ours", "theirs"):
        imagetool("unpack", f"oci:{layout}:{tag}", tmp_path / f"again {tag}", root=tmp_path / "s")
    one, other = (
        {name: (*seen[:3], *seen[4:]) for name, seen in describe(tmp_path / f"again {tag}/rootfs").items()}
        for tag in ("ours", "theirs")
    )
    assert one == other
    status = os.lstat(tmp_path / "again ours/rootfs/d/new")
    assert (status.st_uid, status.st_gid) == ((42, 43) if maps == MAPS["all"] else (status.st_uid, status.st_gid))


def without_ids_in_attributes(bundle: Path) -> dict[bytes, tuple[object, ...]]:
    tree = describe(bundle / "rootfs")
    return {
        name: (*seen[:5], tuple(pair for pair in seen[5] if pair[0].startswith(b"user.")), *seen[6:])  # type: ignore[attr-defined]
        for name, seen in tree.items()
    }


def test_rootless_bundles_are_those_of_umoci_but_for_devices(layout: str, tmp_path: Path) -> None:
    peer("umoci", "unpack", "--image", f"{layout}:base", tmp_path / "first again")
    change(tmp_path / "first again/rootfs", [*NEXT, ("write", b"owned", 3), ("chown", b"owned", (1000, 300))])
    peer("umoci", "repack", "--image", f"{layout}:owned", tmp_path / "first again")
    peer("umoci", "unpack", "--rootless", "--image", f"{layout}:owned", tmp_path / "theirs")
    imagetool("unpack", "--rootless", f"oci:{layout}:owned", tmp_path / "ours", root=tmp_path / "s")
    one, other = (rounded(describe(tmp_path / who / "rootfs")) for who in ("ours", "theirs"))
    assert stat.S_ISREG(int(str(other.pop(b"null")[0])))  # which would be repacked as an empty file
    assert stat.S_ISCHR(int(str(one.pop(b"null")[0])))
    assert one == other
