"""Files whose long runs of zeros take no space on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from imagetool.limits import CHUNK

#: A whole chunk of a hole: who yields this very object spares others to look for what it is.
ZEROS: Final = bytes(CHUNK)
SHORTEST_HOLE: Final = 1 << 16  # shorter runs of zeros are written: a hole costs an extent and a seek


def write_with_holes(fd: int, content: Iterable[bytes]) -> None:
    """Write a new file's content, seeking over runs of zeros of about 64 KiB and more. Raises OSError."""
    skipped = 0
    for chunk in content:
        if chunk is ZEROS:
            skipped += CHUNK
            continue
        size = len(chunk)
        if size < SHORTEST_HOLE and not skipped:
            written = os.write(fd, chunk)
            if written < size:
                _write_after(fd, 0, memoryview(chunk)[written:])
            continue
        start = at = 0
        while at < size:
            length = min(SHORTEST_HOLE, size - at)
            # Shorter zeros only go on with a run: it may begin in one chunk and end in the next.
            if (length == SHORTEST_HOLE or (skipped and start == at)) and chunk.startswith(_zeros(length), at):
                if start < at:
                    skipped = _write_after(fd, skipped, memoryview(chunk)[start:at])
                skipped += length
                start = at + length
            at += length
        if start < size:
            skipped = _write_after(fd, skipped, memoryview(chunk)[start:] if start else chunk)
    if skipped:
        os.ftruncate(fd, os.lseek(fd, skipped, os.SEEK_CUR))


_RUN: Final = bytes(SHORTEST_HOLE)


def _zeros(length: int) -> bytes:
    return _RUN if length == SHORTEST_HOLE else _RUN[:length]


def _write_after(fd: int, skipped: int, data: bytes | memoryview) -> int:
    if skipped:
        os.lseek(fd, skipped, os.SEEK_CUR)
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
    return 0
