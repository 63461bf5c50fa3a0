"""Compression of layers: written deterministically, read by what the bytes are.

Compressors are always fed blocks of exactly `limits.CHUNK` bytes, because the output of isal
depends on how its input is cut. isal's output may also differ between CPU generations;
`reproducible` gzip is zlib's, which does not.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded, UsageError
from imagetool.streams.pump import reblock

Compression = Literal["none", "gzip", "zstd"]
#: First bytes of the formats that are read. xz and bzip2 occur in ADD archives and ACIs only.
MAGIC: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\x00", "bzip2": b"BZh"}
_ZSTD_SKIPPABLE: Final = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, unknown system
_ISAL_DEFAULT: Final = 3
_ZSTD_DEFAULT: Final = 3


@dataclass(frozen=True, slots=True)
class Codec:
    """How a layer is compressed; `identity` names everything its output depends on, for cache keys."""

    compression: Compression = "gzip"
    level: int | None = None
    reproducible: bool = False

    @property
    def identity(self) -> str:
        """For example `gzip:isal-1.9.1:3`."""
        if self.compression == "none":
            return "none"
        if self.compression == "zstd":
            import zstandard

            return f"zstd:{'.'.join(map(str, zstandard.ZSTD_VERSION))}:{self.level or _ZSTD_DEFAULT}"
        if self.reproducible:
            return f"gzip:zlib-{zlib.ZLIB_RUNTIME_VERSION}:{self.level or 6}"
        level = _ISAL_DEFAULT if self.level is None else self.level
        if level <= _ISAL_DEFAULT:
            import isal

            return f"gzip:isal-{isal.__version__}:{level}"
        import zlib_ng

        return f"gzip:zlib-ng-{zlib_ng.__version__}:{level}"

    @classmethod
    def parse(cls, text: str) -> Codec:
        """Read `none`, `gzip[:level]` or `zstd[:level]`; raises UsageError."""
        name, _, level = text.partition(":")
        ranges = {"none": range(0), "gzip": range(10), "zstd": range(1, 23)}
        if name not in ranges or (level and (not level.isdigit() or int(level) not in ranges[name])):
            raise UsageError(f"not a compression: {text[:40]!r}; use none, gzip[:0-9] or zstd[:1-22]")
        compression: Compression = "none" if name == "none" else "gzip" if name == "gzip" else "zstd"
        return cls(compression, int(level) if level else None)

    def compress(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the compressed stream; the same bytes for the same input, however it is cut."""
        blocks = reblock(chunks)
        if self.compression == "none":
            return blocks
        if self.compression == "zstd":
            return _zstd(blocks, self.level or _ZSTD_DEFAULT)
        return _gzip(blocks, self._deflater())

    def _deflater(self) -> _Compressor:
        if self.reproducible:
            return zlib.compressobj(self.level or 6, zlib.DEFLATED, -15)
        level = _ISAL_DEFAULT if self.level is None else self.level
        if level <= _ISAL_DEFAULT:
            from isal import isal_zlib

            fast: _Compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15)
            return fast
        from zlib_ng import zlib_ng

        small: _Compressor = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -15)
        return small


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def _gzip(blocks: Iterable[bytes], deflater: _Compressor) -> Iterator[bytes]:
    """Yield one gzip member with our own constant header, so that no library's idea of it gets in."""
    checksum = size = 0
    yield _GZIP_HEADER
    for block in blocks:
        checksum = zlib.crc32(block, checksum)
        size += len(block)
        if compressed := deflater.compress(block):
            yield compressed
    yield deflater.flush() + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _zstd(blocks: Iterable[bytes], level: int) -> Iterator[bytes]:
    import zstandard

    # threads=1, never 0: libzstd's single- and multi-threaded paths write different bytes.
    parameters = zstandard.ZstdCompressionParameters.from_level(level, threads=1, write_checksum=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    for block in blocks:
        if compressed := compressor.compress(block):
            yield compressed
    yield compressor.flush()


def sniff(head: bytes) -> str:
    """Return "gzip", "zstd", "xz", "bzip2" or "none" from a stream's first bytes (6 are enough)."""
    for name, magic in MAGIC.items():
        if head.startswith(magic):
            return name
    return "zstd" if head[:4] in _ZSTD_SKIPPABLE else "none"


def decompress(
    chunks: Iterable[bytes],
    *,
    where: str,
    limit: int = limits.LAYER_BYTES,
    ratio: int = limits.LAYER_RATIO,
) -> Iterator[bytes]:
    """Yield the plain bytes of a stream whose format is sniffed; a plain stream passes as it is.

    Members and frames that follow one another are read as one. Output comes in bounded pieces
    whatever the input claims, so memory stays flat.

    Raises InvalidArchive for a damaged or cut stream, LimitExceeded past `limit` bytes or past
    `ratio` bytes out per byte in.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= 6:
            break
    kind = sniff(head)
    if kind == "none":
        yield from _limited(_chain(head, source), limit, where)
        return
    counted = _Counted(_chain(head, source))
    seen = 0
    for piece in _inflate(counted, _READERS[kind], kind, where):
        seen += len(piece)
        if seen > limit:
            raise LimitExceeded(f"{where}: unpacks to more than the {limit} bytes allowed")
        if seen > max(ratio * counted.seen, limits.LAYER_RATIO_FLOOR):
            raise LimitExceeded(f"{where}: unpacks to more than {ratio} times its size, a decompression bomb")
        yield piece


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _limited(chunks: Iterable[bytes], limit: int, where: str) -> Iterator[bytes]:
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > limit:
            raise LimitExceeded(f"{where}: more than the {limit} bytes allowed")
        yield chunk


class _Counted:
    """An iterator that remembers how many bytes it has given."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.seen = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.seen += len(chunk)
            yield chunk


class _Reader(Protocol):
    """One member or frame being read; what a bz2 or lzma decompressor object offers."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...


class _Deflate:
    """A gzip member through isal, with the interface of the stdlib's bz2 and lzma objects."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._member: Any = isal_zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return bool(self._member.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._member.unused_data)

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        from isal import igzip_lib

        try:
            return bytes(self._member.decompress(self._member.unconsumed_tail + data, max_length))
        except igzip_lib.IsalError as error:  # type: ignore[misc] # isal's stub calls the class an instance
            raise ValueError(str(error)) from None


class _Zstd:
    """One zstandard frame; a skippable frame is one with no output."""

    def __init__(self) -> None:
        import zstandard

        self._frame: Any = zstandard.ZstdDecompressor(max_window_size=1 << limits.ZSTD_WINDOW_LOG).decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data)

    @property
    def needs_input(self) -> bool:
        return True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        import zstandard

        try:
            return bytes(self._frame.decompress(data))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None


