"""What a codec writes: its levels and libraries, its identity, and the bytes it promises to everybody."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import subprocess
import sys
import zlib

import pytest
import zstandard

from imagetool.errors import HostError, UsageError
from imagetool.streams import codecs, pump, stockzlib
from imagetool.streams.codecs import Codec
from imagetool.streams.decompress import decompress

WORDS = [random.Random(1).randbytes(5).hex().encode() for _ in range(500)]


def text(size: int, seed: int = 0) -> bytes:
    """Return bytes that compress about as well as a layer does."""
    chosen = random.Random(seed)
    return b" ".join(chosen.choices(WORDS, k=size // 8))[:size]


SAMPLE = text(5 << 20)
SPECS = ["none", "gzip", "gzip:0", "gzip:1", "gzip:4", "gzip:6"]
SPECS += ["zstd", "zstd:1", "zstd:9", "zstd:13", "zstd:3:long=27"]


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_written_is_read_back_by_us_and_by_the_format_s_own_program(spec: str) -> None:
    written = b"".join(Codec.parse(spec).compress([SAMPLE]))
    assert b"".join(decompress([written], where="test")) == SAMPLE
    if spec.startswith("gzip"):
        assert gzip.decompress(written) == SAMPLE
    elif spec.startswith("zstd"):
        assert zstandard.ZstdDecompressor().decompressobj().decompress(written) == SAMPLE


@pytest.mark.parametrize("spec", SPECS)
def test_the_output_is_the_same_for_any_number_of_threads(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.parse(spec)
    written = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr("imagetool.streams.codecs.threads_for_codecs", lambda threads=threads: threads)
        monkeypatch.setattr(pump, "threads_for_codecs", lambda threads=threads: threads)
        written.add(b"".join(codec.compress([SAMPLE])))
    assert len(written) == 1


@pytest.mark.parametrize("spec", ["gzip", "gzip:6", "zstd"])
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20])
def test_streams_end_well_around_the_size_of_a_block(spec: str, size: int) -> None:
    data = text(2 << 20)[:size]
    written = b"".join(Codec.parse(spec).compress([data] if data else []))
    assert b"".join(decompress([written], where="test")) == data
    if spec.startswith("gzip"):
        assert gzip.decompress(written) == data


def test_higher_levels_are_smaller() -> None:
    sizes = [sum(map(len, Codec.parse(spec).compress([SAMPLE]))) for spec in ("none", "gzip:1", "gzip:9", "zstd:19")]
    assert sizes == sorted(sizes, reverse=True)


def test_a_long_window_finds_what_is_far_away() -> None:
    noise = random.Random(7).randbytes(10 << 20)
    plain, long = (sum(map(len, Codec.parse(spec).compress([noise, noise]))) for spec in ("zstd:1", "zstd:1:long=25"))
    assert plain > 20 << 20
    assert long < 11 << 20


@pytest.mark.parametrize(
    ("spec", "library"),
    [
        ("gzip", "gzip:isal-"),
        ("gzip:3", "gzip:isal-"),
        ("gzip:4", "gzip:zlib-ng-"),
        ("zstd", "zstd:1."),
        ("none", "none"),
    ],
)
def test_the_identity_names_library_version_and_level(spec: str, library: str) -> None:
    identity = Codec.parse(spec).identity
    assert identity.startswith(library)
    assert spec in ("none", "gzip") or identity.split(":")[-1] in ("3", spec[-1])


def test_other_parameters_of_ours_are_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = ("gzip", "gzip:7", "zstd", "zstd:9", "zstd:13", "zstd:chunked")
    before = [Codec.parse(spec).identity for spec in specs]
    stable = Codec.parse("gzip").made_reproducible().identity
    assert before == [Codec.parse(spec).identity for spec in specs]
    monkeypatch.setattr(codecs, "_ZSTD", tuple(row._replace(job=row.job + 1) for row in codecs._ZSTD))
    monkeypatch.setattr(codecs, "_DICTIONARY", 1000)
    after = [Codec.parse(spec).identity for spec in specs]
    assert not {*before} & {*after}
    assert Codec.parse("gzip").made_reproducible().identity == stable  # whose bytes are promised to stay
    chunked = Codec.parse("zstd:chunked").identity
    monkeypatch.setattr(codecs, "_CHUNKED_VERSION", 0)
    assert Codec.parse("zstd:chunked").identity != chunked


def test_every_setting_that_changes_the_output_changes_the_identity() -> None:
    codecs = [Codec.parse(spec) for spec in ("none", "gzip", "gzip:0", "gzip:9", "zstd", "zstd:4", "zstd:3:long=26")]
    codecs += [
        Codec.parse("zstd:chunked"),
        Codec.parse("gzip").made_reproducible(),
        Codec.parse("gzip:0").made_reproducible(),
    ]
    assert len({codec.identity for codec in codecs}) == len(codecs)
    assert Codec.parse("gzip").identity == Codec.parse("gzip:3").identity


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "lz4",
        "gzip:10",
        "gzip:-1",
        "gzip:x",
        "gzip:1:2",
        "gzip:²",
        "gzip:long",
        "gzip:chunked",
        "none:1",
        "zstd:0",
        "zstd:23",
        "zstd:3:",
        "zstd:long=9",
        "zstd:long=28",
        "zstd:long=x",
        "zstd:long:long",
        "zstd:chunked:long",
    ],
)
def test_what_is_not_a_compression_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="not a"):
        Codec.parse(spec)


def test_zstd_is_never_called_reproducible() -> None:
    with pytest.raises(UsageError, match=r"reproducible compression is gzip\[:0-9\] or none"):
        Codec.parse("zstd:3").made_reproducible()


#: What reproducible gzip makes of SAMPLE on every machine, today and in ten years: never renew these.
GOLDEN = {
    0: "5a4b60df0f60afca0ffa3214c759faac425d6069882f71153ef7e9bd1e351c81",
    1: "4354d771852b14287041e39b0fbcc7fb2f1ae8d4eae84fcb66b7c3e3bd763163",
    6: "37e59da5c3024b372c7dd3c92eff2bd32fa008545ec336433d60774309421cc0",
    9: "37e59da5c3024b372c7dd3c92eff2bd32fa008545ec336433d60774309421cc0",
}


@pytest.mark.parametrize("level", GOLDEN)
def test_reproducible_gzip_has_the_same_bytes_everywhere(level: int) -> None:
    codec = Codec.parse(f"gzip:{level}").made_reproducible()
    assert hashlib.sha256(SAMPLE).hexdigest() == "82980e6b06d1006d5ab70c559d6de98c92bd059d3343bd2e3380ddbe4ffb63f8"
    assert hashlib.sha256(b"".join(codec.compress([SAMPLE]))).hexdigest() == GOLDEN[level]


def test_a_zlib_that_writes_other_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib_ng.zlib_ng

    stockzlib.require_stock_zlib.cache_clear()
    try:
        monkeypatch.setattr(stockzlib, "zlib", zlib_ng.zlib_ng)
        with pytest.raises(HostError, match="writes other bytes than stock zlib at level 6"):
            list(Codec(reproducible=True).compress([SAMPLE]))
    finally:
        stockzlib.require_stock_zlib.cache_clear()


@pytest.mark.parametrize("level", range(10))
def test_this_zlib_gives_the_known_answers(level: int) -> None:
    stockzlib.require_stock_zlib(level)


def test_reproducible_gzip_is_a_recipe_that_needs_only_zlib() -> None:
    """The format that docs/adr/0010 describes, made here by other means."""
    blocks = [SAMPLE[at : at + (1 << 20)] for at in range(0, len(SAMPLE), 1 << 20)]
    made = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    for before, block in zip([b"", *blocks], blocks, strict=False):
        deflater = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=before[-32768:])
        made += deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)
    made += b"\x03\x00" + zlib.crc32(SAMPLE).to_bytes(4, "little") + len(SAMPLE).to_bytes(4, "little")
    assert b"".join(Codec(reproducible=True).compress([SAMPLE])) == made


def test_the_size_in_a_gzip_trailer_wraps_at_four_gibibytes() -> None:
    block = bytes(1 << 20)
    tail = b""
    for piece in Codec.parse("gzip:1").compress(block for _ in range(4097)):
        tail = (tail + piece)[-4:]
    assert int.from_bytes(tail, "little") == 1 << 20


def test_a_stream_left_early_leaves_no_thread_behind() -> None:
    code = (
        "import threading; from imagetool.streams.codecs import Codec\n"
        "stream = Codec.parse('gzip').compress(bytes(1 << 20) for _ in range(100))\n"
        "next(stream); next(stream); stream.close(); assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=dict(os.environ))


def test_an_error_of_the_producer_reaches_the_consumer() -> None:
    def broken() -> object:
        yield from (SAMPLE[: 1 << 20] for _ in range(5))
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        list(Codec.parse("gzip").compress(broken()))  # type: ignore[arg-type]
