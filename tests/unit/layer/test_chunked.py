"""zstd:chunked and eStargz: written blobs taken apart by hand, tables of contents read and held against the tar."""

from __future__ import annotations

import base64
import ctypes
import gzip
import hashlib
import json
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool import limits
from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.errors import DigestMismatch, InvalidArchive, LimitExceeded, StorageError, Unsupported
from imagetool.image.image import Layer
from imagetool.image.verify import verify
from imagetool.image.write import write_image, write_layer
from imagetool.layer import crc64 as crc64_module
from imagetool.layer.annotations import CHUNKED_CHECKSUM, CHUNKED_POSITION, CHUNKED_TAR_SPLIT, STARGZ_TOC
from imagetool.layer.chunked import Names, compress
from imagetool.layer.crc64 import crc64, folded_crc64
from imagetool.layer.entry import Entry
from imagetool.layer.tarcodec import write
from imagetool.layer.toc import TocEntry, compare, read_toc
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.streams.decompress import decompress
from tests.support import tars

BIG = random.Random(5).randbytes(1000) * 9500  # five chunks
Crc = Callable[[bytes, int], int]
TIME = 1_700_000_000_123_000_000
ITEMS: list[tuple[Entry, bytes]] = [
    (Entry(b".", "dir", 0o755), b""),
    (Entry(b"etc", "dir", 0o755, mtime=TIME), b""),
    (Entry(b"etc/passwd", "file", 0o644, size=5, mtime=TIME), b"root\n"),
    (Entry(b"etc/link", "symlink", 0o777, linkname=b"passwd"), b""),
    (Entry(b"etc/same", "link", 0o644, linkname=b"etc/passwd"), b""),
    (Entry(b"empty", "file", 0o600, 1000, 1000), b""),
    (Entry(b"big", "file", 0o4755, size=len(BIG)), BIG),
    (Entry(b"n" * 180 + b"/" + b"long" * 20, "file", size=3), b"abc"),
    (Entry("ünïcode".encode(), "file", size=512, xattrs={b"security.capability": b"\1\0\xff"}), b"x" * 512),
    (Entry(b"null", "char", 0o666, devmajor=1, devminor=3), b""),
    (Entry(b"pipe", "fifo"), b""),
]


def tar_of(items: list[tuple[Entry, bytes]]) -> bytes:
    return b"".join(write((entry, [data] if data else []) for entry, data in items))


TAR = tar_of(ITEMS)


def chunked(tar: bytes, spec: str = "zstd:chunked", cut: int = 100_000) -> tuple[bytes, dict[str, str]]:
    annotations: dict[str, str] = {}
    pieces = (tar[at : at + cut] for at in range(0, len(tar), cut))
    return b"".join(compress(pieces, Codec.parse(spec), annotations, where="layer")), annotations