_READERS: Final[dict[str, Callable[[], _Reader]]] = {
    "gzip": _Deflate,
    "zstd": _Zstd,
    "xz": lambda: lzma.LZMADecompressor(memlimit=256 * limits.MIB),
    "bzip2": bz2.BZ2Decompressor,
}
#: zstandard's decompressobj cannot bound its output, so its input comes in pieces small enough
#: that even the densest frame (about 1 : 32,000) expands to a bounded amount.
_INPUT_BYTES: Final = {
    "gzip": 256 * limits.KIB,
    "zstd": 4 * limits.KIB,
    "xz": 64 * limits.KIB,
    "bzip2": 64 * limits.KIB,
}


def _inflate(source: Iterable[bytes], reader: Callable[[], _Reader], kind: str, where: str) -> Iterator[bytes]:
    """Yield the output of member after member."""
    member: _Reader | None = None
    step = _INPUT_BYTES[kind]
    for chunk in source:
        view = chunk
        while view:
            data, view = view[:step], view[step:]
            while data:
                if member is None:
                    if kind == "gzip" and not data.strip(b"\0"):
                        break  # zero padding after the last member, as gzip itself accepts
                    member = reader()
                yield from _drain(member, data, kind, where)
                data = b""
                if member.eof:
                    data = member.unused_data
                    member = None
    if member is not None:
        raise InvalidArchive(f"{where}: the {kind} stream ends in the middle")


def _drain(member: _Reader, data: bytes, kind: str, where: str) -> Iterator[bytes]:
    while True:
        try:
            piece = member.decompress(data, limits.CHUNK)
        except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
            raise InvalidArchive(f"{where}: damaged {kind} stream: {error}") from None
        if piece:
            yield piece
        if member.eof or member.needs_input:
            return
        data = b""
