"""Where the frames and blocks of a zstd stream begin and end, without decompressing them.

A block holds at most 128 KiB whatever its size, so giving a decompressor a known number of
whole blocks bounds what comes out: the densest frame there is turns 4 bytes into 128 KiB.

Source: RFC 8878, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded

MAGIC: Final = b"\x28\xb5\x2f\xfd"
BLOCK_BYTES: Final = 128 * limits.KIB  # what one block may hold
_BLOCKS: Final = 8  # blocks in one piece
_SKIPPABLE: Final = frozenset(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))
_RLE: Final = 1
_RESERVED: Final = 3
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)


def is_skippable(magic: bytes) -> bool:
    """Say whether four bytes begin a skippable frame."""
    return magic in _SKIPPABLE


def _named(window: int) -> str:
    return limits.named("ZSTD_WINDOW_LOG") if window == 1 << limits.ZSTD_WINDOW_LOG else f"the {window} allowed"


def skippable_header(size: int) -> bytes:
    """Return what begins a skippable frame that holds `size` bytes."""
    return b"\x50\x2a\x4d\x18" + size.to_bytes(4, "little")


def skippable(data: bytes) -> bytes:
    """Return a skippable frame that holds `data`."""
    return skippable_header(len(data)) + data


def whole_blocks(chunks: Iterable[bytes], *, window: int, where: str) -> Iterator[bytes]:
    """Yield the stream's frames in pieces of whole blocks that hold 1 MiB at most; skippable frames are left out.

    Raises LimitExceeded for a frame that asks its decoder for more than `window` bytes of memory,
    InvalidArchive for a stream that is cut or is not zstd.
    """
    source = _Source(chunks, where)
    while magic := source.upto(4):
        if is_skippable(magic):
            source.skip(int.from_bytes(source.take(4), "little"))
        elif magic == MAGIC:
            yield from _frame(source, window, where)
        else:
            raise InvalidArchive(f"{where}: damaged zstd stream: what follows a frame is not a frame")


def _frame(source: _Source, window: int, where: str) -> Iterator[bytes]:
    header, checksum = _header(source, window, where)
    piece = [MAGIC, header]
    blocks = 0
    last = 0
    while not last:
        head = source.take(3)
        bits = int.from_bytes(head, "little")
        last, kind, size = bits & 1, bits >> 1 & 3, bits >> 3
        if kind == _RESERVED or size > BLOCK_BYTES:
            raise InvalidArchive(f"{where}: damaged zstd stream: a block that cannot be")
        piece += (head, source.take(1 if kind == _RLE else size))
        blocks += 1
        if blocks == _BLOCKS and not last:
            yield b"".join(piece)
            piece, blocks = [], 0
    if checksum:
        piece.append(source.take(4))
    yield b"".join(piece)


def _header(source: _Source, window: int, where: str) -> tuple[bytes, bool]:
    """Return a frame's header without its magic number, and whether a checksum ends the frame."""
    first = source.take(1)
    flags = first[0]
    single = bool(flags & 0x20)
    size_bytes = _CONTENT_SIZE_BYTES[flags >> 6] or int(single)
    rest = source.take((not single) + _DICTIONARY_BYTES[flags & 3] + size_bytes)
    if single:
        wanted = int.from_bytes(rest[-size_bytes:], "little") + (256 if size_bytes == 2 else 0)
    else:
        base = 1 << (10 + (rest[0] >> 3))
        wanted = base + base // 8 * (rest[0] & 7)
    if wanted > window:
        raise LimitExceeded(
            f"{where}: a zstd frame asks for a window of {wanted} bytes of memory, more than {_named(window)}"
        )
    return first + rest, bool(flags & 4)


class _Source:
    """Bytes by number instead of by chunk."""

    def __init__(self, chunks: Iterable[bytes], where: str) -> None:
        self._chunks = iter(chunks)
        self._data = b""
        self._at = 0
        self._where = where

    def upto(self, size: int) -> bytes:
        """Return `size` bytes; none at the end of the stream."""
        return b"" if self._at == len(self._data) and not self._more() else self.take(size)

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes; raises InvalidArchive when the stream ends before."""
        while len(self._data) - self._at < size:
            if not self._more():
                raise InvalidArchive(f"{self._where}: the zstd stream ends in the middle")
        end = self._at + size
        found = self._data[self._at : end]
        self._at = end
        return found

    def skip(self, size: int) -> None:
        """Pass over `size` bytes without holding them."""
        while size:
            step = min(size, limits.CHUNK)
            self.take(step)
            size -= step

    def _more(self) -> bool:
        chunk = next((chunk for chunk in self._chunks if chunk), b"")
        self._data = self._data[self._at :] + chunk
        self._at = 0
        return bool(chunk)
