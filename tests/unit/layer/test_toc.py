"""Tables of contents of zstd:chunked and eStargz, read and held against the tar."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
import zstandard

from imagetool import limits
from imagetool.content.memory import MemoryStore
from imagetool.errors import DigestMismatch, InvalidArchive, LimitExceeded
from imagetool.image.verify import verify
from imagetool.layer.annotations import CHUNKED_CHECKSUM, CHUNKED_POSITION, STARGZ_TOC
from imagetool.layer.toc import TocEntry, compare, read_toc
from imagetool.oci import mediatype
from imagetool.streams.decompress import decompress
from tests.support import tars
from tests.unit.layer.chunks import ANNOTATIONS, BLOB, ITEMS, TAR, chunked, image_with, tar_of

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
    files = [*FILES, ("empty", b"")]  # its digest is in the table all the same
    blob, annotations = estargz(files)
    tar = b"".join(decompress([blob], where="x"))
    toc = toc_of(blob, annotations)
    assert [(entry.name, entry.size) for entry in toc] == [(name.encode(), len(data)) for name, data in files]
    assert list(compare(toc, [tar], where="x")) == []
    with pytest.raises(DigestMismatch):
        toc_of(blob, {STARGZ_TOC: "sha256:" + "0" * 64})


def test_verify_finds_a_layer_that_is_two_different_ones() -> None:
    store = MemoryStore()
    for lie in (False, True):
        blob, annotations = estargz(FILES, lie=lie)
        root = image_with(store, blob, annotations, mediatype.OCI_LAYER_GZIP)
        problems = [check.problem for check in verify(store, root) if check.problem]
        assert len(problems) == lie
    assert "a: size is 4 in the table of contents and 3 in the tar; b: size" in problems[0]
