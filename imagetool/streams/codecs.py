"""How layers are compressed: levels mapped onto the fastest library, output that depends on nothing but the input.

    none          the tar itself
    gzip:0-3      isal; 3 is the default, ten times as fast as zlib for a few per cent more bytes
    gzip:4-9      zlib-ng, smaller and slower
    zstd:1-22     libzstd, with a checksum; `long=N` looks for matches in a window of 2^N bytes
    reproducible  gzip by stock zlib, refused where the linked library is another one (docs/adr/0010)

Whatever the number of threads and however the input is cut, the output is the same. A stream takes
the same memory however long it is, and 64 MiB are enough for the whole program at every level of
every format: from zstd:7 on libzstd's tables are held to a size that costs one per cent of
compression. `long` asks for more: its window, and the level's own tables (docs/adr/0010).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from imagetool import limits
from imagetool.errors import Unsupported, UsageError
from imagetool.streams.decompress import decompress, sniff
from imagetool.streams.pump import in_order, reblock, threads_for_codecs
from imagetool.streams.stockzlib import require_stock_zlib
from imagetool.values import dataclass, replace

Compression = Literal["none", "gzip", "zstd"]
Format = Literal["none", "gzip", "zstd", "zstd:chunked"]

_ISAL_DEFAULT: Final = 3
_ZLIB_DEFAULT: Final = 6
_ZSTD_DEFAULT: Final = 3
_LEVELS: Final = {"none": range(0), "gzip": range(10), "zstd": range(1, 23)}
_LONG_DEFAULT: Final = 27
_SYNTAX: Final = "none, gzip[:0-9], zstd[:1-22][:long[=10-27]] or zstd:chunked[:1-22]"
#: No name, no time, unknown system: nothing of any library's own idea of a header gets in.
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
#: What ends a deflate stream after a sync flush: an empty last block with fixed codes.
_DEFLATE_END: Final = b"\x03\x00"
_DICTIONARY: Final = 32 * limits.KIB  # how far deflate looks back


class _Zstd(NamedTuple):
    """How libzstd works from a level on, so that the whole program needs 64 MiB at most.

    threads: 0 for its path without any. job: the unit its threads work on. overlap: how far a job looks
    back into the one before it; 8 is half a window, 7 a quarter. Both are set because the defaults
    depend on the level and take 100 MiB and more. tables: powers of two of window, hash table and chain
    table; None for libzstd's own, which take 650 MiB at level 22. Each thread has its own.
    """

    level: int
    threads: int
    job: int
    overlap: int
    tables: tuple[int, int, int] | None


#: Small jobs that look back far compress as well as large ones that do not. Four threads are as fast as
#: the one that hashes. From level 13 on a job would take longer to read what it looks back at into
#: its tables than to compress.
_ZSTD: Final = (
    _Zstd(13, 0, 0, 0, (22, 20, 22)),
    _Zstd(7, 2, 3 * limits.MIB // 2, 7, (22, 20, 20)),
    _Zstd(4, 4, limits.MIB, 8, None),
    _Zstd(1, 4, 3 * limits.MIB // 2, 8, None),
)
_TABLES: Final = ("window", "hash", "chain")
#: To be raised when `layer.chunked` cuts a tar into other frames, or says other things of them.
_CHUNKED_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Codec:
    """How a layer is compressed; `identity` names everything its output depends on, for cache keys.

    window: for zstd, the power of two up to which matches are looked for; None for the level's own.
    chunked: zstd:chunked, written by `layer.chunked` because it needs to know where files begin.
    """

    compression: Compression = "gzip"
    level: int | None = None
    reproducible: bool = False
    window: int | None = None
    chunked: bool = False

    @property
    def format(self) -> Format:
        """The compression as it is asked for by name."""
        return "zstd:chunked" if self.chunked else self.compression

    @property
    def identity(self) -> str:
        """For example `gzip:isal-1.9.1-17d3e2c5:3`: the library, our own settings that change the output, the level."""
        if self.compression == "none":
            return "none"
        if self.compression == "zstd":
            import zstandard

            version = ".".join(map(str, zstandard.ZSTD_VERSION))
            window = f":long={self.window}" if self.window else ""
            ours = _short(*self._zstd, *([_CHUNKED_VERSION] if self.chunked else []))
            return f"{self.format}:{version}-{ours}:{self.zstd_level}{window}"
        if self.reproducible:
            return f"gzip:stock-zlib:{self.gzip_level}"
        ours = _short(limits.CHUNK, _DICTIONARY)
        if self.gzip_level <= _ISAL_DEFAULT:
            import isal

            return f"gzip:isal-{isal.__version__}-{ours}:{self.gzip_level}"
        import zlib_ng

        return f"gzip:zlib-ng-{zlib_ng.__version__}-{ours}:{self.gzip_level}"

    @property
    def gzip_level(self) -> int:
        """The level of gzip, the default filled in."""
        if self.level is not None:
            return self.level
        return _ZLIB_DEFAULT if self.reproducible else _ISAL_DEFAULT

    @classmethod
    def parse(cls, text: str) -> Codec:
        """Read `none`, `gzip[:level]`, `zstd[:level][:long[=window]]` or `zstd:chunked[:level]`; raises UsageError."""
        name, *options = text.split(":")
        if name not in _LEVELS:
            raise UsageError(f"not a compression: {text[:40]!r}; use {_SYNTAX}")
        codec = cls("none" if name == "none" else "gzip" if name == "gzip" else "zstd")
        for option in options:
            if option == "chunked" and name == "zstd" and not codec.window:
                codec = replace(codec, chunked=True)
            elif option.partition("=")[0] == "long" and name == "zstd" and not codec.chunked and not codec.window:
                codec = replace(codec, window=_window(option.partition("=")[2], text))
            elif option.isdecimal() and int(option) in _LEVELS[name] and codec.level is None:
                codec = replace(codec, level=int(option))
            else:
                raise UsageError(f"not a compression: {text[:40]!r}; use {_SYNTAX}")
        return codec

    def made_reproducible(self) -> Codec:
        """Return the codec whose output depends on neither CPU nor library version; raises UsageError for zstd."""
        if self.compression == "zstd":
            raise UsageError(
                "zstd writes other bytes from version to version; reproducible compression is gzip[:0-9] or none"
            )
        return replace(self, reproducible=True)

    def compress(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the compressed stream; the same bytes for the same input, however it is cut.

        A stream of more than one block is compressed by several threads.
        Raises HostError for `reproducible` where the linked zlib is not the stock one.
        """
        if self.chunked:
            raise Unsupported("zstd:chunked is not a plain stream: it needs to know where files begin")
        blocks = reblock(chunks)
        if self.compression == "none":
            return blocks
        if self.compression == "zstd":
            return _zstd(blocks, self.zstd_parameters(threads=min(threads_for_codecs(), self.zstd_threads)))
        return _gzip(blocks, self._deflate())

    @property
    def zstd_level(self) -> int:
        """The level of zstd, the default filled in."""
        return self.level or _ZSTD_DEFAULT

    @property
    def zstd_threads(self) -> int:
        """How many threads compress one stream at most; 0 for libzstd's path without any, which writes other bytes."""
        return self._zstd.threads

    @property
    def _zstd(self) -> _Zstd:
        return next(row for row in _ZSTD if self.zstd_level >= row.level)

    def zstd_parameters(self, *, threads: int, longest: int | None = None) -> Any:
        """Return libzstd's parameters for so many threads, and for streams that are no longer than `longest`."""
        import zstandard

        row = self._zstd
        options: dict[str, Any] = {"write_checksum": 1, "threads": threads}
        if threads:
            options |= {"job_size": row.job, "overlap_log": row.overlap}
        if self.window:
            options |= {"window_log": self.window, "enable_ldm": 1}
        elif row.tables:
            most = longest.bit_length() - 1 if longest else max(row.tables)
            options |= {f"{name}_log": min(log, most) for name, log in zip(_TABLES, row.tables, strict=True)}
        return zstandard.ZstdCompressionParameters.from_level(self.zstd_level, **options)

    def _deflate(self) -> Callable[[tuple[bytes, bytes]], tuple[bytes, int, int]]:
        """Return what makes one block of deflate of (the bytes before, the block)."""
        level = self.gzip_level
        library: Any
        if self.reproducible:
            import zlib as library

            require_stock_zlib(level)
        elif level <= _ISAL_DEFAULT:
            from isal import isal_zlib as library
        else:
            from zlib_ng import zlib_ng as library
        return partial(_deflated, library, level)


