"""The two texts at the end of a layer in zstd:chunked: its table of contents, and tar-split.

They grow with the number of entries, so they are compressed as they are written and not held in memory.

Source: vbatts/tar-split, README.md.
"""

from __future__ import annotations

import contextlib
import hashlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from imagetool import limits
from imagetool.errors import StorageError
from imagetool.oci.document import encode
from imagetool.streams.pump import read_chunks

_WINDOW_LOG: Final = 19  # they repeat themselves at once
_IN_MEMORY: Final = limits.MIB  # of each; what is longer goes to a temporary file


class CompressedText:
    """A text that is compressed as it is written, into memory while it is short and a file without a name after.

    size: bytes of the text; stored and digest: of what it was compressed to, once it has ended.
    """

    def __init__(self, where: str) -> None:
        import tempfile

        import zstandard

        small = zstandard.ZstdCompressionParameters.from_level(3, window_log=_WINDOW_LOG, write_checksum=1, threads=0)
        self._compressor = zstandard.ZstdCompressor(compression_params=small).compressobj()
        self._file: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)
        self._waiting: list[bytes] = []
        self._hasher = hashlib.sha256()
        self._where = where
        self.size = self.stored = 0

    def __enter__(self) -> CompressedText:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what cannot be written was told
            self._file.close()

    @property
    def digest(self) -> str:
        """The digest of what the text was compressed to."""
        return f"sha256:{self._hasher.hexdigest()}"

    def write(self, data: bytes) -> None:
        """Append; raises StorageError when the disk refuses."""
        self._waiting.append(data)
        if len(self._waiting) == 256:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()
        self.size += len(data)
        self._store(self._compressor.compress(data))

    def _store(self, data: bytes) -> None:
        self._hasher.update(data)
        self.stored += len(data)
        with self._told():
            self._file.write(data)

    def end(self) -> None:
        """Compress what is left."""
        self._flush()
        self._store(self._compressor.flush())

    def chunks(self) -> Iterator[bytes]:
        """Yield what the text was compressed to."""
        with self._told():
            self._file.seek(0)
        yield from read_chunks(self._file)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or error
            raise StorageError(
                f"{self._where}: cannot keep its table of contents in a temporary file: {why}"
            ) from error


class TarSplit:
    """The lines of tar-split: the tar's own bytes, and the files that stand between them."""

    def __init__(self, text: CompressedText) -> None:
        self.text = text
        self._position = 0

    def segment(self, data: bytes) -> None:
        """Add headers and padding."""
        self._line({"type": 2, "payload": b64encode(data).decode()})

    def file(self, name: str, size: int, crc: int) -> None:
        """Add an entry's content, or that it has none."""
        line: dict[str, Any] = {"type": 1, "name": name}
        if size:
            line |= {"size": size, "payload": b64encode(crc.to_bytes(8, "big")).decode()}
        else:
            line["payload"] = None
        self._line(line)

    def _line(self, line: dict[str, Any]) -> None:
        self.text.write(encode({**line, "position": self._position}) + b"\n")
        self._position += 1
