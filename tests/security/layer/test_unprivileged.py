"""Layers unpacked by an ordinary user: what cannot be set is said, and what was made can be removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.errors import StorageError
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, unpack
from tests.security.layer.hostile import ROOT, ignore, link
from tests.support.tars import END, chunks, extended, file, header, record
from tests.support.trees import describe


def run_as_nobody(work: Callable[[], None]) -> int:
    """Run `work` in a child without privileges; return its status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if ROOT:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def open_place(tmp_path: Path) -> Path:
    """A directory that an ordinary user can reach and write, if it was made by root."""
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            os.chmod(path, path.stat().st_mode | 0o711)
    target = tmp_path / "unprivileged"
    target.mkdir()
    os.chmod(target, 0o777)
    return target


PRIVILEGED = (
    header(b"owned", uid=12, gid=34, mode=0o644)
    + header(b"setuid", uid=0, gid=0, mode=0o6755)
    + header(b"null", b"3", device=(1, 3))
    + extended(b"x", record(b"SCHILY.xattr.trusted.x", b"1") + record(b"SCHILY.xattr.user.y", b"2"))
    + header(b"attributes")
    + header(b"locked/", b"5", mode=0o555)
    + file(b"locked/inside", b"x")
    + header(b"shut/", b"5", mode=0)
    + file(b"shut/inside", b"x")
    + link(b"sym", b"owned")
)


def test_without_privileges_what_cannot_be_set_is_left_out_with_one_warning_each(open_place: Path) -> None:
    def work() -> None:
        warnings: list[str] = []
        items = read(chunks(PRIVILEGED + END), where="l")
        unpack(items, open_place, where="l", ownership=Ownership(lenient=True), warn=warnings.append)
        (open_place / "warnings").write_text("\n".join(warnings))

    assert run_as_nobody(work) == 0
    tree = describe(open_place)
    assert b"null" not in tree
    assert tree[b"setuid"][1] == 0o755, "a set-id bit for an owner the file does not have"
    assert tree[b"locked"][1] == 0o555
    assert tree[b"shut"][1] == 0
    assert tree[b"attributes"][5] == ((b"user.y", b"2"),)
    assert b"locked/inside" in tree
    assert tree[b"sym"][4] == b"owned"
    warnings = (open_place / "warnings").read_text().splitlines()
    assert len(warnings) == 4, warnings
    assert all(word in "\n".join(warnings) for word in ("owner", "device", "set-id", "trusted.x"))


def test_without_privileges_and_leniency_the_entry_is_named(open_place: Path) -> None:
    def work() -> None:
        items = read(chunks(header(b"owned", uid=12, gid=34) + END), where="layer 7")
        with pytest.raises(StorageError, match=r"layer 7: owned: .*owner 12:34.*run as root"):
            unpack(items, open_place, where="layer 7", warn=ignore)

    assert run_as_nobody(work) == 0


def test_what_an_ordinary_user_unpacked_can_be_removed_by_it(open_place: Path) -> None:
    def work() -> None:
        lenient = Ownership(owners=False, lenient=True)
        tar = header(b"d/", b"5", mode=0) + file(b"d/e/f", b"x") + header(b"d/e/", b"5", mode=0o555)
        unpack(read(chunks(tar + END), where="l"), open_place, where="l", ownership=lenient, warn=ignore)
        assert stat.S_IMODE(os.lstat(open_place / "d").st_mode) == 0
        hide = read(chunks(file(b".wh.d") + END), where="l")
        unpack(hide, open_place, where="l", ownership=lenient, warn=ignore)

    assert run_as_nobody(work) == 0
    assert list(open_place.iterdir()) == []