def _short(*settings: object) -> str:
    """Return what is another text for other settings."""
    return f"{zlib.crc32(repr(settings).encode()):08x}"


def _window(text: str, whole: str) -> int:
    if not text:
        return _LONG_DEFAULT
    if not text.isdecimal() or not 10 <= int(text) <= limits.ZSTD_WINDOW_LOG:
        raise UsageError(f"not a window: {whole[:40]!r}; use long=10 to long={limits.ZSTD_WINDOW_LOG}, a power of two")
    return int(text)


def _deflated(library: Any, level: int, pair: tuple[bytes, bytes]) -> tuple[bytes, int, int]:
    """Return a block as a part of a deflate stream that ends on a byte, its CRC and its size.

    Each block is a run of its own that knows the 32 KiB before it, so that blocks can be made
    in any order, by any number of threads.
    """
    from isal import isal_zlib

    before, block = pair
    dictionary = {"zdict": before} if before else {}
    deflater = library.compressobj(level, library.DEFLATED, -15, **dictionary)
    return deflater.compress(block) + deflater.flush(library.Z_SYNC_FLUSH), isal_zlib.crc32(block), len(block)


def _gzip(blocks: Iterable[bytes], deflate: Callable[[tuple[bytes, bytes]], tuple[bytes, int, int]]) -> Iterator[bytes]:
    """Yield one gzip member, made by several threads out of blocks of deflate."""
    from isal import isal_zlib

    checksum = size = 0
    yield _GZIP_HEADER
    for piece, crc, length in in_order(deflate, _with_dictionaries(blocks)):
        checksum = isal_zlib.crc32_combine(checksum, crc, length)
        size += length
        yield piece
    yield _DEFLATE_END + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _with_dictionaries(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    before = b""
    for block in blocks:
        yield before, block
        before = block[-_DICTIONARY:]


def _zstd(blocks: Iterable[bytes], parameters: Any) -> Iterator[bytes]:
    import zstandard

    chunker: Any = zstandard.ZstdCompressor(compression_params=parameters).chunker(chunk_size=limits.CHUNK)
    for block in blocks:
        yield from chunker.compress(block)
    yield from chunker.finish()


__all__ = ["Codec", "Compression", "Format", "decompress", "sniff"]
