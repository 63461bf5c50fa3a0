"""What is removed in a root whose contents nobody trusts, and nothing beside it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.safefs import root as safefs_root
from imagetool.safefs.root import remove_tree
from tests.support.containers import open_files
from tests.unit.safefs.root.trees import deep, root_only

# -- removal of hostile trees ------------------------------------------------------------------


def remove(folder: Path, name: bytes) -> None:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        remove_tree(fd, name)
    finally:
        os.close(fd)


def test_a_tree_deeper_than_any_path_is_removed(folder: Path) -> None:
    deep(folder, "d" * 200, 400)
    before = open_files()
    remove(folder, b"d" * 200)
    assert os.listdir(folder) == []
    assert not open_files() - before


def test_directories_that_allow_nothing_are_removed(folder: Path) -> None:
    for mode in (0o000, 0o100, 0o200, 0o400, 0o500, 0o600):
        path = folder / "x" / f"{mode:o}" / "child"
        path.mkdir(parents=True)
        (path / "file").write_text("x")
        path.chmod(mode)
        path.parent.chmod(mode)
    (folder / "x").chmod(0)
    remove(folder, b"x")
    assert os.listdir(folder) == []


def test_links_in_a_tree_are_removed_and_not_followed(folder: Path) -> None:
    (folder / "x/y").mkdir(parents=True)
    (folder / "x/l").symlink_to("../../canary")
    (folder / "x/y/l").symlink_to("/")
    (folder / "x/y/loop").symlink_to(".")
    os.mkfifo(folder / "x/y/fifo")
    os.link(folder.parent / "canary/file", folder / "x/hard")
    remove(folder, b"x")
    assert os.listdir(folder) == []
    (folder / "l").symlink_to("../canary")
    remove(folder, b"l")
    assert os.listdir(folder) == []


def test_nothing_to_remove_is_fine(folder: Path) -> None:
    remove(folder, b"no")


@root_only
@pytest.mark.root
def test_a_mount_in_a_tree_is_an_error_and_the_tree_around_it_stays_reachable(folder: Path, tmp_path: Path) -> None:
    (folder / "x/mount").mkdir(parents=True)
    command = (
        "mount -t tmpfs none x/mount && mkdir x/mount/d && touch x/mount/d/f &&"
        " exec python3 -c 'import os; from imagetool.safefs.root import remove_tree as r;"
        ' fd = os.open(".", os.O_PATH | os.O_DIRECTORY)\n'
        'try: r(fd, b"x")\n'
        "except OSError as error: print(error.errno)'"
    )
    import subprocess
    import sys

    command = command.replace("python3", sys.executable)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str(errno.EBUSY), done.stderr
    remove(folder, b"x")
    assert os.listdir(folder) == []


def test_a_directory_that_is_moved_out_while_it_is_removed_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root/a/b/c").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    emptied = safefs_root._empty

    def empty(fd: int) -> Iterator[bytes]:
        found = list(emptied(fd))
        if found == [b"c"]:
            (tmp_path / "root/a/b").rename(tmp_path / "outside/b")
        return iter(found)

    monkeypatch.setattr(safefs_root, "_empty", empty)
    folder = os.open(tmp_path / "root", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="was moved while it was removed"):
            remove_tree(folder, b"a")
    finally:
        os.close(folder)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["b"]


def test_removing_does_not_descend_into_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to("outside")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            safefs_root._descend(folder, b"link")
    finally:
        os.close(folder)
