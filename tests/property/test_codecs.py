"""Codecs on any input, cut in any way: the same bytes, read back by us, by libraries and by programs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import random
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.streams.codecs import Codec
from imagetool.streams.decompress import decompress
from imagetool.streams.zstdframes import skippable, whole_blocks

#: Runs of noise, of one byte, and of what was there before, as (kind, length, seed).
RUNS = st.lists(st.tuples(st.sampled_from("nzr"), st.integers(0, 700_000), st.integers(0, 255)), min_size=0, max_size=6)
CUTS = st.lists(st.integers(1, 1_500_000), min_size=1, max_size=8)
CODECS = st.sampled_from(
    [Codec.parse(spec) for spec in ("gzip", "gzip:0", "gzip:1", "gzip:5", "zstd", "zstd:1", "zstd:long=20", "none")]
    + [Codec.parse("gzip:1").made_reproducible()]
)


def build(runs: list[tuple[str, int, int]]) -> bytes:
    data = b""
    for kind, length, seed in runs:
        if kind == "n":
            data += random.Random(seed).randbytes(length)
        else:
            data += bytes([seed]) * length if kind == "z" else data[-length:]
    return data


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        yield data[at : at + size]
        at += size
        number += 1


@settings(max_examples=60, deadline=None)
@given(codec=CODECS, runs=RUNS, one=CUTS, other=CUTS)
def test_the_output_does_not_depend_on_how_the_input_is_cut(
    codec: Codec, runs: list[tuple[str, int, int]], one: list[int], other: list[int]
) -> None:
    data = build(runs)
    written = b"".join(codec.compress(cut(data, one)))
    assert written == b"".join(codec.compress(cut(data, other)))
    assert b"".join(decompress(cut(written, other), where="test")) == data


@pytest.mark.peer
@settings(max_examples=12, deadline=None)
@given(codec=CODECS, runs=RUNS)
def test_the_programs_of_the_formats_read_what_we_write(codec: Codec, runs: list[tuple[str, int, int]]) -> None:
    program = {"gzip": "gzip", "zstd": "zstd"}.get(codec.compression)
    if program is None:
        return
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    data = build(runs)
    done = subprocess.run([program, "-dc"], input=b"".join(codec.compress([data])), capture_output=True, check=True)
    assert done.stdout == data


FRAMES = st.lists(
    st.tuples(st.sampled_from(["one", "stream", "skip", "plain"]), st.integers(1, 19), st.integers(10, 22), RUNS),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(frames=FRAMES, sizes=CUTS)
def test_zstd_frames_of_every_shape_are_walked_right(
    frames: list[tuple[str, int, int, list[tuple[str, int, int]]]], sizes: list[int]
) -> None:
    written, expected = b"", b""
    for shape, level, window, runs in frames:
        data = build(runs)[:400_000]
        if shape == "skip":
            written += skippable(data)
            continue
        expected += data
        parameters = zstandard.ZstdCompressionParameters.from_level(
            min(level, 5), window_log=window, write_checksum=level % 2, write_content_size=shape != "plain"
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        if shape == "one":
            written += compressor.compress(data)
        else:
            object_ = compressor.compressobj()
            written += object_.compress(data) + object_.flush()
    assert b"".join(decompress(cut(written, sizes), where="test")) == expected
    if frames[0][0] != "skip" or len(frames) > 1:
        pieces = list(whole_blocks(cut(written, sizes), window=1 << 27, where="test"))
        reader = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
        assert all(len(reader.decompress(piece)) <= 1 << 20 for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["gzip", "zstd", "xz", "bzip2"]),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    end=st.integers(0, 5000),
    sizes=CUTS,
)
def test_damage_is_one_of_our_errors_or_no_damage(
    kind: str, edits: list[tuple[int, int]], end: int, sizes: list[int]
) -> None:
    data = random.Random(3).randbytes(1000) + bytes(3000) + b"abc" * 400
    make = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "xz": lzma.compress}
    written = bytearray(make.get(kind, bz2.compress)(data))
    for at, value in edits:
        written[at % len(written)] = value
    with contextlib.suppress(InvalidArchive, LimitExceeded):
        list(decompress(cut(bytes(written[:end]), sizes), where="test"))
