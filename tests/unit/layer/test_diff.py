"""Scans of a directory, their file, and the difference of two."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool import limits
from imagetool.errors import ImagetoolError, InvalidArchive, InvalidDocument, LimitExceeded, StorageError
from imagetool.layer.diff import Digests, diff_directory
from imagetool.layer.directory import Record, Scan, scan_directory
from imagetool.layer.entry import Entry
from imagetool.layer.rootless import OWNER, parse_owner, render_owner
from imagetool.layer.scanfile import parse, render


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_bytes(b"root")
    (root / "etc" / "other").write_bytes(b"other")
    (root / "link").symlink_to("etc/passwd")
    return root


def digests(root: Path) -> Digests:
    found = {os.fsencode(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    known = {name: hashlib.sha256(path.read_bytes()).digest() for name, path in found.items()}
    return lambda names: {name: known[name] for name in names}


def entries(root: Path, before: Scan, **options: object) -> list[Entry]:
    warnings: list[str] = []
    after = scan_directory(root, known=before)
    return [e for e, _ in diff_directory(root, before, after, clamp=None, warn=warnings.append, **options)]  # type: ignore[arg-type]


def names(root: Path, before: Scan, **options: object) -> list[bytes]:
    return [entry.name for entry in entries(root, before, **options)]


def test_an_untouched_tree_has_no_difference(tree: Path) -> None:
    assert entries(tree, scan_directory(tree)) == []


def test_content_changed_behind_an_old_size_and_time_is_found(tree: Path) -> None:
    before = scan_directory(tree)
    file = tree / "etc" / "passwd"
    old = file.stat()
    file.write_bytes(b"evil")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert names(tree, before) == [b"etc", b"etc/passwd"]


def test_a_file_touched_and_put_back_is_compared_by_its_content_when_that_is_known(tree: Path) -> None:
    file = tree / "etc" / "passwd"
    before = scan_directory(tree)
    known = digests(tree)
    for change in (b"root", b"evil"):
        old = file.stat()
        file.write_bytes(change)
        os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
        assert names(tree, before, digests=known) == ([] if change == b"root" else [b"etc", b"etc/passwd"])
        assert names(tree, before) == [b"etc", b"etc/passwd"]


def test_mode_and_attributes_put_back_are_no_change(tree: Path) -> None:
    before, known = scan_directory(tree), digests(tree)
    file = tree / "etc" / "passwd"
    mode = file.stat().st_mode
    file.chmod(0o4711)
    os.setxattr(file, "user.x", b"1")
    assert [(e.name, e.mode, e.xattrs) for e in entries(tree, before)][1:] == [
        (b"etc/passwd", 0o4711, {b"user.x": b"1"})
    ]
    file.chmod(mode & 0o7777)
    os.removexattr(file, "user.x")
    assert entries(tree, before, digests=known) == []


def test_whiteouts_come_before_what_is_beside_them(tree: Path) -> None:
    before = scan_directory(tree)
    (tree / "etc" / "passwd").unlink()
    (tree / "etc" / "aaa").write_bytes(b"")
    (tree / "link").unlink()
    (tree / "link").mkdir()
    assert names(tree, before) == [b".wh.link", b"etc", b"etc/.wh.passwd", b"etc/aaa", b"link"]


def test_a_removed_directory_is_one_whiteout(tree: Path) -> None:
    before = scan_directory(tree)
    (tree / "etc" / "passwd").unlink()
    (tree / "etc" / "other").unlink()
    (tree / "etc").rmdir()
    assert names(tree, before) == [b".wh.etc"]


def test_a_new_name_of_an_old_file_carries_the_content(tree: Path) -> None:
    before = scan_directory(tree)
    os.link(tree / "etc" / "other", tree / "aaa")
    found = {entry.name: (entry.kind, entry.size, entry.linkname) for entry in entries(tree, before)}
    assert found[b"aaa"] == ("file", 5, b"")
    assert found[b"etc/other"] == ("link", 0, b"aaa")


def test_a_name_that_left_its_file_is_said_anew(tree: Path) -> None:
    os.link(tree / "etc" / "other", tree / "aaa")
    before, known = scan_directory(tree), digests(tree)
    old = (tree / "aaa").stat()
    (tree / "aaa").unlink()
    (tree / "aaa").write_bytes(b"other")
    os.chmod(tree / "aaa", old.st_mode)
    os.utime(tree / "aaa", ns=(old.st_atime_ns, old.st_mtime_ns))
    found = names(tree, before, digests=known)
    assert b"etc/other" in found or b"aaa" in found


def test_sockets_are_left_out_with_a_warning(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scan_directory(tree)
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        warnings: list[str] = []
        after = scan_directory(tree)
        assert list(diff_directory(tree, before, after, clamp=None, warn=warnings.append)) == []
    assert warnings == ["s is a socket and is left out of the layer"]


def test_a_file_changed_after_the_scan_is_an_error_not_a_wrong_layer(tree: Path) -> None:
    before = scan_directory(tree)
    (tree / "new").write_bytes(b"1")
    after = scan_directory(tree)
    (tree / "new").write_bytes(b"12345")
    with pytest.raises(StorageError, match="new changed while it was read"):
        list(diff_directory(tree, before, after, clamp=None, warn=print))


def test_names_a_layer_cannot_hold_are_refused(tree: Path) -> None:
    before = scan_directory(tree)
    (tree / ".wh.x").write_bytes(b"")
    with pytest.raises(InvalidArchive, match=r"\.wh\."):
        entries(tree, before)


# Owners that could not be given


def test_recorded_owners_are_put_into_the_layer(tree: Path) -> None:
    before = scan_directory(tree)
    (tree / "new").write_bytes(b"")
    os.setxattr(tree / "new", OWNER, render_owner(1000, 50))
    (tree / "root").write_bytes(b"")
    os.chown(tree / "root", 4321 if os.geteuid() == 0 else -1, -1)
    found = {entry.name: (entry.uid, entry.gid, entry.xattrs) for entry in entries(tree, before, rootless=True)}
    assert found == {b"new": (1000, 50, {}), b"root": (0, 0, {})}


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_owners_are_read_as_they_were_recorded(uid: int, gid: int) -> None:
    assert parse_owner(render_owner(uid, gid), where="t") == (uid, gid)


def test_owners_are_recorded_as_others_record_them() -> None:
    # rootlesscontainers.Resource{Uid: 1000, Gid: 300}, and the "no-op" id in either field
    assert render_owner(1000, 300) == bytes.fromhex("08e80710ac02")
    assert parse_owner(bytes.fromhex("08ffffffff0f10ac02"), where="t") == (0, 300)


@given(st.binary(max_size=20))
def test_anything_else_is_an_owner_or_an_error(value: bytes) -> None:
    try:
        uid, gid = parse_owner(value, where="t")
    except InvalidDocument:
        return
    assert 0 <= uid < 2**32 > gid >= 0


# The file


def scan() -> Scan:
    record = Record(0o100644, 1, 2, 3, -4, 5, 6, 7, 8)
    return Scan(
        {b".": record, b"a": record, b"b\xff\n": record},
        {b"a": {b"user.x": b"", b"user.y": b"\0\0"}},
        {b"b\xff\n": b"../target"},
    )


def test_a_scan_survives_its_file() -> None:
    assert parse(render(scan(), {"image": "x"}), where="f") == (scan(), {"image": "x"})
    assert parse(render(Scan(), {}), where="f") == (Scan(), {})
    before, after = scan().records[b"a"]._replace(mtime=-1 << 63), scan().records[b"a"]._replace(mtime=1 << 70)
    far = Scan({b".": before, b"a": after, b"b": after._replace(mtime=(1 << 63) - 1, ctime=-1 << 80)})
    assert parse(render(far, {}), where="f") == (far, {})


def test_what_was_changed_in_a_far_future_is_found_again_only_where_it_was_edited(tree: Path) -> None:
    far = 1 << 34  # seconds: the year 2514, or where the file system's years end
    for name in ("kept", "edited"):
        (tree / name).write_text("x")
        os.utime(tree / name, (far, far))
    before, _ = parse(render(scan_directory(tree), {}), where="f")
    assert scan_directory(tree) == before
    os.utime(tree / "edited", (far, far - 3_000_000_000))
    assert names(tree, before) == [b"edited"]


def test_a_damaged_file_is_refused_wherever_it_was_hit() -> None:
    raw = render(scan(), {"image": "x"})
    for at in range(len(raw)):
        with pytest.raises(InvalidDocument):
            parse(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], where="f")
        with pytest.raises(InvalidDocument):
            parse(raw[:at], where="f")


@given(at=st.integers(17, 10_000), value=st.binary(min_size=1, max_size=8))
def test_a_forged_file_ends_in_a_scan_or_an_error_of_ours(at: int, value: bytes) -> None:
    body = bytearray(render(scan(), {"image": "x"})[:-32])
    at = at % (len(body) - 17) + 17
    body[at : at + len(value)] = value
    raw = bytes(body) + hashlib.sha256(body).digest()
    with contextlib.suppress(ImagetoolError):
        parse(raw, where="f")


def test_a_file_is_read_at_its_limits_and_refused_past_them(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = render(scan(), {})
    monkeypatch.setattr(limits, "SCAN_BYTES", len(raw))
    monkeypatch.setattr(limits, "TAR_ENTRIES", 3)
    assert parse(raw, where="f")[0] == scan()
    monkeypatch.setattr(limits, "TAR_ENTRIES", 2)
    with pytest.raises(LimitExceeded):
        parse(raw, where="f")
    monkeypatch.setattr(limits, "SCAN_BYTES", len(raw) - 1)
    with pytest.raises(LimitExceeded):
        parse(raw, where="f")


@pytest.mark.parametrize(
    "value",
    [
        "0880808080808000",  # a number in more bytes than 32 bits need
        "08ffffffff1f",  # 33 bits
        "0a01",  # bytes, not a number
        "1801",  # a third field
        "08",
        "0880",
    ],
)
def test_what_is_no_owner_is_refused(value: str) -> None:
    with pytest.raises(InvalidDocument, match="not an owner"):
        parse_owner(bytes.fromhex(value), where="t")


def forged(
    names: list[bytes],
    targets: list[bytes],
    xattrs: list[bytes],
    *,
    records: int | None = None,
    more: bytes = b"",
    far: bytes = b"",
) -> bytes:
    """Return a scan's file with a right checksum, whatever is in it."""

    def number(value: int) -> bytes:
        return struct.pack("<Q", value)

    def sized(data: bytes) -> bytes:
        return number(len(data)) + data

    count = len(names) if records is None else records
    body = b"imagetool scan 2\n" + sized(b"{}") + number(count) + bytes(struct.calcsize("<IIIQqqQQQ") * count)
    body += sized(b"\0".join(names)) + sized(b"\0".join(targets)) + sized(far)
    body += number(len(xattrs)) + b"".join(map(sized, xattrs))
    body += more
    return body + hashlib.sha256(body).digest()


