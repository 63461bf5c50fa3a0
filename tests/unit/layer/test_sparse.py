"""Sparse files: read from every archive that says them, packed and unpacked without their zeros."""

from __future__ import annotations

import io
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import unpack
from tests.support.tars import END, chunks, extended, file, header, padded, record

MIB = 1 << 20


def fail(text: str) -> None:
    raise AssertionError(text)


def make_sparse(path: Path, regions: list[tuple[int, bytes]], size: int) -> bytes:
    content = bytearray(size)
    with path.open("wb") as out:
        for at, data in regions:
            out.seek(at)
            out.write(data)
            content[at : at + len(data)] = data
        out.truncate(size)
    return bytes(content)


SHAPES = {
    "data first": ([(0, b"a" * 5000)], 3 * MIB),
    "data last": ([(2 * MIB, b"z" * MIB)], 3 * MIB),
    "only a hole": ([], 2 * MIB + 7),
    "thirty regions": ([(at * 128 * 1024, b"x" * 4096) for at in range(30)], 4 * MIB + 1),
    "odd ends": ([(65536, b"y" * 1001), (300_000, b"w")], 301_001),
}
FORMS = ["--format=gnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1"]
FORMS += ["--format=posix --sparse-version=1.0"]


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sparse_files_of_gnu_tar_are_read_whole(tmp_path: Path, form: str, shape: str) -> None:
    (tmp_path / "in").mkdir()
    wanted = make_sparse(tmp_path / "in" / "file", *SHAPES[shape])
    (tmp_path / "in" / "next").write_bytes(b"what follows")
    subprocess.run(
        ["tar", *form.split(), "-S", "-cf", tmp_path / "tar", "file", "next"], cwd=tmp_path / "in", check=True
    )
    assert (tmp_path / "tar").stat().st_size < len(wanted)
    found = {entry.name: (entry.size, b"".join(content)) for entry, content in read_file(tmp_path / "tar")}
    assert found == {b"file": (len(wanted), wanted), b"next": (12, b"what follows")}
    skipped = [entry.name for entry, _ in read_file(tmp_path / "tar")]
    assert skipped == [b"file", b"next"]


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar")
def test_sparse_files_of_bsdtar_are_read_whole(tmp_path: Path) -> None:
    wanted = make_sparse(tmp_path / "file", *SHAPES["thirty regions"])
    subprocess.run(["bsdtar", "--format=pax", "-cf", tmp_path / "tar", "file"], cwd=tmp_path, check=True)
    assert (tmp_path / "tar").stat().st_size < len(wanted)
    assert [(e.name, b"".join(c)) for e, c in read_file(tmp_path / "tar")] == [(b"file", wanted)]


def read_file(path: Path) -> object:
    return read(chunks(path.read_bytes(), 3000), where="t")