def frames_of(blob: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(blob)


BLOB, ANNOTATIONS = chunked(TAR)


def part(key: str) -> bytes:
    """Return what an annotation points at, decompressed."""
    at, length, size, *_ = map(int, ANNOTATIONS[key].split(":"))
    data = frames_of(BLOB[at : at + length])
    assert len(data) == size
    return data


# -- the format, by hand -----------------------------------------------------------------------


def test_to_everybody_else_it_is_a_zstd_stream_of_the_tar() -> None:
    assert frames_of(BLOB) == TAR
    assert b"".join(decompress([BLOB], where="x")) == TAR


@pytest.mark.peer
def test_the_zstd_program_reads_it(tmp_path: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    done = subprocess.run(["zstd", "-dc"], input=BLOB, capture_output=True, check=True)
    assert done.stdout == TAR


def test_the_footer_says_where_everything_is() -> None:
    footer = BLOB[-72:]
    assert footer[:8] == b"\x50\x2a\x4d\x18\x40\0\0\0"
    assert footer[-8:] == b"GNUlInUx"
    numbers = [int.from_bytes(footer[at : at + 8], "little") for at in range(8, 64, 8)]
    assert ":".join(map(str, numbers[:4])) == ANNOTATIONS[CHUNKED_POSITION]
    assert ":".join(map(str, numbers[4:])) == ANNOTATIONS[CHUNKED_TAR_SPLIT]
    at, length, _, kind = numbers[:4]
    assert kind == 1
    assert f"sha256:{hashlib.sha256(BLOB[at : at + length]).hexdigest()}" == ANNOTATIONS[CHUNKED_CHECKSUM]
    assert BLOB[at - 8 : at] == b"\x50\x2a\x4d\x18" + length.to_bytes(4, "little")


def test_every_content_can_be_had_by_its_range_alone() -> None:
    entries = json.loads(part(CHUNKED_POSITION))["entries"]
    contents = {entry.name.decode(): data for entry, data in ITEMS}
    seen = 0
    for number, entry in enumerate(entries):
        if entry["type"] != "reg" or not entry.get("size"):
            assert not set(entry) & {"offset", "digest", "endOffset"} or entry["type"] == "chunk"
            continue
        data = frames_of(BLOB[entry["offset"] : entry["endOffset"]])
        assert data == contents[entry["name"]]
        assert entry["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        chunks = [entry, *(e for e in entries[number + 1 :] if e["type"] == "chunk" and e["name"] == entry["name"])]
        if "chunkSize" in entry:
            ends = [chunk["offset"] for chunk in chunks[1:]] + [entry["endOffset"]]
            for chunk, end in zip(chunks, ends, strict=True):
                piece = frames_of(BLOB[chunk["offset"] : end])
                at = chunk.get("chunkOffset", 0)
                assert piece == data[at : at + chunk["chunkSize"]]
                assert chunk["chunkDigest"] == f"sha256:{hashlib.sha256(piece).hexdigest()}"
        seen += 1
    assert seen == 4
    assert sum(entry["type"] == "chunk" for entry in entries) == 4


def test_the_table_says_what_the_tar_says() -> None:
    table = json.loads(part(CHUNKED_POSITION))
    assert table["version"] == 1
    by_name = {entry["name"]: entry for entry in table["entries"] if entry["type"] != "chunk"}
    assert by_name["etc/passwd"] | {"offset": 0, "endOffset": 0} == {
        "type": "reg",
        "name": "etc/passwd",
        "mode": 0o644,
        "size": 5,
        "modtime": "2023-11-14T22:13:20.123Z",
        "digest": str(Digest.of(b"root\n")),
        "offset": 0,
        "endOffset": 0,
    }
    assert by_name["etc/"]["type"] == "dir"
    assert (by_name["etc/link"]["type"], by_name["etc/link"]["linkName"]) == ("symlink", "passwd")
    assert (by_name["etc/same"]["type"], by_name["etc/same"]["linkName"]) == ("hardlink", "etc/passwd")
    assert (by_name["empty"]["uid"], by_name["empty"]["gid"]) == (1000, 1000)
    assert by_name["big"]["mode"] == 0o4755
    assert (by_name["null"]["devMajor"], by_name["null"]["devMinor"]) == (1, 3)
    assert by_name["ünïcode"]["xattrs"] == {"security.capability": base64.b64encode(b"\1\0\xff").decode()}
    assert len(by_name) == len(ITEMS)


def test_tar_split_and_the_contents_make_the_same_tar_again() -> None:
    at, length, _ = map(int, ANNOTATIONS[CHUNKED_TAR_SPLIT].split(":"))
    digest = json.loads(part(CHUNKED_POSITION))["tarSplitDigest"]
    assert digest == f"sha256:{hashlib.sha256(BLOB[at : at + length]).hexdigest()}"
    contents = {entry.name: data for entry, data in ITEMS}
    made = b""
    for number, line in enumerate(part(CHUNKED_TAR_SPLIT).splitlines()):
        entry = json.loads(line)
        assert entry["position"] == number
        if entry["type"] == 2:
            made += base64.b64decode(entry["payload"])
        elif entry.get("size"):
            data = contents[entry["name"].encode()]
            assert (
                base64.b64decode(entry["payload"]) == slow_crc64(data[:50_000]).to_bytes(8, "big") or len(data) > 50_000
            )
            made += data
        else:
            assert entry["payload"] is None
    assert made == TAR


# -- CRC-64 ------------------------------------------------------------------------------------


def slow_crc64(data: bytes) -> int:
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD800000000000000 if crc & 1 else 0)
    return crc ^ ((1 << 64) - 1)


BOTH = pytest.mark.parametrize("function", [crc64, folded_crc64])  # that of a library where it is there, and ours


@BOTH
def test_the_crc_has_its_check_value(function: Crc) -> None:
    assert function(b"123456789", 0) == 0xB90956C775A41001
    assert function(b"", 0) == 0


@BOTH
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000), cut=st.integers(0, 3000))
def test_the_crc_is_that_of_the_definition_however_it_is_cut(function: Crc, data: bytes, cut: int) -> None:
    assert function(data[cut:], function(data[:cut], 0)) == slow_crc64(data)


