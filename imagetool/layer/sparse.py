"""Sparse files in archives of others: where the data goes, and the zeros between.

GNU tar has four ways to say it: a map in the header (type "S"), pax records that repeat
(0.0), one pax record (0.1), or a map before the content (1.0). Our own layers hold such files
as plain content, which every tool reads: zeros cost a codec next to nothing, and the files
get their holes back when they are unpacked.

Source: GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.blocks import BLOCK
from imagetool.safefs.holes import ZEROS

SPARSE: Final = b"GNU.sparse."
#: How star and Solaris say that a file has holes, and GNU tar that it is a part of one.
OTHERS: Final = (b"SCHILY.realsize", b"SUN.holesdata", b"GNU.volume.offset", b"GNU.volume.size")


class Sparse(NamedTuple):
    """How a stored file becomes the real one: ascending regions of (offset, bytes), all else is zeros."""

    size: int
    regions: Sequence[tuple[int, int]]

    @property
    def stored(self) -> int:
        """Bytes of content in the archive."""
        return sum(length for _, length in self.regions)


def expand(sparse: Sparse, stored: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the real content; holes come as slices of zeros, whole chunks of them as `ZEROS` itself."""
    at = 0
    held = b""
    for offset, length in sparse.regions:
        yield from _hole(offset - at)
        at = offset + length
        while length:
            piece = held or next(stored, b"")
            if not piece:  # the next entry was asked for meanwhile
                return
            held = piece[length:]
            piece = piece[:length] if held else piece
            length -= len(piece)
            yield piece
    yield from _hole(sparse.size - at)


def _hole(size: int) -> Iterator[bytes]:
    while size >= len(ZEROS):
        yield ZEROS
        size -= len(ZEROS)
    if size:
        yield ZEROS[:size]


def from_header(
    block: bytes, number: Callable[[bytes, int], int], more: Callable[[], bytes], stored: int, where: str
) -> Sparse:
    """Read the map of an old GNU header and the blocks that carry it on.

    Args:
        number: reads the 12-byte field at an offset of a block.
        more: returns the next block.
    """
    size = number(block, 483)
    regions: list[tuple[int, int]] = []
    fields, continued = range(386, 482, 24), block[482]
    while True:
        for at in fields:
            if block[at] == 0:
                break
            regions.append((number(block, at), number(block, at + 12)))
        if not continued:
            return _checked(size, regions, stored, where)
        _bound(len(regions), where)
        block = more()
        fields, continued = range(0, 504, 24), block[504]


def from_records(pax: Mapping[bytes, bytes], take: Callable[[int], bytes], stored: int, where: str) -> Sparse:
    """Read the map that pax records say, or (version 1.0) the start of the content.

    Args:
        take: returns that many bytes of the entry's content.
        stored: bytes of the entry's content, map and all.
    """
    version = pax.get(SPARSE + b"major", b"0"), pax.get(SPARSE + b"minor")
    if version == (b"1", b"0"):
        size = _decimal(pax.get(SPARSE + b"realsize", b""), where)
        regions, used = _leading_map(take, stored, where)
        return _checked(size, regions, stored - used, where)
    if version[0] != b"0":
        raise InvalidArchive(f"{where}: a sparse file of a version that nobody defined")
    size = _decimal(pax.get(SPARSE + b"size", pax.get(SPARSE + b"realsize", b"")), where)
    if SPARSE + b"map" in pax:
        numbers = _list(pax[SPARSE + b"map"], where)
        regions = list(zip(numbers[::2], numbers[1::2], strict=False))
        odd = len(numbers) % 2
    else:
        offsets, lengths = (_list(pax.get(SPARSE + key, b""), where) for key in (b"offset", b"numbytes"))
        regions = list(zip(offsets, lengths, strict=False))
        odd = len(offsets) - len(lengths)
    if odd or len(regions) != _decimal(pax.get(SPARSE + b"numblocks", b"%d" % len(regions)), where):
        raise InvalidArchive(f"{where}: a sparse file whose map is not as long as it says")
    return _checked(size, regions, stored, where)


def _leading_map(take: Callable[[int], bytes], stored: int, where: str) -> tuple[list[tuple[int, int]], int]:
    """Read "COUNT\\n" and twice as many numbers, one a line, filled up to whole blocks."""
    used = 0
    lines: list[bytes] = []
    rest = b""
    wanted = 1
    while len(lines) < wanted:
        if used + BLOCK > stored:
            raise InvalidArchive(f"{where}: a sparse file whose map does not end")
        used += BLOCK
        *whole, rest = (rest + take(BLOCK)).split(b"\n")
        if whole and not lines:
            count = _decimal(whole[0], where)
            _bound(count, where)
            wanted = 1 + 2 * count
        lines += whole
        if len(lines) < wanted and len(rest) > 32:
            raise InvalidArchive(f"{where}: a sparse file whose map is not numbers")
    numbers = [_decimal(line, where) for line in lines[1:wanted]]
    return list(zip(numbers[::2], numbers[1::2], strict=True)), used


def _list(text: bytes, where: str) -> list[int]:
    if not text:
        return []
    _bound(text.count(b",") // 2, where)
    return [_decimal(piece, where) for piece in text.split(b",")]


def _decimal(text: bytes, where: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise InvalidArchive(f"{where}: a sparse file with {text[:40]!r} where a number must be")
    return int(text)


def _bound(regions: int, where: str) -> None:
    if regions > limits.TAR_SPARSE_REGIONS:
        raise LimitExceeded(f"{where}: a sparse file of more regions than {limits.named('TAR_SPARSE_REGIONS')}")


def _checked(size: int, regions: Sequence[tuple[int, int]], stored: int, where: str) -> Sparse:
    _bound(len(regions), where)
    kept = []
    at = total = 0
    for offset, length in regions:
        if offset < at or length < 0 or offset + length > size:
            raise InvalidArchive(f"{where}: a sparse file whose map overlaps or passes its size of {size}")
        at = offset + length
        total += length
        if length:
            kept.append((offset, length))
    if total != stored:
        raise InvalidArchive(f"{where}: a sparse file whose map is of {total} bytes, but {stored} are stored")
    if size > limits.LAYER_BYTES:
        raise LimitExceeded(f"{where}: a sparse file of {size} bytes, more than {limits.named('LAYER_BYTES')}")
    return Sparse(size, kept)
