"""Files get what their entries say, whatever the process or the directory would have given them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.layer.diff import diff_directory
from imagetool.layer.directory import Scan, scan_directory
from imagetool.layer.entry import Entry
from imagetool.layer.rootless import OWNER, render_owner
from imagetool.layer.unpack import Ownership, unpack
from tests.support.changes import ACL
from tests.support.users import as_user, users_folder

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files of others")
MODES = (0o000, 0o400, 0o644, 0o664, 0o755, 0o777, 0o1644, 0o4755, 0o2711)
OWN = os.geteuid(), os.getegid()


def apply(target: Path, *entries: Entry, attributed: set[int] | None = None) -> None:
    def warn(text: str) -> None:
        raise AssertionError(text)

    unpack([(entry, ()) for entry in entries], target, where="t", attributed=attributed, warn=warn)


def file(name: str, mode: int = 0o644, owner: tuple[int, int] = OWN, **more: object) -> Entry:
    return Entry(name.encode(), "file", mode, *owner, **more)  # type: ignore[arg-type]


def stated(path: Path) -> tuple[int, int, int, int]:
    status = os.lstat(path)
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_modes_do_not_depend_on_the_umask(umask: int, tmp_path: Path) -> None:
    entries = [file(f"{number}-{mode:o}", mode, mtime=number) for number in range(3) for mode in MODES]
    before = os.umask(umask)
    try:
        apply(tmp_path, Entry(b"d", "dir", 0o775, *OWN), *(e._replace(name=b"d/" + e.name) for e in entries), *entries)
    finally:
        os.umask(before)
    for entry in entries:
        for name in (os.fsdecode(entry.name), "d/" + os.fsdecode(entry.name)):
            assert stated(tmp_path / name) == (entry.mode, *OWN, entry.mtime)


@root
def test_files_in_a_set_gid_directory_have_the_group_their_entries_say(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.chown(tmp_path / "d", 0, 50)
    os.chmod(tmp_path / "d", 0o2775)
    apply(tmp_path, file("a"), file("d/a"), file("d/b", owner=(7, 8)), file("d/c"), file("d/d", owner=(0, 50)))
    groups = {name: stated(tmp_path / name)[1:3] for name in ("a", "d/a", "d/b", "d/c", "d/d")}
    assert groups == {"a": (0, 0), "d/a": (0, 0), "d/b": (7, 8), "d/c": (0, 0), "d/d": (0, 50)}


@root
def test_a_directory_that_gives_way_to_a_symlink_or_comes_in_its_place_tells_nothing_of_the_next_files(
    tmp_path: Path,
) -> None:
    for name in ("shared", "plain"):
        (tmp_path / name).mkdir()
    os.chown(tmp_path / "shared", 0, 50)
    os.chmod(tmp_path / "shared", 0o2775)
    (tmp_path / "b").symlink_to("plain")
    link = Entry(b"a", "symlink", linkname=b"shared")
    apply(tmp_path, Entry(b"a", "dir", 0o755), file("a/x"), link, file("a/y"))
    assert stated(tmp_path / "shared" / "y")[:3] == (0o644, 0, 0)
    os.chmod(tmp_path, 0o2755)
    os.chown(tmp_path, 0, 60)
    apply(tmp_path, Entry(b"c", "symlink", linkname=b"plain"), file("c/x"), Entry(b"c", "dir", 0o755), file("c/y"))
    assert stated(tmp_path / "c" / "y")[:3] == (0o644, 0, 0)
    assert stated(tmp_path / "c")[:3] == (0o755, 0, 0)


@root
def test_what_one_directory_gives_new_files_is_believed_only_of_those_that_came_to_be_below_the_same_one(
    tmp_path: Path,
) -> None:
    for name in ("set-gid", "list", "plain"):
        (tmp_path / name / "old").mkdir(parents=True)
    for folder in (tmp_path / "set-gid", tmp_path / "set-gid" / "old"):
        os.chown(folder, 0, 50)
        os.chmod(folder, 0o2775)
    os.setxattr(tmp_path / "list", "system.posix_acl_default", ACL)
    folders = [f"{top}{below}" for top in ("plain", "set-gid", "list") for below in ("", "/old", "/new", "/old/new")]
    folders += ["fresh", "fresh/new"]
    owners = ((0, 0), (0, 50), (7, 8))
    entries = []
    for turn in range(2):
        for folder in folders if turn else reversed(folders):
            entries += [
                file(f"{folder}/f{turn}-{uid}-{gid}", 0o644, (uid, gid)) for uid, gid in owners for _ in range(2)
            ]
            entries += [Entry(f"{folder}/d{turn}".encode(), "dir", 0o750), file(f"{folder}/d{turn}/f", 0o644)]
    apply(tmp_path, *entries)
    for entry in entries:
        path = tmp_path / os.fsdecode(entry.name)
        assert stated(path)[:3] == (entry.mode, entry.uid, entry.gid), path
        assert os.listxattr(path) == [], path


@root
def test_a_directory_above_that_gives_way_to_a_symlink_tells_nothing_of_the_next_files(tmp_path: Path) -> None:
    for name in ("a", "shared"):
        (tmp_path / name / "b").mkdir(parents=True)
    os.chown(tmp_path / "shared" / "b", 0, 50)
    os.chmod(tmp_path / "shared" / "b", 0o2775)
    link = Entry(b"a", "symlink", linkname=b"shared")
    apply(tmp_path, file("a/b/x"), file("a/b/c/x"), link, file("a/b/y"), file("a/b/c/y"))
    assert [stated(tmp_path / "shared" / "b" / name)[:3] for name in ("y", "c/y")] == [(0o644, 0, 0)] * 2


def test_nothing_inherits_an_access_control_list(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "system.posix_acl_default", ACL)
    named = {b"user.note": b"kept"}
    apply(tmp_path, file("d/a"), file("d/b", 0o777), file("d/c", xattrs=named), Entry(b"d/e", "dir", 0o750, *OWN))
    apply(tmp_path, file("d/e/f", 0o666), file("d/a2"))
    found = {name: (stated(tmp_path / name)[0], os.listxattr(tmp_path / name)) for name in ("d/a", "d/b", "d/c", "d/e")}
    assert found == {
        "d/a": (0o644, []),
        "d/b": (0o777, []),
        "d/c": (0o644, ["user.note"]),
        "d/e": (0o750, []),
    }
    assert (stated(tmp_path / "d/e/f")[0], os.listxattr(tmp_path / "d/e/f")) == (0o666, [])
    assert os.listxattr(tmp_path / "d") == ["system.posix_acl_default"]  # no entry spoke of it


def test_a_scan_is_told_which_files_and_directories_have_attributes(tmp_path: Path) -> None:
    attributed: set[int] = set()
    has, told = {b"user.a": b"1"}, {b"a": {b"user.a": b"1"}, b"c": {b"user.a": b"1"}, b"d": {b"user.a": b"1"}}
    folders = [Entry(b"d", "dir", 0o755, *OWN, xattrs=has), Entry(b"e", "dir", 0o755, *OWN), file("e/implied/f")]
    entries = [file("a", xattrs=has), file("b"), Entry(b"c", "link", linkname=b"a"), *folders]
    apply(tmp_path, *entries, attributed=attributed)
    assert attributed == {os.stat(tmp_path / name).st_ino for name in ("a", "d")}
    scan = scan_directory(tmp_path, attributed=attributed)
    assert scan == scan_directory(tmp_path)
    assert scan.xattrs == told
    for name in ("b", "e"):
        os.setxattr(tmp_path / name, "user.b", b"2")  # which nobody told
    assert scan_directory(tmp_path, attributed=attributed).xattrs == told


def test_what_its_owner_may_not_write_to_gets_attributes_too(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from imagetool.layer.entry import Entry
from imagetool.layer.unpack import Ownership, unpack
xattrs = {{b"user.note": b"x"}}
entries = [Entry(b"f%o" % mode, "file", mode, 7, 8, xattrs=xattrs) for mode in {MODES}]
entries += [Entry(b"g%o" % mode, "file", mode, 7, 8) for mode in {MODES}]
entries += [Entry(b"d", "dir", 0o000, 7, 8, xattrs=xattrs)]
ownership = Ownership(owners=False, recorded=True)
unpack([(e, ()) for e in entries], Path(sys.argv[1]), where="t", ownership=ownership, warn=print)
"""
    if os.geteuid() == 0:
        with users_folder() as folder:
            done = as_user([sys.executable, "-c", script, folder], folder=folder)
            assert (done.returncode, done.stdout + done.stderr) == (0, "")
            check_attributes(folder)
    else:
        subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
        check_attributes(tmp_path)