@BOTH
def test_the_crc_of_long_data_is_that_of_its_parts(function: Crc) -> None:
    data = random.Random(2).randbytes(200_000)
    assert function(data, 0) == function(data[16_384:], function(data[:16_384], 0))
    assert function(data[:20_000], 0) == slow_crc64(data[:20_000])


@pytest.mark.parametrize("answer", [AttributeError, lambda *_: 1])
def test_a_library_that_has_no_such_crc_or_another_one_is_not_used(
    answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def __getattr__(self, name: str) -> object:
            assert name == "crc64_iso_refl"
            if answer is AttributeError:
                raise AttributeError(name)
            return answer

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    assert crc64_module._native.__wrapped__() is None


# -- determinism and limits --------------------------------------------------------------------


def test_the_blob_is_the_same_for_any_cut_and_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {chunked(TAR, cut=cut)[0] for cut in (511, 65_536, len(TAR))}
    for threads in (1, 4):
        monkeypatch.setattr("imagetool.layer.chunked.threads_for_codecs", lambda threads=threads: threads)
        made.add(chunked(TAR)[0])
    assert made == {BLOB}
    assert chunked(TAR, "zstd:chunked:19")[0] != BLOB


@pytest.mark.parametrize("padding", [0, 512, 10_240])
def test_what_follows_the_last_entry_is_kept(padding: int) -> None:
    blob, _ = chunked(TAR + bytes(padding))
    assert frames_of(blob) == TAR + bytes(padding)


def test_an_empty_tar_is_a_layer_too() -> None:
    blob, annotations = chunked(bytes(1024))
    assert frames_of(blob) == bytes(1024)
    assert read_toc(lambda at, size: blob[at : at + size], len(blob), annotations, where="x") == []


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (tars.file(b"a", b"1") + tars.file(b"./a", b"2") + tars.END, "two entries named a"),
        (tars.file(b"\xff", b"1") + tars.END, "not UTF-8"),
        (tars.extended(b"g", tars.record(b"comment", b"x")) + tars.file(b"a") + tars.END, "global extended header"),
    ],
    ids=["twice", "bytes", "global"],
)
def test_what_the_format_cannot_carry_is_refused_with_advice(tar: bytes, message: str) -> None:
    with pytest.raises(Unsupported, match=f"{message}.*use zstd"):
        chunked(tar)


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x")
    for form in ("gnu", "pax"):
        command = ["tar", "-S", f"--format={form}", "-cf", tmp_path / "t", "-C", tmp_path, "sparse"]
        subprocess.run(command, check=True)
        with pytest.raises(Unsupported, match="sparse is a sparse file"):
            chunked((tmp_path / "t").read_bytes())


def test_of_thousands_of_names_each_is_new_once() -> None:
    names = [b"%d/%d" % (number % 97, number) for number in range(20_000)]
    seen = Names()
    assert all(seen.add(name) for name in names)
    assert not any(seen.add(name) for name in names)


