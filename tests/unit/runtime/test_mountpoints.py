"""Where a path of the image leads, without ever leaving the root; and what is taken away again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.runtime.mountpoints import Maker, canonical, remove
from tests.support.containers import tree


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/etc/hosts", "etc/hosts"),
        ("/absolute/x", "real/x"),
        ("/relative/x", "real/x"),
        ("/climbing/x", "real/x"),
        ("/dangling", "run/systemd/stub"),
        ("/../../etc//./hosts", "etc/hosts"),
        ("/deep/down/../up", "deep/up"),
        ("/", ""),
        ("/real/..", ""),
    ],
)
def test_links_and_dots_stay_inside(tmp_path: Path, root: int, path: str, leads: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "absolute").symlink_to("/real")
    (tmp_path / "relative").symlink_to("real")
    (tmp_path / "climbing").symlink_to("../../../../real")
    (tmp_path / "dangling").symlink_to("../run/systemd/stub")
    assert canonical(root, path) == leads


def test_circles_and_files_on_the_way_are_refused(tmp_path: Path, root: int) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Too many levels"):
        canonical(root, "/a/x")
    with pytest.raises(NotADirectoryError):
        canonical(root, "/file/x")


def made(root: int, *paths: str) -> Maker:
    maker = Maker(root, root)
    for path in paths:
        maker.mount(path, folder=path.endswith("/"), attach=None)
    return maker


def test_what_was_made_is_taken_away_with_all_times_as_before(tmp_path: Path, root: int) -> None:
    (tmp_path / "etc").mkdir()
    os.utime(tmp_path / "etc", ns=(1, 1))
    os.utime(tmp_path, ns=(2, 2))
    before = tree(tmp_path)
    maker = made(root, "/proc/", "/etc/resolv.conf", "/run/a/b/c", "/run/a/d/")
    assert {"proc", "etc/resolv.conf", "run/a/b/c", "run/a/d"} <= tree(tmp_path).keys()
    remove(root, maker.gained())
    assert tree(tmp_path) == before
    assert tmp_path.stat().st_mtime_ns == 2


def test_what_the_step_used_stays(tmp_path: Path, root: int) -> None:
    maker = made(root, "/etc/resolv.conf", "/kept/", "/written", "/replaced/", "/renamed/x")
    gained = maker.gained()
    (tmp_path / "kept/file").write_text("mine")
    (tmp_path / "written").write_text("mine")
    (tmp_path / "replaced").rmdir()
    (tmp_path / "replaced").symlink_to("/etc")
    (tmp_path / "renamed").rename(tmp_path / "other")
    (tmp_path / "renamed").symlink_to("other")
    remove(root, gained)
    assert sorted(os.listdir(tmp_path)) == ["kept", "other", "renamed", "replaced", "written"]
    assert os.listdir(tmp_path / "other") == ["x"]


def test_a_mount_point_of_the_wrong_kind_is_refused(tmp_path: Path, root: int) -> None:
    (tmp_path / "proc").touch()
    (tmp_path / "hosts").mkdir()
    with pytest.raises(NotADirectoryError):
        made(root, "/proc/")
    with pytest.raises(IsADirectoryError):
        made(root, "/hosts")
    with pytest.raises(OSError, match="cannot be mounted over"):
        made(root, "/")
    with pytest.raises(OSError, match="cannot be mounted over"):
        made(root, "/new/..")