def check_attributes(folder: Path) -> None:
    for mode in MODES:
        for name, attributes in ((f"f{mode:o}", ["user.note", OWNER.decode()]), (f"g{mode:o}", [OWNER.decode()])):
            assert stat.S_IMODE(os.lstat(folder / name).st_mode) == mode, name
            assert sorted(os.listxattr(folder / name)) == attributes, name
    assert sorted(os.listxattr(folder / "d")) == ["user.note", OWNER.decode()]


def test_who_owns_a_recorded_file_is_said_by_its_entry_and_not_by_an_attribute_of_its_layer(tmp_path: Path) -> None:
    """Otherwise a layer could give its files other owners when they are repacked than when they are pulled."""
    other = {OWNER: render_owner(1000, 50), b"user.note": b"kept"}
    entries = [
        Entry(b"root", "file", xattrs=other),
        Entry(b"seven", "file", 0o4755, 7, 8, xattrs=other),
        Entry(b"plain", "file", xattrs={OWNER: render_owner(1000, 50)}),
        Entry(b"d", "dir", 0o755, 0, 9, xattrs=other),
        Entry(b"damaged", "file", xattrs={OWNER: b"\xff"}),
    ]
    ownership = Ownership(owners=False, recorded=True)
    unpack([(entry, ()) for entry in entries], tmp_path, where="t", ownership=ownership, warn=print)
    empty = scan_directory(tmp_path / "d")
    found = {
        entry.name: ((entry.uid, entry.gid), entry.xattrs)
        for entry, _ in diff_directory(
            tmp_path, Scan({b".": empty.records[b"."]}), scan_directory(tmp_path), clamp=None, warn=print, rootless=True
        )
    }
    note = {b"user.note": b"kept"}
    assert found == {
        b"root": ((0, 0), note),
        b"seven": ((7, 8), note),
        b"plain": ((0, 0), {}),
        b"d": ((0, 9), note),
        b"damaged": ((0, 0), {}),
    }
    (tmp_path / "stated").mkdir()
    unpack([(entries[0], ())], tmp_path / "stated", where="t", ownership=Ownership(owners=False), warn=print)
    assert os.getxattr(tmp_path / "stated/root", OWNER) == other[OWNER]  # where nothing is recorded it is as any other
