"""A root whose contents nobody trusts: what is made and replaced in it, and nothing beside it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.safefs.holes import ZEROS, write_with_holes
from imagetool.safefs.root import Root
from tests.support.containers import open_files
from tests.unit.safefs.root.trees import root_only


@pytest.fixture
def root(folder: Path) -> Iterator[Root]:
    before = open_files()
    with Root(folder) as opened:
        yield opened
    assert not open_files() - before


def write(root: Root, name: bytes, *content: bytes) -> None:
    os.close(root.write_file(name, content))


KINDS = ["file", "folder", "full", "symlink", "dangling", "fifo"]


def make(folder: Path, kind: str) -> Path:
    path = folder / "x"
    match kind:
        case "file":
            path.write_text("old")
        case "folder":
            path.mkdir()
        case "full":
            (path / "deep/er").mkdir(parents=True)
            (path / "deep/file").write_text("old")
            (path / "deep/link").symlink_to("../../../canary")
        case "symlink":
            path.symlink_to("../canary/file")
        case "dangling":
            path.symlink_to("../canary/new")
        case "fifo":
            os.mkfifo(path)
    return path


@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", ["file", "folder", "symlink", "fifo", "link"])
def test_whatever_is_there_is_replaced(root: Root, folder: Path, before: str, after: str) -> None:
    path = make(folder, before)
    match after:
        case "file":
            write(root, b"x", b"new")
            assert (path.read_text(), path.is_symlink()) == ("new", False)
        case "folder":
            assert root.make_folder(b"x") is (before not in ("folder", "full"))
            assert stat.S_ISDIR(path.lstat().st_mode)
        case "symlink":
            root.symlink(b"x", b"to")
            assert os.readlink(path) == "to"
        case "fifo":
            root.device(b"x", stat.S_IFIFO | 0o600, 0)
            assert stat.S_ISFIFO(path.lstat().st_mode)
        case "link":
            (folder / "other").write_text("linked")
            root.link(b"x", b"other")
            assert path.lstat().st_ino == (folder / "other").lstat().st_ino


@pytest.mark.parametrize("kind", [*KINDS, "nothing"])
def test_whatever_is_there_is_removed(root: Root, folder: Path, kind: str) -> None:
    path = make(folder, kind)
    root.remove(b"x")
    root.remove(b"x")
    root.remove(b"x/y/z")
    assert not path.is_symlink()
    assert os.listdir(folder) == []


def test_missing_parents_are_made_whatever_the_umask(root: Root, folder: Path) -> None:
    before = os.umask(0o077)
    try:
        write(root, b"a/b/c/file", b"x")
    finally:
        os.umask(before)
    for name in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "a/b/c/file").stat().st_mode) == 0o600


def test_parents_are_found_through_links_inside_the_root_only(root: Root, folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "in").symlink_to("/real")
    (folder / "out").symlink_to("../canary")
    (folder / "up").symlink_to("../../../../../../real")
    write(root, b"in/file", b"x")
    write(root, b"up/other", b"y")
    assert sorted(os.listdir(folder / "real")) == ["file", "other"]
    with pytest.raises(OSError, match="exists"):  # the link leads to nothing inside, and is not replaced for a child
        write(root, b"out/file", b"z")
    assert root.lstat(b"out/file") is None
    root.remove(b"out/file")


def test_a_file_in_the_way_of_a_parent_is_an_error(root: Root, folder: Path) -> None:
    (folder / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        write(root, b"file/below", b"")
    with pytest.raises(NotADirectoryError):
        root.find(b"file/below")


def test_finding_makes_nothing(root: Root, folder: Path) -> None:
    for name in (b"a/b", b"a/b/c"):
        with pytest.raises(FileNotFoundError):
            root.find(name)
        assert root.lstat(name) is None
        assert root.is_plain(name) is None
    assert os.listdir(folder) == []


def test_plain_directories_are_told_from_links_to_them(root: Root, folder: Path) -> None:
    (folder / "d/e").mkdir(parents=True)
    (folder / "l").symlink_to("d")
    (folder / "f").write_text("")
    assert [root.is_plain(name) for name in (b"d", b"d/e", b"", b"l", b"l/e", b"f", b"f/x", b"no")] == [
        True, True, True, False, False, False, False, None,
    ]  # fmt: skip


def test_a_hard_link_is_to_the_link_itself_and_to_nothing_outside(root: Root, folder: Path) -> None:
    (folder / "l").symlink_to("../canary/file")
    root.link(b"hard", b"l")
    assert os.readlink(folder / "hard") == "../canary/file"
    for target in (b"../canary/file", b"no", b"a/no"):
        with pytest.raises(FileNotFoundError):
            root.link(b"x", target)
    write(root, b"same", b"1")
    root.link(b"same", b"same")
    assert (folder / "same").read_text() == "1"


def test_properties_are_set_on_links_and_not_through_them(root: Root, folder: Path) -> None:
    (folder / "l").symlink_to("../canary/file")
    root.set_times(b"l", 10**18)
    assert (folder / "l").lstat().st_mtime_ns == 10**18
    root.set_times(b"", 10**18)
    assert folder.stat().st_mtime_ns == 10**18
    with pytest.raises(OSError, match="symbolic") as refused:
        root.open(b"l")
    assert refused.value.errno == errno.ELOOP
    os.mkfifo(folder / "fifo")
    os.close(root.open(b"fifo"))  # and does not wait for a writer
    root.set_node_mode(b"fifo", 0o641)
    assert stat.S_IMODE((folder / "fifo").stat().st_mode) == 0o641


@root_only
def test_owners_are_set_on_links_and_not_through_them(root: Root, folder: Path) -> None:
    (folder / "l").symlink_to("../canary/file")
    root.set_owner(b"l", 5, 6)
    assert ((folder / "l").lstat().st_uid, (folder / "l").lstat().st_gid) == (5, 6)


@root_only
def test_devices(root: Root, folder: Path) -> None:
    root.device(b"d/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    status = (folder / "d/null").lstat()
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, os.makedev(1, 3))


def test_the_remembered_parent_is_forgotten_when_it_goes(root: Root, folder: Path) -> None:
    write(root, b"d/one", b"1")
    root.remove(b"d")
    write(root, b"d/two", b"2")
    assert os.listdir(folder / "d") == ["two"]
    root.symlink(b"d", b"../canary/d")
    with pytest.raises(OSError, match="exists"):
        write(root, b"d/file", b"3")


def test_the_way_back_up_and_to_the_side_is_the_same_as_from_the_root(root: Root, folder: Path) -> None:
    names = [b"a/b/c/f", b"a/b/f", b"a/f", b"f", b"a/b/c/d/f2", b"a/bc/f", b"a/b/f3", b"ab/f", b"a/b/c/f4"]
    deep = b"/".join([b"d"] * 40)
    before = open_files()
    for name in [*names, deep + b"/f", deep[:21] + b"/f"]:  # more directories than are held open
        os.close(root.write_file(name, [name]))
        assert (folder / os.fsdecode(name)).read_bytes() == name
    assert len(open_files() - before) <= 16


def test_the_way_leads_over_links_inside_the_root_only(root: Root, folder: Path) -> None:
    os.close(root.write_file(b"real/deep/f", [b"1"]))
    (folder / "real/link").symlink_to("/real/deep")
    (folder / "real/out").symlink_to("../../canary")
    root.find(b"real/f")  # open from here on, so that the next is one step below it
    os.close(root.write_file(b"real/link/g", [b"2"]))
    assert (folder / "real/deep/g").read_bytes() == b"2"
    root.find(b"real/f")
    with pytest.raises(FileNotFoundError):
        root.find(b"real/out/file")
    os.close(root.write_file(b"real/deep/h", [b"3"]))
    assert (folder / "real/deep/h").read_bytes() == b"3"


def test_no_directory_above_is_remembered_once_something_was_replaced(root: Root, folder: Path) -> None:
    os.close(root.write_file(b"a/b/c/f", [b"1"]))
    root.find(b"a/b/c/f")
    root.symlink(b"a/b", b"/elsewhere")
    root.make_folder(b"elsewhere")
    os.close(root.write_file(b"a/b/g", [b"2"]))
    assert (folder / "elsewhere/g").read_bytes() == b"2"


@pytest.mark.parametrize("name", [b"n" * 256, b"a/" + b"n" * 256])
def test_names_that_are_too_long_are_an_error(root: Root, folder: Path, name: bytes) -> None:
    for act in (lambda: write(root, name), lambda: root.make_folder(name), lambda: root.symlink(name, b"x")):
        with pytest.raises(OSError, match="too long"):
            act()
    write(root, b"m" * 255)


def test_an_error_while_content_comes_closes_the_file(root: Root, folder: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"begun"
        raise ValueError("the archive ends here")

    before = open_files()
    with pytest.raises(ValueError, match="ends here"):
        root.write_file(b"x", broken())
    root._forget()
    assert not open_files() - before


# -- holes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b"a"],
        [b"\0"],
        [bytes(1 << 16)],
        [b"a", bytes(1 << 16), b"b"],
        [bytes(1 << 20), b"end"],
        [ZEROS, ZEROS, b"x"],
        [ZEROS],
        [b"a" * 70000 + bytes(70000), bytes(70000) + b"b"],
        [bytes(100)] * 2000,
        [b"x" + bytes(65535), bytes(65536) + b"y"],
    ],
    ids=range(11),
)
def test_files_with_holes_read_as_they_were_written(tmp_path: Path, chunks: list[bytes]) -> None:
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    write_with_holes(fd, chunks)
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"".join(chunks)


def test_the_mode_of_a_node_is_not_set_through_a_link_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").touch(0o600)
    (tmp_path / "root/node").symlink_to(tmp_path / "outside")
    with Root(tmp_path / "root") as root, contextlib.suppress(OSError):  # a symlink has no mode
        root.set_node_mode(b"node", 0o777)
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o600


def test_a_link_in_the_place_of_a_directory_just_made_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir(0o700)
    made = os.mkdir

    def mkdir(name: bytes, mode: int, *, dir_fd: int) -> None:
        made(name, mode, dir_fd=dir_fd)
        os.rename(name, b"gone", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        os.symlink(tmp_path / "outside", name, dir_fd=dir_fd)

    with Root(tmp_path / "root") as root:
        monkeypatch.setattr(os, "mkdir", mkdir)
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            root.parent(b"d/file")
        monkeypatch.undo()
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o700
