"""The file that an archive is: read and unpacked within bounds, also when it is a pipe or a device without end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from imagetool import limits
from imagetool.content.staging import storage_errors
from imagetool.errors import LimitExceeded, NotFound
from imagetool.layer.entry import Item
from imagetool.layer.tarreader import read
from imagetool.streams.codecs import decompress
from imagetool.streams.pump import read_chunks

STDIN: Final = Path("/dev/stdin")


@contextmanager
def opened_archive(path: Path) -> Iterator[Iterator[bytes]]:
    """Yield the bytes of a file as they are; of STDIN from where it is. Raises NotFound when it cannot be opened,
    StorageError while reading.
    """
    try:
        # Opened by its name it would be read from its beginning, and not at all where only its opener may read it.
        file = open(os.dup(0) if path == STDIN else path, "rb")
    except IsADirectoryError:
        raise NotFound(f"{path} is a directory, not an archive: `copy` takes one as oci:{path} or dir:{path}") from None
    except OSError as error:
        raise NotFound(f"cannot open {path}: {error.strerror}") from None
    with file:
        yield _read(file, path)


def _read(file: BinaryIO, path: Path) -> Iterator[bytes]:
    with storage_errors(f"cannot read {path}"):
        yield from read_chunks(file)


def image_archive(chunks: Iterator[bytes], *, where: str) -> Iterator[Item]:
    """Yield the entries of an archive of images, compressed or not, as `tarreader.read` does.

    Raises LimitExceeded for more than `limits.ARCHIVE_ENTRIES`, and before more than
    `limits.ARCHIVE_BYTES` of content are given out.
    """
    plain = decompress(chunks, where=where, limit=2 * limits.ARCHIVE_BYTES)  # headers and padding come on top
    left = limits.ARCHIVE_BYTES
    for number, (entry, content) in enumerate(read(plain, where=where)):
        if number >= limits.ARCHIVE_ENTRIES:
            raise LimitExceeded(f"{where}: more entries than {limits.named('ARCHIVE_ENTRIES')}")
        left -= entry.size
        if left < 0:
            raise LimitExceeded(f"{where}: unpacks to more than {limits.named('ARCHIVE_BYTES')}")
        yield entry, content
