"""zstd:chunked written: blobs taken apart by hand, down to the table of contents."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from imagetool import limits
from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.errors import LimitExceeded, StorageError, Unsupported
from imagetool.image.write import write_layer
from imagetool.layer.annotations import CHUNKED_CHECKSUM, CHUNKED_POSITION, CHUNKED_TAR_SPLIT
from imagetool.layer.chunked import Names, compress
from imagetool.layer.toc import read_toc
from imagetool.oci import mediatype
from imagetool.oci.digest import Digest
from imagetool.streams.codecs import Codec
from imagetool.streams.decompress import decompress
from tests.support import tars
from tests.unit.layer.chunks import ANNOTATIONS, BLOB, ITEMS, TAR, chunked, image_with, slow_crc64


def frames_of(blob: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(blob)


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
