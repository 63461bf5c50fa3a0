"""Archives that are no archives, never end, or cost more than they hold."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.tarreader import read
from tests.security.layer.hostile import apply, folder
from tests.support.tars import END, base256, chunks, extended, file, header, record

#: Archives that are wrong in themselves, and what of them the message must say.
MALFORMED: dict[str, tuple[bytes, str]] = {
    "negative size": (header(size=base256(-512, 12)), "size -512"),
    "negative size as text": (header(size=b"-0000000777"), "size"),
    "huge size": (header(size=base256(1 << 60, 12)), "size"),
    "negative extended header": (header(b"x", b"x", size=base256(-512, 12)), "-512 bytes"),
    "negative long name": (header(b"x", b"L", size=base256(-1, 12)), "-1 bytes"),
    "endless long name": (header(b"x", b"L", size=base256(8 << 30, 12)), "extended header of"),
    "endless extended header": (header(b"x", b"x", size=8 << 20), "extended header of"),
    "negative owner": (header(uid=base256(-2, 8)), "owner"),
    "owner that means no change": (header(uid=base256(0xFFFFFFFF, 8)), "owner"),
    "huge owner": (header(gid=base256(1 << 50, 8)), "owner"),
    "huge owner in pax": (extended(b"x", record(b"uid", b"9" * 30)) + header(), "uid"),
    "negative owner in pax": (extended(b"x", record(b"uid", b"-1")) + header(), "uid"),
    "negative size in pax": (extended(b"x", record(b"size", b"-1")) + header(), "size"),
    "time that is no number": (extended(b"x", record(b"mtime", b"--1")) + header(), "mtime"),
    "time as an exponent": (extended(b"x", record(b"mtime", b"1e9")) + header(), "mtime"),
    "two records with one key": (extended(b"x", record(b"path", b"a") + record(b"path", b"b")) + header(), "two pax"),
    "two sizes": (extended(b"x", record(b"size", b"1") + record(b"size", b"2")) + header(), "two pax"),
    "two extended headers": (extended(b"x", record(b"path", b"a")) * 2 + header(), "two"),
    "two long names": (extended(b"L", b"a\0") + extended(b"L", b"b\0") + header(), "two"),
    "two long links": (extended(b"K", b"a\0") + extended(b"K", b"b\0") + header(b"l", b"2"), "two"),
    "long name and path": (extended(b"L", b"a\0") + extended(b"x", record(b"path", b"b")) + header(), "two"),
    "record past its header": (extended(b"x", b"999 path=x\n") + header(), "malformed"),
    "record of no length": (extended(b"x", b"0 path=x\n") + header(), "malformed"),
    "record with a negative length": (extended(b"x", b"-5 path=x\n") + header(), "malformed"),
    "record without a key": (extended(b"x", b"5 =x\n") + header(), "malformed"),
    "record without a line end": (extended(b"x", b"9 path=ab") + header(), "malformed"),
    "global path": (extended(b"g", record(b"path", b"evil")) + header(), "global"),
    "global size": (extended(b"g", record(b"size", b"4096")) + header(), "global"),
    "global attribute": (extended(b"g", record(b"SCHILY.xattr.user.x", b"1")) + header(), "global"),
    "NUL in a long name": (extended(b"L", b"a\0b\0") + header(), "NUL"),
    "NUL in a path": (extended(b"x", record(b"path", b"a\0b")) + header(), "NUL"),
    "NUL in an attribute": (extended(b"x", record(b"SCHILY.xattr.user.a\0b", b"")) + header(), "attribute"),
    "attribute without a name": (extended(b"x", record(b"SCHILY.xattr.", b"")) + header(), "attribute"),
    "attribute too big": (extended(b"x", record(b"SCHILY.xattr.user.a", bytes(65537))) + header(), "tar-xattr-bytes="),
    "empty name": (header(b""), "empty"),
    "empty path": (extended(b"x", record(b"path", b"")) + header(), "empty"),
    "path too long": (extended(b"x", record(b"path", b"x/" * 2049)) + header(), "name has 4098 bytes"),
    "two pax headers": (
        extended(b"x", record(b"mtime", b"1")) + extended(b"x", record(b"uid", b"5")) + header(),
        "two extended headers of type x",
    ),
    "link with a size after a pax header": (
        extended(b"x", record(b"mtime", b"1")) + file(b"f", b"abc") + header(b"h", b"1", size=3, linkname=b"f"),
        "readers differ",
    ),
    "link with a size after a global header": (
        extended(b"g", record(b"comment", b"1")) + file(b"f", b"abc") + header(b"h", b"1", size=3, linkname=b"f"),
        "readers differ",
    ),
    "link with a size in pax": (
        file(b"f", b"abc") + extended(b"x", record(b"size", b"3")) + header(b"h", b"1", linkname=b"f"),
        "readers differ",
    ),
    "link to nothing": (header(b"l", b"2"), "links to nothing"),
    "link too long": (extended(b"K", b"x" * 4097) + header(b"l", b"2"), "links to a name of 4097 bytes"),
    "sparse file": (header(flag=b"S"), "sparse"),
    "sparse file in pax": (extended(b"x", record(b"GNU.sparse.name", b"x")) + header(), "sparse"),
    "volume label": (header(flag=b"V"), "type"),
    "unknown type": (header(flag=b"\xff"), "type"),
    "symlink with content": (header(b"l", b"2", size=1, linkname=b"t") + file(b"next", b""), "symlink with content"),
    "device with content": (header(b"c", b"3", size=512, device=(1, 3)) + file(b"next", b""), "char with content"),
    "dir with content": (header(b"d", b"5", size=512) + file(b"next", b""), "dir with content"),
    "prefix of no format": (header(prefix=b"p", magic=b"ustar  S"), "prefix"),
    "long name without an end": (header(flag=b"L", size=1) + b"name".ljust(512, b"\0") + header(), "long name"),
    "GNU file with a real size": (header(prefix=bytes(138) + b"00000001000", magic=b"ustar  \0"), "sparse map"),
    "directory with content": (header(b"d/", b"0", size=512) + bytes(512), "directory with content"),
    "checksum garbage": (header(checksum=b"000000\0 "), "checksum"),
    "checksum that is no number": (header(checksum=b"garbage!"), "checksum"),
    "nothing like tar": (b"<!DOCTYPE html>".ljust(512, b"x"), "tar"),
    "extended header at the end": (extended(b"x", record(b"path", b"a")), "ends after"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_archive_ends_in_one_clear_line(place: Path, case: str) -> None:
    tar, words = MALFORMED[case]
    started = time.process_time()
    with pytest.raises((InvalidArchive, LimitExceeded)) as refused:
        apply(place, tar)
    assert time.process_time() - started < 1
    assert words in str(refused.value)
    assert str(refused.value).startswith("layer 0: ")
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()


def test_an_archive_cut_anywhere_inside_is_refused(place: Path) -> None:
    whole = (
        folder(b"d") + file(b"d/a", b"x" * 2000) + extended(b"x", record(b"path", b"long")) + file(b"s", b"y")
        + extended(b"L", b"n" * 600) + file(b"n", b"z" * 512)
    )  # fmt: skip
    boundaries = set()
    at = 0
    for entry, _ in read(iter([whole]), where="t"):  # where entries begin: there a cut is not seen
        boundaries.add(at)
        at += {b"d": 512, b"d/a": 512 + 2048, b"long": 3 * 512 - 512 + 512 + 512}.get(entry.name, 0)
    boundaries.add(at)
    for cut in range(1, len(whole)):
        if cut % 512 and cut % 100:
            continue
        items = read(iter([whole[:cut]]), where="t")
        if cut in boundaries:
            assert [entry.name for entry, _ in items]
        else:
            with pytest.raises(InvalidArchive, match="ends"):
                list(items)


@pytest.mark.parametrize(
    "flood",
    [extended(b"g", record(b"comment", b"x" * 400)), extended(b"g", b""), extended(b"x", b""), header(b"d/", b"5")],
    ids=["global headers", "empty global headers", "extended headers", "entries"],
)
def test_an_endless_archive_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch, flood: bytes) -> None:
    monkeypatch.setattr("imagetool.limits.TAR_ENTRIES", 1000)
    block = flood * 50
    with pytest.raises((LimitExceeded, InvalidArchive)):
        for _ in read(itertools.repeat(block), where="t"):
            pass


def test_global_headers_do_not_pile_up(place: Path) -> None:
    headers = b"".join(extended(b"g", record(b"k%d" % n, b"v" * 400_000)) for n in range(40))
    entries = list(read(chunks(headers + file(b"f") + END), where="t"))
    assert [entry.name for entry, _ in entries] == [b"f"]
    assert entries[0][0].xattrs == {}


def test_replacing_many_directories_takes_linear_time(place: Path) -> None:
    many = b"".join(folder(b"d%d" % n) for n in range(3000))
    swaps = (folder(b"x") + file(b"x")) * 3000
    started = os.times().user  # ours alone: the disk's share of the kernel's time says nothing about us
    apply(place, many + swaps)
    assert os.times().user - started < 4
