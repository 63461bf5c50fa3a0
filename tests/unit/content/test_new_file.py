"""Files that users name: links stay links, and what others have open or what is a device is never replaced."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.cli.resultfiles import forget
from imagetool.content.staging import new_file, write_file
from imagetool.errors import StorageError


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """A directory as /dev is: names of what this process has open are links into /proc."""
    (tmp_path / "fd").symlink_to("/proc/self/fd")
    return tmp_path


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    (tmp_path / "one").symlink_to("there/two")
    (tmp_path / "there" / "two").symlink_to("old")
    write_file(tmp_path / "one", b"new")
    assert (tmp_path / "one").is_symlink()
    assert (tmp_path / "there" / "two").is_symlink()
    assert (tmp_path / "there" / "old").read_text() == "new"
    assert sorted(os.listdir(tmp_path / "there")) == ["old", "two"]


def test_a_link_that_leads_nowhere_yet_gets_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="Too many levels of symbolic links"):
        write_file(tmp_path / "a", b"new")


@pytest.mark.parametrize("name", ["stdout", "fd/{number}"])
def test_an_open_file_is_written_to_where_it_ends_and_its_name_stays_a_link(devices: Path, name: str) -> None:
    with open(devices / "out", "w+b") as out:
        out.write(b"before ")
        out.flush()
        (devices / "stdout").symlink_to(f"/proc/self/fd/{out.fileno()}")
        inode = os.fstat(out.fileno()).st_ino
        write_file(devices / name.format(number=out.fileno()), b"after")
    assert (devices / "stdout").is_symlink()
    assert (devices / "out").read_bytes() == b"before after"
    assert (devices / "out").stat().st_ino == inode
    assert sorted(os.listdir(devices)) == ["fd", "out", "stdout"]


def test_a_pipe_by_its_name_is_written_to(devices: Path) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as out, open(writer, "wb"):
        write_file(devices / "fd" / str(writer), b"bytes")
        assert out.read(5) == b"bytes"


@pytest.mark.root
def test_a_device_stays_one(tmp_path: Path) -> None:
    null = tmp_path / "null"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    write_file(null, b"bytes")
    forget(str(null))
    assert stat.S_ISCHR(null.lstat().st_mode)


def test_a_block_that_fails_leaves_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")

    def writing() -> None:
        with new_file(tmp_path / "link") as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        writing()
    assert (tmp_path / "link").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_forgetting_an_earlier_image_id_removes_a_file_only(devices: Path) -> None:
    (devices / "id").write_text("sha256:old")
    (devices / "link").symlink_to("id")
    forget(str(devices / "link"))
    assert (devices / "link").is_symlink()
    assert not (devices / "id").exists()
    with open(devices / "out", "wb") as out:
        forget(str(devices / "fd" / str(out.fileno())))
        (devices / "stdout").symlink_to(f"/proc/self/fd/{out.fileno()}")
        forget(str(devices / "stdout"))
    assert (devices / "stdout").is_symlink()
    assert (devices / "out").exists()


def test_image_ids_go_where_a_shell_sends_stdout(tmp_path: Path) -> None:
    """Of a machine's own /dev/stdout nothing may be replaced, whoever we are."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV a=1\n")
    before = os.lstat("/dev/stdout")
    command = [sys.executable, "-m", "imagetool", "--root", tmp_path / "store", "build", "-q", tmp_path]
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([*command, "--iidfile", "/dev/stdout"], stdout=out, check=True)
    assert (tmp_path / "out").read_text().count("sha256:") == 2
    after = os.lstat("/dev/stdout")
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
