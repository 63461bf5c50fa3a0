"""What is wrong with the stream that a tar comes from is said with the entry that was reached, however small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.tarreader import read
from imagetool.streams.codecs import Codec
from imagetool.streams.decompress import decompress
from tests.support import tars

SIZES = [0, 1, 512, 65_536, 65_537, 300_000]


def tar_of(size: int, count: int = 5) -> bytes:
    return b"".join(tars.file(b"f%d" % number, b"x" * size) for number in range(count)) + tars.END


def cut(tar: bytes, at: int) -> Iterator[bytes]:
    """Give a tar up to a place, in pieces, and fail there as a codec does."""
    for start in range(0, at, 700):
        yield tar[start : min(at, start + 700)]
    raise LimitExceeded("layer 3: unpacks to more than it may")


def names_until_error(chunks: Iterator[bytes], expected: type[Exception]) -> tuple[list[str], str]:
    seen: list[str] = []
    with pytest.raises(expected) as refused:
        read_all(chunks, seen)
    return seen, str(refused.value)


def read_all(chunks: Iterator[bytes], seen: list[str]) -> None:
    for entry, content in read(chunks, where="layer 3"):
        seen.append(entry.name.decode())
        for _ in content:
            pass


@pytest.mark.parametrize("size", SIZES)
def test_content_that_does_not_come_is_in_its_entry(size: int) -> None:
    tar = tar_of(size)
    third = 2 * (512 + size + -size % 512)
    if size:
        _, said = names_until_error(cut(tar, third + 512 + size // 2), LimitExceeded)
        assert said == "layer 3: unpacks to more than it may; reached in entry f2"
    seen, said = names_until_error(cut(tar, third + 100), LimitExceeded)
    assert seen == ["f0", "f1"]
    assert said == "layer 3: unpacks to more than it may; reached after entry f1"


@pytest.mark.parametrize("size", SIZES)
def test_a_stream_that_ends_too_soon_names_the_entry(size: int) -> None:
    third = 2 * (512 + size + -size % 512)
    seen, said = names_until_error(iter([tar_of(size)[: third + 100]]), InvalidArchive)
    assert seen == ["f0", "f1"]
    assert said == "layer 3: the archive ends in the middle of an entry; reached after entry f1"
    if size > 1:
        _, said = names_until_error(iter([tar_of(size)[: third + 512 + size // 2]]), InvalidArchive)
        assert said == "layer 3: the archive ends in the middle of an entry; reached in entry f2"


def test_an_error_before_the_first_entry_names_none() -> None:
    assert names_until_error(cut(tar_of(1), 0), LimitExceeded) == ([], "layer 3: unpacks to more than it may")


def test_what_follows_the_end_is_after_the_last_entry() -> None:
    tar = tar_of(1) + bytes(1 << 20)
    _, said = names_until_error(cut(tar, len(tar)), LimitExceeded)
    assert said.endswith("; reached after entry f4")


def test_an_entry_s_name_is_shown_as_something_printable() -> None:
    tar = tars.file(b"a\x1b[31m\n", b"x" * 100) + tars.END
    _, said = names_until_error(cut(tar, 600), LimitExceeded)
    assert said.endswith("; reached in entry a\\x1b[31m\\n")


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.parametrize("bounds", [{"limit": 1 << 20}, {"ratio": 10}])
def test_a_bomb_of_small_files_names_one_of_them(
    codec: str, bounds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LAYER_RATIO_FLOOR", 1 << 20)
    tar = tar_of(1000, 4000)
    blob = b"".join(Codec.parse(codec).compress([tar]))
    seen, said = names_until_error(decompress([blob], where="layer 3", **bounds), LimitExceeded)
    assert said.startswith("layer 3: unpacks to more than ")
    assert said.rpartition("entry ")[2] in (seen[-1], f"f{len(seen)}")


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_damaged_layer_names_where_the_damage_was_met(codec: str) -> None:
    tar = tar_of(1000, 4000)
    blob = bytearray(b"".join(Codec.parse(codec).compress([tar])))
    del blob[len(blob) * 3 // 4 :]
    seen, said = names_until_error(decompress([bytes(blob)], where="layer 3"), InvalidArchive)
    assert said.startswith("layer 3: ")
    assert seen
    assert said.rpartition("entry ")[2] in (seen[-1], f"f{len(seen)}")