def at(place: int) -> bytes:
    return struct.pack("<Q", place)


FORGED = {
    "a name twice": forged([b".", b"a", b"a"], [], []),
    "more records than names": forged([b".", b"a"], [], [], records=3),
    "fewer records than names": forged([b".", b"a"], [], [], records=1),
    "a target without a name": forged([b".", b"a"], [b"a"], []),
    "a target of something else": forged([b".", b"a"], [b"b", b"x"], []),
    "a far time of what is behind the last name": forged([b".", b"a"], [], [], far=at(2) + bytes(32)),
    "half a far time": forged([b".", b"a"], [], [], far=at(1) + bytes(31)),
    "something behind it": forged([b".", b"a"], [], [], more=b"x"),
    "an attribute of what is behind the last name": forged([b".", b"a"], [], [at(2), b"user.x", b"v"]),
    "an attribute of what no number says": forged([b".", b"a"], [], [b"\1", b"user.x", b"v"]),
    "an attribute without a value": forged([b".", b"a"], [], [at(1), b"user.x"]),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_file_whose_checksum_is_right_is_still_looked_at(case: str) -> None:
    fits, _ = parse(forged([b".", b"a"], [b"a", b"x"], [at(1), b"user.x", b"v"]), where="f")
    assert (fits.targets, fits.xattrs) == ({b"a": b"x"}, {b"a": {b"user.x": b"v"}})
    with pytest.raises(InvalidDocument, match=r"^f: .*unpack the image again"):
        parse(FORGED[case], where="f")


def test_the_other_names_of_a_file_say_nothing_but_which_it_is(tree: Path) -> None:
    before = scan_directory(tree)
    (tree / "one").write_text("x")
    os.setxattr(tree / "one", "user.note", b"v")
    os.link(tree / "one", tree / "two")
    found = {entry.name: entry for entry in entries(tree, before)}
    assert found[b"one"].xattrs == {b"user.note": b"v"}
    assert (found[b"two"].kind, found[b"two"].linkname, found[b"two"].xattrs) == ("link", b"one", {})


def test_a_fifo_that_took_the_place_of_a_file_after_the_scan_does_not_hang(tree: Path) -> None:
    before = scan_directory(tree)
    (tree / "new").write_text("x")
    after = scan_directory(tree)
    (tree / "new").unlink()
    os.mkfifo(tree / "new")
    ended: list[BaseException] = []

    def take() -> None:
        try:
            list(diff_directory(tree, before, after, clamp=None, warn=print))
        except ImagetoolError as error:
            ended.append(error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the fifo was waited for"
    assert "changed while it was read" in str(ended[0])


_TWO_FILE_SYSTEMS = """
import os, subprocess, sys
from pathlib import Path
from imagetool.layer.diff import diff_directory
from imagetool.layer.directory import scan_directory
tree = Path(sys.argv[1])
before = scan_directory(tree)
for name in "ab":
    (tree / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / name], check=True)
    (tree / name / "x").write_text(name)
    os.link(tree / name / "x", tree / name / "y")
assert os.stat(tree / "a/x").st_ino == os.stat(tree / "b/x").st_ino
for entry, content in diff_directory(tree, before, scan_directory(tree), clamp=None, warn=print):
    print(entry.name.decode(), entry.kind, entry.linkname.decode(), b"".join(content).decode())
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")
def test_files_of_two_file_systems_with_one_inode_number_are_two(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _TWO_FILE_SYSTEMS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        *("a dir  ", "a/x file  a", "a/y link a/x "),
        *("b dir  ", "b/x file  b", "b/y link b/x "),
    ]
