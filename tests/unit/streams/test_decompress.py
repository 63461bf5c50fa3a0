"""Reading compressed streams: formats sniffed, members and frames joined, damage and cuts noticed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.streams.decompress import decompress, sniff
from imagetool.streams.zstdframes import skippable

TEXT = b"".join(b"%d bottles of beer on the wall\n" % number for number in range(60_000))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def streamed_zstd(data: bytes) -> bytes:
    """Return a frame that does not say how much it holds."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return compressor.compress(data) + compressor.flush()


MAKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd,
    "streamed zstd": streamed_zstd,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def read(data: bytes, chunk: int = 100_000, **bounds: int) -> bytes:
    return b"".join(decompress((data[at : at + chunk] for at in range(0, len(data), chunk)), where="layer x", **bounds))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("chunk", [1_000, 65_537, 10 << 20])
def test_every_format_is_read_whatever_it_is_called(kind: str, chunk: int) -> None:
    made = MAKERS[kind](TEXT)
    assert sniff(made[:6]) == kind.split()[-1]
    assert read(made, chunk) == TEXT


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_at_all_is_a_stream_too(kind: str) -> None:
    assert read(MAKERS[kind](b"")) == b""


def test_a_plain_stream_passes_as_it_is() -> None:
    assert sniff(TEXT[:6]) == "none"
    assert read(TEXT) == TEXT
    assert read(b"") == b""
    assert read(b"\x1f") == b"\x1f"


@pytest.mark.parametrize("kind", MAKERS)
def test_members_and_frames_that_follow_one_another_are_one_stream(kind: str) -> None:
    parts = [TEXT[:10], b"", TEXT[10:500_000], TEXT[500_000:]]
    assert read(b"".join(map(MAKERS[kind], parts)), chunk=7_001) == TEXT


def test_many_small_frames_are_read_in_passing() -> None:
    pieces = [TEXT[at : at + 100] for at in range(0, len(TEXT), 100)]
    assert len(pieces) > 10_000
    assert read(b"".join(map(zstd, pieces))) == TEXT


def test_skippable_frames_are_skipped_wherever_they_stand() -> None:
    made = skippable(b"first") + zstd(TEXT[:1000]) + skippable(b"") + zstd(TEXT[1000:]) + skippable(bytes(3 << 20))
    assert sniff(made[:6]) == "zstd"
    assert read(made, 4_099) == TEXT
    other = b"\x5f\x2a\x4d\x18\x04\0\0\0abcd"
    assert read(other + zstd(TEXT)) == TEXT


@pytest.mark.parametrize("kind", ["gzip", "xz"])
@pytest.mark.parametrize("chunk", [1, 3, 100_000])
def test_zeros_may_fill_up_the_end(kind: str, chunk: int) -> None:
    assert read(MAKERS[kind](TEXT[:2000]) + bytes(512), chunk) == TEXT[:2000]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("chunk", [1_000, 10 << 20])
def test_a_stream_that_is_cut_is_an_error_wherever_it_is_cut(kind: str, chunk: int) -> None:
    made = MAKERS[kind](TEXT)
    for size in (7, 19, len(made) // 2, len(made) - 5, len(made) - 1):
        with pytest.raises(InvalidArchive, match=r"^layer x: .*(ends in the middle|damaged)"):
            read(made[:size], chunk)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz", "bzip2"])
def test_one_bit_changed_anywhere_is_noticed(kind: str) -> None:
    made = MAKERS[kind](TEXT[:5000])
    for at in range(10, len(made), 13):
        changed = bytearray(made)
        changed[at] ^= 4
        with pytest.raises((InvalidArchive, LimitExceeded), match=r"^layer x: "):
            assert read(bytes(changed)) != TEXT[:5000]


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize(
    "junk",
    [b"junk that follows", b"\0\0\0\0junk", zstd(b"x"), gzip.compress(b"x")],
    ids=["text", "zeros", "zstd", "gzip"],
)
@pytest.mark.parametrize("chunk", [1, 100_000])
def test_what_follows_the_stream_is_an_error(kind: str, junk: bytes, chunk: int) -> None:
    if sniff(junk) == kind:
        return
    with pytest.raises(InvalidArchive, match=r"^layer x: "):
        read(MAKERS[kind](TEXT[:2000]) + junk, chunk)


def test_gzip_headers_with_names_comments_and_extra_fields_are_read() -> None:
    plain = gzip.compress(TEXT)
    extra = b"SG\x05\0hello"
    header = b"\x1f\x8b\x08\x1c" + bytes(6) + len(extra).to_bytes(2, "little") + extra + b"name\0comment\0"
    assert read(header + plain[10:], 3) == TEXT


@pytest.mark.parametrize("kind", MAKERS)
def test_the_limit_is_exact(kind: str) -> None:
    made = MAKERS[kind](TEXT)
    assert read(made, limit=len(TEXT)) == TEXT
    with pytest.raises(LimitExceeded, match=f"unpacks to more than the {len(TEXT) - 1} bytes"):
        read(made, limit=len(TEXT) - 1)


def test_the_limit_holds_for_plain_streams() -> None:
    assert read(TEXT, limit=len(TEXT)) == TEXT
    with pytest.raises(LimitExceeded, match="larger than the 99 bytes allowed"):
        read(TEXT, limit=99)


def test_the_ratio_counts_from_its_floor_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gzip.compress(bytes(5 << 20))
    ratio = (5 << 20) // len(made)
    assert len(read(made, ratio=ratio // 2)) == 5 << 20
    monkeypatch.setattr(limits, "LAYER_RATIO_FLOOR", 1 << 20)
    assert len(read(made, ratio=ratio + 1)) == 5 << 20
    with pytest.raises(LimitExceeded, match=f"more than {ratio // 2} times its size"):
        read(made, ratio=ratio // 2)


def windowed(log: int, data: bytes = TEXT) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=log)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(data) + compressor.flush()


def test_the_window_of_a_frame_is_bounded_and_the_bound_can_be_set() -> None:
    assert read(windowed(limits.ZSTD_WINDOW_LOG)) == TEXT
    with pytest.raises(LimitExceeded, match=f"asks for a window of {1 << 28} bytes of memory"):
        read(windowed(limits.ZSTD_WINDOW_LOG + 1))
    assert read(windowed(28), window=1 << 28) == TEXT
    with pytest.raises(LimitExceeded, match="window"):
        read(windowed(21), window=1 << 20)


def test_a_frame_in_one_segment_needs_a_window_of_its_size() -> None:
    data = TEXT[:100_000]
    made = zstandard.ZstdCompressor(level=1).compress(data)
    assert made[4] & 0x20, "the frame is not in one segment"
    assert read(made, window=len(data)) == data
    with pytest.raises(LimitExceeded, match=f"window of {len(data)} bytes"):
        read(made, window=len(data) - 1)


def test_an_xz_stream_that_needs_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = lzma.compress(TEXT, preset=9)
    assert read(made) == TEXT
    monkeypatch.setattr(limits, "XZ_MEMORY", limits.MIB)
    with pytest.raises(LimitExceeded, match=f"needs more memory than the limit xz-memory={limits.MIB},"):
        read(made)
