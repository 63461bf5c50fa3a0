"""An archive's bytes as 512-byte blocks and what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.entry import display

BLOCK: Final = 512


class Blocks:
    """A stream as an exact reader of blocks.

    buffer, at: the bytes at hand and how many of them were read, for who can use them as they
        lie there and moves `at` on. expanded: counts what sparse files of it unpack to.
    entry, is_inside: the last entry that was reached, and whether its content is being read; what is
        wrong with the stream is said to be there.
    """

    __slots__ = ("_chunks", "_where", "at", "buffer", "entry", "expanded", "is_inside")

    def __init__(self, chunks: Iterable[bytes], where: str) -> None:
        self._chunks = iter(chunks)
        self.buffer = b""
        self.at = 0
        self._where = where
        self.expanded = 0
        self.entry = b""
        self.is_inside = False

    def block(self) -> bytes:
        """Return the next 512 bytes; b"" at the end of the stream."""
        at = self.at
        end = at + BLOCK
        if end <= len(self.buffer):
            self.at = end
            return self.buffer[at:end]
        return b"".join(self.pieces(BLOCK, at_end=True))

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes, and skip what fills their last block up."""
        at = self.at
        end = at + size + -size % BLOCK
        if end <= len(self.buffer):
            self.at = end
            return self.buffer[at : at + size]
        return b"".join(self.pieces(size + -size % BLOCK))[:size]

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        for _ in self.pieces(size):
            pass

    def pieces(self, size: int, *, at_end: bool = False) -> Iterator[bytes]:
        """Yield exactly `size` bytes in pieces as they come; with `at_end` the stream may have ended before them."""
        left = size
        while left:
            have = len(self.buffer) - self.at
            if not have:
                self.buffer, self.at = self._next() or b"", 0
                if not self.buffer:
                    if at_end and left == size:
                        return
                    raise InvalidArchive(f"{self._where}: the archive ends in the middle of an entry{self._reached()}")
                continue
            if self.at == 0 and have <= left:
                piece = self.buffer
            else:
                piece = self.buffer[self.at : self.at + left]
            self.at += len(piece)
            left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read the stream to its end, so that whoever verifies it sees all of it; raises LimitExceeded."""
        left = limits.TAR_TRAILING_BYTES + BLOCK  # the second block of the marker is none of them
        chunk = memoryview(self.buffer)[self.at :]
        while True:
            left -= len(chunk)
            if left < 0:
                raise LimitExceeded(
                    f"{self._where}: more follows the end of the archive than {limits.named('TAR_TRAILING_BYTES')}"
                )
            if (following := self._next()) is None:
                return
            chunk = memoryview(following)

    def _next(self) -> bytes | None:
        try:
            return next(self._chunks, None)
        except (InvalidArchive, LimitExceeded) as error:
            raise type(error)(f"{error}{self._reached()}") from None

    def _reached(self) -> str:
        return f"; reached {'in' if self.is_inside else 'after'} entry {display(self.entry)}" if self.entry else ""