def test_tables_that_do_not_fit_into_memory_are_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("imagetool.layer.tarsplit._IN_MEMORY", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert chunked(TAR) == (BLOB, ANNOTATIONS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/dev/full", "/nowhere"])
def test_a_disk_that_takes_no_table_is_told(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagetool.layer.tarsplit._IN_MEMORY", 100)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: open(place, "r+b", buffering=0))
    with pytest.raises(StorageError, match=r"layer: cannot keep its table of contents.*No (space|such)"):
        chunked(TAR)


def test_a_table_that_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, size, _ = map(int, ANNOTATIONS[CHUNKED_POSITION].split(":"))
    monkeypatch.setattr(limits, "TOC_BYTES", size)
    assert chunked(TAR)[0] == BLOB
    monkeypatch.setattr(limits, "TOC_BYTES", size - 1)
    with pytest.raises(LimitExceeded, match=r"a table of contents of more than .*toc-bytes=.*use zstd"):
        chunked(TAR)


def test_endless_padding_is_not_held() -> None:
    def tar() -> Iterator[bytes]:
        yield TAR
        while True:
            yield bytes(1 << 20)

    with pytest.raises(LimitExceeded, match="no content of an entry"):
        for _ in compress(tar(), Codec.parse("zstd:chunked"), {}, where="layer"):
            pass


# -- reading -----------------------------------------------------------------------------------


def test_the_table_is_read_back_and_agrees_with_the_tar() -> None:
    toc = read_toc(lambda at, size: BLOB[at : at + size], len(BLOB), ANNOTATIONS, where="layer x")
    assert [entry.name for entry in toc] == [entry.name for entry, _ in ITEMS]
    assert list(compare(toc, [TAR], where="layer x")) == []


def toc_of(blob: bytes, annotations: dict[str, str]) -> list[TocEntry]:
    return read_toc(lambda at, size: blob[at : at + size], len(blob), annotations, where="layer x")


def test_the_footer_of_before_tar_split_is_read_too() -> None:
    at, length, size, kind = map(int, ANNOTATIONS[CHUNKED_POSITION].split(":"))
    footer = b"".join(number.to_bytes(8, "little") for number in (at, length, size, kind)) + b"GnUlInUx"
    old = BLOB[: at + length] + b"\x50\x2a\x4d\x18\x28\0\0\0" + footer
    annotations = {name: value for name, value in ANNOTATIONS.items() if name.startswith("io.containers.")}
    assert len(annotations) == 2
    assert toc_of(old, annotations) == toc_of(BLOB, ANNOTATIONS)
    with pytest.raises(DigestMismatch):
        toc_of(old, {"io.containers.zstd-chunked.manifest-checksum": "sha256:" + "0" * 64})


def test_a_table_that_was_exchanged_is_refused() -> None:
    other, annotations = chunked(tar_of(ITEMS[:3]))
    with pytest.raises(DigestMismatch, match="table of contents"):
        toc_of(other, {CHUNKED_CHECKSUM: ANNOTATIONS[CHUNKED_CHECKSUM]})
    with pytest.raises(InvalidArchive, match="its footer elsewhere"):
        toc_of(other, {**annotations, CHUNKED_POSITION: "1:2:3:1"})


def test_a_blob_without_a_table_says_so() -> None:
    for blob in (b"", b"short", gzip.compress(TAR), BLOB[:-72], zstandard.ZstdCompressor().compress(TAR)):
        with pytest.raises(InvalidArchive, match=r"no table of contents|stream ends"):
            toc_of(blob, {})


def test_a_huge_table_is_refused_by_what_the_footer_says() -> None:
    numbers = (8, limits.TOC_BYTES + 1, 10, 1, 0, 0, 0)
    footer = b"".join(number.to_bytes(8, "little") for number in numbers) + b"GNUlInUx"
    with pytest.raises(LimitExceeded, match="toc-bytes"):
        toc_of(b"\x50\x2a\x4d\x18\x40\0\0\0" + footer, {})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"digest": "sha256:" + "0" * 64}, "etc/passwd: content is"),
        ({"size": 6}, "etc/passwd: size is 6"),
        ({"mode": 0o4755}, "etc/passwd: mode is"),
        ({"uid": 1}, r"etc/passwd: owner is \(1, 0\)"),
        ({"type": "symlink"}, "etc/passwd: type is 'symlink'"),
        ({"name": b"etc/shadow"}, "etc/passwd is in the tar and not in the table"),
    ],
)
def test_every_difference_between_table_and_tar_is_found(change: dict[str, Any], line: str) -> None:
    toc = [replace(entry, **change) if entry.name == b"etc/passwd" else entry for entry in toc_of(BLOB, ANNOTATIONS)]
    found = list(compare(toc, [TAR], where="layer x"))
    assert len(found) == (2 if "name" in change else 1)
    assert re.match(line, found[0])


