"""Archives with a few bytes changed: what we take, GNU tar and libarchive list the same, or they complain."""

from __future__ import annotations

import io
import posixpath
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.entry import Entry
from imagetool.layer.tarreader import read
from tests.support.tars import END, chunks, extended, file, header, record

#: Where headers differ in what readers make of them: edges of fields, types, magic, GNU's sparse fields.
PLACES = (0, 1, 99, 100, 107, 110, 124, 130, 135, 136, 147, 156, 157, 200, 257, 262, 263, 264, 330, 345, 386, 483, 511)
BYTES = b"\0 017A\x80\xff/.xLgKS"
FIELDS = ((124, 12), (108, 8), (136, 12), (0, 100), (157, 100), (345, 155))
LISTERS = {"tar": ["tar", "--quoting-style=escape", "-tf"], "bsdtar": ["bsdtar", "-tf"]}


def archive(choose: random.Random) -> bytearray:
    out = io.BytesIO()
    form = choose.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
    long = "e" if form == tarfile.USTAR_FORMAT else "e" * 120
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for number in range(choose.randint(1, 4)):
            info = tarfile.TarInfo(choose.choice(["a", "b/c", "d" * 90, long, "f/" + "g" * 98]) + str(number))
            info.type = choose.choice([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
            info.linkname = "target" if info.type == tarfile.SYMTYPE else ""
            data = b"x" * choose.choice([0, 1, 511, 512, 513, 1500]) if info.isreg() else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return bytearray(out.getvalue())


def mutate(tar: bytearray, choose: random.Random) -> None:
    """Change, repeat or drop one block among the first, mostly with a right checksum."""
    at = choose.randrange(max(512, len(tar) - 9216) // 512) * 512
    what = choose.choice(["byte", "field", "repeat", "drop"])
    if what == "byte":
        tar[at + choose.choice(PLACES)] = choose.choice(BYTES)
    elif what == "field":
        start, size = choose.choice(FIELDS)
        values = (
            b"0" * (size - 1),
            b" " * (size - 2) + b"1 ",
            b"",
            b"\x80".ljust(size - 1, b"\0") + b"\1",
            b" 12\0999",
        )
        tar[at + start : at + start + size] = choose.choice(values).ljust(size, b"\0")
    elif what == "repeat":
        tar[at:at] = tar[at : at + 512]
    else:
        del tar[at : at + 512]
    if choose.random() < 0.9 and at + 512 <= len(tar):
        tar[at + 148 : at + 156] = b" " * 8
        tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.peer
def test_what_is_taken_of_mutated_archives_other_readers_list_the_same(seed: int, tmp_path: Path) -> None:
    choose = random.Random(seed)
    path = tmp_path / "mutated.tar"
    compared = dict.fromkeys(LISTERS, 0)
    for _ in range(150):
        tar = archive(choose)
        for _ in range(choose.randint(1, 3)):
            mutate(tar, choose)
        try:
            names = [entry.name for entry, _ in read([bytes(tar)], where="t")]
        except (InvalidArchive, LimitExceeded):
            continue
        if any(not 32 < byte < 127 or byte == 0x5C for name in names for byte in name):
            continue  # they are told in other ways
        path.write_bytes(tar)
        for lister, command in LISTERS.items():
            done = subprocess.run([*command, str(path)], capture_output=True, env={"LC_ALL": "C"}, check=False)
            if done.returncode or done.stderr:
                continue
            listed = [posixpath.normpath(b"/" + line)[1:].lstrip(b"/") or b"." for line in done.stdout.splitlines()]
            assert listed == names, lister
            compared[lister] += 1
    assert min(compared.values()) > 20


def outcome(tar: bytes, size: int) -> tuple[list[tuple[Entry, bytes]], str]:
    """Return what is read of an archive that comes in pieces of `size` bytes, and how it ended."""
    found: list[tuple[Entry, bytes]] = []
    try:
        for entry, content in read(chunks(tar, size), where="t"):
            found.append((entry, b"".join(content)))
    except (InvalidArchive, LimitExceeded) as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("seed", range(6))
def test_an_archive_is_read_alike_however_it_is_cut(seed: int) -> None:
    """Headers and content that come in one piece are read by code of their own; of 500 bytes none ever do."""
    choose = random.Random(seed)
    refused = 0
    for _ in range(500):
        tar = archive(choose) if choose.random() < 0.5 else neighbours(choose)
        for _ in range(choose.randint(1, 3)):
            mutate(tar, choose)
        whole, cut = outcome(bytes(tar), len(tar)), outcome(bytes(tar), 500)
        assert whole == cut
        refused += bool(whole[1])
    assert 50 < refused < 450


def neighbours(choose: random.Random) -> bytearray:
    """Return an archive of many like entries, as nearly all are, with a rarer thing among them."""
    rare = [
        header(b"link", b"2", linkname=b"t"),
        header(b"d/", b"5"),
        header(b"d/", b"5", size=512) + bytes(512),
        header(b"old", b"\0", magic=b""),
        header(b"old/", b"\0", magic=b""),
        extended(b"x", b""),
        extended(b"x", record(b"path", b"long" * 40)),
        extended(b"g", record(b"uid", b"7")),
        file(b"big", b"x" * 70_000),
        file(b"n", b"x", prefix=b"p/q"),
        file(b"../n", b"x"),
        file(b"/n", b"x"),
        file(b"n\0m", b"x"),
    ]
    parts = [file(b"f%d" % number, b"x" * choose.choice([0, 1, 512]), mtime=number) for number in range(12)]
    for _ in range(3):
        parts.insert(choose.randrange(13), choose.choice(rare))
    return bytearray(b"".join(parts) + END)


def test_an_empty_extended_header_before_a_plain_entry_is_done_with_it() -> None:
    empty = extended(b"x", b"")
    tar = file(b"a") + empty + file(b"b", b"1") + empty + file(b"c") + END
    assert [entry.name for entry, _ in read([tar], where="t")] == [b"a", b"b", b"c"]
