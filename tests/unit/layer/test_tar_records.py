"""What becomes of each record of a pax header, as docs/reference/tar-records.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from imagetool.errors import InvalidArchive
from imagetool.layer.entry import Entry
from imagetool.layer.tarreader import read
from tests.support.tars import END, chunks, extended, file, record

TABLE = Path(__file__).resolve().parents[3] / "docs/reference/tar-records.md"
LIST = b"user::rw-,user:7:r--,group::r--,mask::r--,other::r--"
#: Values that honest writers give; what is kept of them is in `KEPT`.
VALUES = {
    "path": b"f",
    "linkpath": b"f",
    "size": b"1",
    "uid": b"5",
    "gid": b"6",
    "mtime": b"1.5",
    "SCHILY.xattr.*": b"value",
    "LIBARCHIVE.xattr.*": b"dmFsdWU",
    "SCHILY.acl.access": LIST,
    "GNU.sparse.*": b"1",
}
PLAIN = Entry(b"f", "file", 0o644, size=1)


def entry(body: bytes) -> Entry:
    ((found, _),) = read(chunks(extended(b"x", body) + file(b"f", b"x") + END), where="t")
    return found


def rows() -> list[tuple[str, str]]:
    """Return each key of the table with the first word of what becomes of it."""
    found = []
    for line in TABLE.read_text().splitlines():
        keys, _, what = line.removeprefix("| ").partition(" | ")
        if line.startswith("| `"):
            verdict = re.split(r"[,.: ]", what.partition(" | ")[2])[0]
            found += [(key, verdict) for key in re.findall(r"`([^`]+)`", keys)]
    return found


def test_the_table_tells_of_each_key_once() -> None:
    keys = [key for key, _ in rows()]
    assert len(keys) == len(set(keys)) > 25
    assert {verdict for _, verdict in rows()} == {"Kept", "Left", "Refused"}
    assert VALUES.keys() <= set(keys)


@pytest.mark.parametrize(("key", "verdict"), [row for row in rows() if row[1] == "Left"])
def test_what_is_left_changes_nothing(key: str, verdict: str) -> None:
    assert entry(record(key.replace("*", "x").encode(), b"7")) == PLAIN


@pytest.mark.parametrize(("key", "verdict"), [row for row in rows() if row[1] == "Refused"])
@pytest.mark.parametrize("flag", [b"x", b"g"])
def test_what_is_refused_is_said_by_name(key: str, verdict: str, flag: bytes) -> None:
    with pytest.raises(InvalidArchive, match=re.escape(key)):
        list(read(chunks(extended(flag, record(key.encode(), b"1")) + file(b"f", b"x") + END), where="t"))


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        (b"uid", b"5", PLAIN._replace(uid=5)),
        (b"gid", b"6", PLAIN._replace(gid=6)),
        (b"mtime", b"1.5", PLAIN._replace(mtime=1_500_000_000)),
        (b"SCHILY.xattr.user.a%3Db", b"\xff\0=\n", PLAIN._replace(xattrs={b"user.a=b": b"\xff\0=\n"})),
        (b"LIBARCHIVE.xattr.user.a%3Db", b"/wA9Cg", PLAIN._replace(xattrs={b"user.a=b": b"\xff\0=\n"})),
        (b"LIBARCHIVE.xattr.user.a%3Db", b"/wA9Cg==", PLAIN._replace(xattrs={b"user.a=b": b"\xff\0=\n"})),
        (b"LIBARCHIVE.xattr.user.%C3%BC%20%25", b"", PLAIN._replace(xattrs={"user.ü %".encode(): b""})),
    ],
)
def test_what_is_kept_is_in_the_entry(key: bytes, value: bytes, kept: Entry) -> None:
    assert entry(record(key, value)) == kept


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([(b"LIBARCHIVE.xattr.user.a", b"!!!!")], "not base64"),
        ([(b"LIBARCHIVE.xattr.user.a", b"QQ\n")], "not base64"),
        ([(b"LIBARCHIVE.xattr.user.a", b"Q")], "not base64"),
        ([(b"LIBARCHIVE.xattr.user.a", b"QQ"), (b"SCHILY.xattr.user.a", b"B")], "two values of user.a"),
        ([(b"LIBARCHIVE.xattr.user.a", b"QQ"), (b"LIBARCHIVE.xattr.user.%61", b"QQ")], "two values of user.a"),
        ([(b"LIBARCHIVE.xattr.", b"QQ")], "no such name"),
        ([(b"LIBARCHIVE.xattr.user.%00", b"QQ")], "no such name"),
    ],
)
def test_attributes_that_contradict_each_other_are_refused(records: list[tuple[bytes, bytes]], says: str) -> None:
    with pytest.raises(InvalidArchive, match=says):
        entry(b"".join(record(*pair) for pair in records))


@pytest.mark.parametrize(("key", "digits"), [(b"mtime", 13), (b"uid", 10), (b"size", 1)])
def test_numbers_have_as_many_digits_as_they_may_mean_anything(key: bytes, digits: int) -> None:
    """A number of thousands of digits costs its square to read."""
    assert entry(record(key, b"0" * (digits - 1) + b"1")).size == 1
    with pytest.raises(InvalidArchive, match=key.decode()):
        entry(record(key, b"0" * 5000 + b"1"))
    if key == b"mtime":
        assert entry(record(key, b"9" * 13)).mtime == (1 << 40) * 10**9
        with pytest.raises(InvalidArchive, match="mtime"):
            entry(record(key, b"9" * 14))


@pytest.mark.parametrize("key", [b"SCHILY.xattr.user.a", b"LIBARCHIVE.xattr.user.a"])
def test_nobody_gives_all_entries_an_attribute(key: bytes) -> None:
    with pytest.raises(InvalidArchive, match="global header"):
        list(read(chunks(extended(b"g", record(key, b"QQ")) + file(b"f") + END), where="t"))


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar")
@pytest.mark.parametrize("form", ["LIBARCHIVE", "ALL"])
def test_attributes_that_bsdtar_says_are_those_of_the_file(form: str, tmp_path: Path) -> None:
    wanted = {b"user.a=b": b"\xff\0=\n", "user.ü %".encode(): b"hi", b"user.plain": b"p", b"user.%41": b"q"}
    packed = tmp_path / "f"
    packed.write_bytes(b"x")
    for attribute, value in wanted.items():
        os.setxattr(packed, attribute, value)
    options = ["--xattrs", "--format=pax", "--options", f"pax:xattrheader={form}"]
    subprocess.run(["bsdtar", *options, "-cf", tmp_path / "tar", "f"], cwd=tmp_path, check=True)
    ((found, _),) = read(chunks((tmp_path / "tar").read_bytes()), where="t")
    assert found.xattrs == wanted


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_a_volume_that_begins_within_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(os.urandom(60_000))
    volumes = [f"--file={tmp_path}/v{number}" for number in range(1, 5)]
    command = ["tar", "--create", "--multi-volume", "--tape-length=20K", "--format=posix", *volumes, "f"]
    subprocess.run(command, cwd=tmp_path, check=True)
    for volume in ("v1", "v2"):
        items = read(chunks((tmp_path / volume).read_bytes()), where="t")
        with pytest.raises(InvalidArchive):
            list(items)


@pytest.mark.parametrize(
    "block",
    [
        bytes(range(256)) * 2,  # a type that is none, a checksum that is no number, a name that says nothing
        b"\x7fELF\x02\x01\x01" + bytes(505),
        b"PK\x03\x04" + b"\xff" * 508,
        b"\x89PNG" + b"\x80" * 152 + b"Z" * 356,
    ],
)
def test_a_file_of_another_kind_is_said_to_be_no_tar_and_not_quoted(block: bytes) -> None:
    with pytest.raises(InvalidArchive) as refused:
        list(read([block, bytes(1024)], where="disk.img"))
    assert str(refused.value) == "disk.img: the header of an entry has a wrong checksum; not a tar archive?"


def test_a_damaged_header_is_said_by_its_name() -> None:
    header = file(b"etc/passwd", b"")[:512]
    for at, byte in ((100, b"9"), (148, b"x"), (156, b"Z")):
        with pytest.raises(InvalidArchive, match=r"^t: the header of etc/passwd has a wrong checksum"):
            list(read([header[:at] + byte + header[at + 1 :], bytes(1024)], where="t"))