def estargz(items: list[tuple[str, bytes]], *, lie: bool = False) -> tuple[bytes, dict[str, str]]:
    """Return a layer as stargz-snapshotter writes it: a gzip member for each file, then the table, then the footer."""
    blob, entries = b"", []
    for name, data in items:
        at = len(blob)
        blob += gzip.compress(tars.file(name.encode(), data), mtime=0)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        entry = {"name": name, "type": "reg", "size": len(data) + lie, "mode": 0o644, "offset": at, "digest": digest}
        entries.append(entry)
    table = json.dumps({"version": 1, "entries": entries}).encode()
    at = len(blob)
    blob += gzip.compress(tars.file(b"stargz.index.json", table) + tars.END, mtime=0)
    extra = b"SG\x16\0" + b"%016xSTARGZ" % at
    blob += b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + len(extra).to_bytes(2, "little") + extra
    blob += b"\x01\0\0\xff\xff" + bytes(8)
    return blob, {STARGZ_TOC: f"sha256:{hashlib.sha256(table).hexdigest()}"}


FILES = [("a", b"one"), (".no.prefetch.landmark", b"\xf0"), ("b", b"two" * 1000)]


def test_estargz_is_gzip_and_its_table_is_read() -> None:
    blob, annotations = estargz(FILES)
    tar = b"".join(decompress([blob], where="x"))
    toc = toc_of(blob, annotations)
    assert [(entry.name, entry.size) for entry in toc] == [(name.encode(), len(data)) for name, data in FILES]
    assert list(compare(toc, [tar], where="x")) == []
    with pytest.raises(DigestMismatch):
        toc_of(blob, {STARGZ_TOC: "sha256:" + "0" * 64})


# -- in images ---------------------------------------------------------------------------------


def image_with(store: Any, blob: bytes, annotations: dict[str, str], media_type: str) -> Descriptor:
    store.push(Descriptor.of(blob, media_type), [blob])
    tar = b"".join(decompress([blob], where="x"))
    layer = Layer(Descriptor(media_type, Digest.of(blob), len(blob), annotations), Digest.of(tar))
    config = ImageConfig.make(platform=Platform(), run=RunConfig(), diff_ids=[layer.diff_id], history=[], created="")
    return write_image(store, config, [layer]).descriptor


def test_verify_finds_a_layer_that_is_two_different_ones() -> None:
    store = MemoryStore()
    for lie in (False, True):
        blob, annotations = estargz(FILES, lie=lie)
        root = image_with(store, blob, annotations, mediatype.OCI_LAYER_GZIP)
        problems = [check.problem for check in verify(store, root) if check.problem]
        assert len(problems) == lie
    assert "a: size is 4 in the table of contents and 3 in the tar; b: size" in problems[0]


def test_write_layer_puts_the_annotations_on_the_descriptor() -> None:
    store = MemoryStore()
    layer = write_layer([TAR], store, Codec.parse("zstd:chunked"))
    assert layer.descriptor.annotations == ANNOTATIONS
    assert layer.descriptor.media_type == mediatype.OCI_LAYER_ZSTD
    assert layer.diff_id == Digest.of(TAR)
    assert store.blobs[layer.descriptor.digest] == BLOB


@pytest.mark.peer
def test_skopeo_and_umoci_take_it_for_what_it_also_is(tmp_path: Path) -> None:
    for program in ("skopeo", "tar"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    store = LayoutStore.create(tmp_path / "layout")
    store.tag(image_with(store, BLOB, ANNOTATIONS, mediatype.OCI_LAYER_ZSTD), "app")
    target = f"dir:{tmp_path / 'out'}"
    command = ["skopeo", "copy", "-q", "--dest-decompress", f"oci:{tmp_path / 'layout'}:app", target]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "out" / Digest.of(TAR).hex).read_bytes() == TAR