def test_a_sparse_file_is_packed_as_plain_content_and_gets_its_holes_back(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    regions = [(0, b"a" * 4096), (10 * MIB + 512, b"b" * 200_000)]
    wanted = make_sparse(tmp_path / "upper" / "file", regions, 30 * MIB)
    tar = b"".join(write(scan_upper(tmp_path / "upper", clamp=None, warn=fail)))
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:  # any reader sees an ordinary file
        member = archive.getmember("file")
        assert not member.issparse()
        reader = archive.extractfile(member)
        assert reader is not None
        assert reader.read() == wanted
    (tmp_path / "out").mkdir()
    unpack(read(chunks(tar), where="t"), tmp_path / "out", where="t", warn=fail)
    made = tmp_path / "out" / "file"
    assert made.read_bytes() == wanted
    assert made.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("size", [65535, 65536, 65537, MIB, MIB + 1, 3 * MIB - 1])
def test_files_of_zeros_have_their_size(tmp_path: Path, size: int) -> None:
    unpack(read(chunks(file(b"f", bytes(size)) + END), where="t"), tmp_path, where="t", warn=fail)
    assert (tmp_path / "f").stat().st_size == size
    assert not (tmp_path / "f").read_bytes().strip(b"\0")


def contents(tar: bytes, where: str) -> list[bytes]:
    return [b"".join(content) for _, content in read(chunks(tar), where=where)]


def old(size: int, *regions: tuple[int, int], data: bytes = b"", continued: bool = False) -> bytes:
    """An old GNU sparse header and its content."""
    block = bytearray(header(b"s", b"S", size=len(data), magic=b"ustar  \0"))
    for number, region in enumerate(regions):
        block[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % region
    block[482] = continued
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(data)


def pax(data: bytes = b"", **records: bytes) -> bytes:
    """A file with GNU.sparse records; `__` in a key stands for a dot."""
    body = b"".join(record(b"GNU.sparse." + key.encode(), value) for key, value in records.items())
    return extended(b"x", body) + file(b"s", data)


def leading(text: bytes, data: bytes = b"") -> bytes:
    return pax(padded(text) + data, major=b"1", minor=b"0", realsize=b"10")


WRONG = {
    "regions that overlap": old(100, (0, 20), (10, 20), data=b"x" * 40),
    "regions that go back": old(100, (50, 10), (0, 10), data=b"x" * 20),
    "a region past the end": old(100, (90, 20), data=b"x" * 20),
    "less stored than the map says": old(100, (0, 50), data=b"x" * 20),
    "more stored than the map says": old(100, (0, 10), data=b"x" * 20),
    "a map that goes on at the end": old(100, (0, 10), data=b"", continued=True),
    "another magic": header(b"s", b"S"),
    "an odd map": pax(b"x", size=b"1", map=b"0,1,1"),
    "a map with text": pax(b"x", size=b"1", map=b"0,x"),
    "negative numbers": pax(b"x", size=b"10", map=b"-5,1"),
    "huge numbers": pax(b"x", size=b"9" * 25, map=b"0,1"),
    "fewer blocks than it says": pax(b"x", size=b"1", numblocks=b"2", map=b"0,1"),
    "no size": pax(b"x", map=b"0,1"),
    "a version nobody defined": pax(b"x", major=b"2", minor=b"0", size=b"1", map=b"0,1"),
    "offsets without lengths": pax(b"x", size=b"1", offset=b"0"),
    "a leading map without end": leading(b"9\n0\n"),
    "a leading map of text": leading(b"x" * 600),
    "a leading map with a negative count": leading(b"-1\n"),
    "a leading map past the content": leading(b"1\n0\n999\n", b"x"),
    "both ways at once": extended(b"x", record(b"GNU.sparse.size", b"1")) + old(0),
    "a symlink": extended(b"x", record(b"GNU.sparse.size", b"1")) + header(b"s", b"2", linkname=b"t"),
    "a global header": extended(b"g", record(b"GNU.sparse.size", b"1")) + file(b"s"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_sparse_map_that_is_wrong_is_refused_in_one_line(case: str) -> None:
    with pytest.raises(InvalidArchive) as refused:
        contents(WRONG[case] + END, where="layer 7")
    assert str(refused.value).startswith("layer 7")
    assert "\n" not in str(refused.value)


def test_a_map_is_taken_at_its_limit_and_refused_one_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAR_SPARSE_REGIONS", 50)

    def archive(count: int) -> list[bytes]:
        text = b",".join(b"%d,1" % (2 * at) for at in range(count))
        lines = b"%d\n" % count + b"".join(b"%d\n1\n" % (2 * at) for at in range(count))
        data = b"x" * count
        first = pax(data, size=b"1000", map=text)
        last = pax(padded(lines) + data, major=b"1", minor=b"0", realsize=b"1000")
        return [first, last]

    for tar in archive(50):
        assert list(map(len, contents(tar + END, where="t"))) == [1000]
    for tar in archive(51):
        with pytest.raises(LimitExceeded, match="50"):
            contents(tar + END, where="t")


def test_holes_count_for_the_size_of_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LAYER_BYTES", 3000)
    tar = old(1000) + old(2000)
    assert [entry.size for entry, _ in read(chunks(tar + END), where="t")] == [1000, 2000]
    with pytest.raises(LimitExceeded):
        list(read(chunks(tar + old(1) + END), where="t"))
    with pytest.raises(LimitExceeded):
        list(read(chunks(old(3001) + END), where="t"))


def test_a_hole_as_big_as_a_layer_may_be_costs_nothing_to_unpack(tmp_path: Path) -> None:
    body = record(b"GNU.sparse.size", b"%d" % (200 << 30)) + record(b"GNU.sparse.map", b"")
    tar = extended(b"x", body) + file(b"s") + END
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unpack(read(chunks(tar), where="t"), tmp_path, where="t", warn=fail)
    assert (tmp_path / "s").stat().st_size == 200 << 30
    assert (tmp_path / "s").stat().st_blocks == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


STREAM = """
import sys
from pathlib import Path
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
entries = read(write(scan_upper(Path(sys.argv[1]), clamp=None, warn=print)), where="t")
print(sum(sum(map(len, content)) for _, content in entries))
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


@pytest.mark.slow
@pytest.mark.parametrize("filled", [False, True], ids=["hole", "data"])
def test_the_stream_of_a_big_file_takes_little_memory(tmp_path: Path, filled: bool) -> None:
    size = 256 * MIB if filled else 4096 * MIB
    with (tmp_path / "big").open("wb") as out:
        for _ in range(size // MIB if filled else 0):
            out.write(os.urandom(1024) * 1024)
        out.truncate(size)
    done = subprocess.run([sys.executable, "-c", STREAM, tmp_path], check=True, capture_output=True, text=True)
    seen, peak = map(int, done.stdout.split())
    assert seen == size
    assert peak < 64 * 1024, f"{peak} KiB at most"


def test_every_prefix_of_a_sparse_archive_ends_in_an_error_of_ours() -> None:
    tar = leading(b"1\n0\n10\n", b"0123456789") + old(30, (0, 5), (20, 5), data=b"x" * 10)
    assert [e.size for e, _ in read(chunks(tar + END), where="t")] == [10, 30]
    for cut in itertools.chain(range(1, len(tar), 97), [len(tar) - 1]):
        if cut % 512 == 0:
            continue
        with pytest.raises(InvalidArchive):
            contents(tar[:cut], where="t")


def test_a_map_is_not_read_further_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends maps without end learns of the limit before the next block is asked for."""
    monkeypatch.setattr(limits, "TAR_SPARSE_REGIONS", 50)
    asked = 0

    def blocks(first: bytes, then: bytes) -> Iterator[bytes]:
        nonlocal asked
        yield first
        while True:
            asked += 1
            assert asked < 100, "the map is read without end"
            yield then

    endless = old(100, continued=True)[:512]
    more = b"".join(b"%011o\0%011o\0" % (at, 0) for at in range(21)) + b"\1" + bytes(7)
    with pytest.raises(LimitExceeded, match="more regions"):
        list(read(blocks(endless, more), where="t"))
    count, asked = b"51\n", 0
    stated = extended(
        b"x",
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9"),
    )
    with pytest.raises(LimitExceeded, match="more regions"):
        list(read(blocks(stated + header(b"s", size=1 << 30) + padded(count), bytes(512)), where="t"))
    asked = 0
    with pytest.raises(InvalidArchive, match="not numbers"):
        list(read(blocks(stated + header(b"s", size=1 << 30), b"1" * 512), where="t"))


def test_regions_without_data_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAR_SPARSE_REGIONS", 50)
    fits = b",".join([b"0,0"] * 50)
    assert contents(pax(size=b"0", map=fits) + END, where="t") == [b""]
    with pytest.raises(LimitExceeded, match="more regions"):
        contents(pax(size=b"0", map=fits + b",0,0") + END, where="t")


@pytest.mark.parametrize("form", ["header", "records"])
def test_a_sparse_file_is_no_bigger_than_a_layer_whatever_is_stored_of_it(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LAYER_BYTES", 3000)

    def archive(size: int) -> bytes:
        return old(size, (0, 1), data=b"x") if form == "header" else pax(b"x", size=b"%d" % size, map=b"0,1")

    assert list(map(len, contents(archive(3000) + END, where="t"))) == [3000]
    with pytest.raises(LimitExceeded, match="a sparse file of 3001 bytes"):
        contents(archive(3001) + END, where="t")
