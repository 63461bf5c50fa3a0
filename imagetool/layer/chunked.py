"""Write a layer as zstd:chunked: an ordinary zstd stream of the tar from which single files can be pulled.

    frame    headers and padding of the tar, up to the next content
    frame    content of one file (of a large one, a chunk)
    …
    skippable frame   table of contents: JSON, compressed by zstd
    skippable frame   tar-split: what makes the very same tar again of the files, compressed by zstd
    skippable frame   footer: where the two are

A reader that knows nothing of this skips the last three and sees the tar. One that does takes
the descriptor's annotations, which hold the digest of the table, and asks for parts of the blob.

Source: containers/storage, docs/containers-storage-zstd-chunked.md; vbatts/tar-split, README.md; RFC 8878.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections.abc import Generator, Iterable, Iterator, MutableMapping
from typing import Any, Final

from imagetool import limits
from imagetool.errors import LimitExceeded, Unsupported
from imagetool.layer.annotations import CHUNKED_CHECKSUM, CHUNKED_POSITION, CHUNKED_TAR_SPLIT, OLD_NAMES
from imagetool.layer.blocks import BLOCK
from imagetool.layer.crc64 import crc64
from imagetool.layer.entry import display
from imagetool.layer.tarreader import read
from imagetool.layer.tarsplit import CompressedText, TarSplit
from imagetool.layer.tocentry import extended_size, padded, toc_entry
from imagetool.oci.document import encode
from imagetool.streams.codecs import Codec
from imagetool.streams.pump import in_order, reblock, threads_for_codecs
from imagetool.streams.zstdframes import skippable, skippable_header
from imagetool.values import dataclass, field

FOOTER_MAGIC: Final = b"GNUlInUx"
MANIFEST_TYPE: Final = 1  # a table of contents like that of CRFS
_CHUNK: Final = 2 * limits.MIB  # content of larger files is cut into frames of this size
_BATCH: Final = limits.MIB  # what a thread gets at a time; small files make small frames
#: Beside a content and its frame for each, a fourth thread's tables of these levels would go over 64 MiB in all.
_THREE_THREADS_FROM: Final = 4
_TRAILER: Final = 16 * limits.MIB  # what may follow the last entry, or be extended headers of one
_SKIPPABLE_HEADER: Final = 8


def compress(
    tar: Iterable[bytes], codec: Codec, annotations: MutableMapping[str, str], *, where: str
) -> Iterator[bytes]:
    """Yield the blob; at its end, `annotations` has got what the layer's descriptor must say.

    Raises Unsupported for what the format cannot carry: names that are not UTF-8, two entries of one
    name, sparse files; LimitExceeded for a table of contents of more than `limits.TOC_BYTES`, StorageError
    where it finds no place for that; and what `tarreader.read` raises.
    """
    most = codec.zstd_threads if codec.zstd_level < _THREE_THREADS_FROM else min(codec.zstd_threads, 3)
    threads = max(1, min(threads_for_codecs(), most))
    with CompressedText(where) as table, CompressedText(where) as split:
        writer = _Writer(codec, table, TarSplit(split), where)
        for frames in in_order(writer.compressed, _batches(_units(tar, writer.split, where)), threads=threads):
            frames.reverse()
            while frames:
                writer.place(frames[-1])
                yield frames.pop().data  # whoever takes it is the only one that holds it, here and below
        yield from writer.end(annotations)


@dataclass(slots=True)
class _File:
    """An entry of the table of contents in the making; `chunks` are (offset, size, digest) in the blob's order."""

    toc: dict[str, Any]
    hasher: Any = None
    chunks: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What becomes one frame: headers (`content` is None), or content of a file. `done` are entries it ends."""

    data: bytes
    content: _File | None
    done: tuple[_File, ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A unit that was compressed; `digest` is that of the content, "" for headers. What it was made of is let go."""

    data: bytes
    size: int
    digest: str
    content: _File | None
    done: tuple[_File, ...]


class _Writer:
    """Frames written so far, and the table of contents over them."""

    def __init__(self, codec: Codec, table: CompressedText, split: TarSplit, where: str) -> None:
        self._parameters = codec.zstd_parameters(threads=0, longest=_CHUNK)
        self._local = threading.local()
        self._offset = 0
        self._where = where
        self.split = split
        self._table = table
        self._table.write(b'{"version":1,"entries":[')
        self._is_first = True

    def compressed(self, units: list[_Unit]) -> list[_Frame]:
        """Return the frames of units; called by several threads."""
        import zstandard

        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = zstandard.ZstdCompressor(compression_params=self._parameters)
        return [
            _Frame(
                compressor.compress(unit.data),
                len(unit.data),
                f"sha256:{hashlib.sha256(unit.data).hexdigest()}" if unit.content else "",
                unit.content,
                unit.done,
            )
            for unit in units
        ]

    def place(self, frame: _Frame) -> None:
        """Note where a frame is: after those before it."""
        if frame.content:
            frame.content.chunks.append((self._offset, frame.size, frame.digest))
        self._offset += len(frame.data)
        for file in frame.done:
            for entry in _entries(file, self._offset):
                self._table.write((b"" if self._is_first else b",") + encode(entry))
                self._is_first = False
            self._check_size()

    def end(self, annotations: MutableMapping[str, str]) -> Iterator[bytes]:
        """Yield the three skippable frames."""
        self.split.text.end()
        self._table.write(b'],"tarSplitDigest":"' + self.split.text.digest.encode() + b'"}')
        self._table.end()
        self._check_size()
        table, split = self._table, self.split.text
        at = self._offset + _SKIPPABLE_HEADER
        split_at = at + table.stored + _SKIPPABLE_HEADER
        annotations[CHUNKED_CHECKSUM] = table.digest
        annotations[CHUNKED_POSITION] = f"{at}:{table.stored}:{table.size}:{MANIFEST_TYPE}"
        annotations[CHUNKED_TAR_SPLIT] = f"{split_at}:{split.stored}:{split.size}"
        annotations.update({old: annotations[name] for name, old in OLD_NAMES.items()})
        numbers = (at, table.stored, table.size, MANIFEST_TYPE, split_at, split.stored, split.size)
        for text in (table, split):
            yield skippable_header(text.stored)
            yield from text.chunks()
        yield skippable(b"".join(number.to_bytes(8, "little") for number in numbers) + FOOTER_MAGIC)

    def _check_size(self) -> None:
        """Refuse a table that no reader would take, us among them, before it has grown much further."""
        if self._table.size > limits.TOC_BYTES:
            allowed = limits.named("TOC_BYTES")
            raise LimitExceeded(f"{self._where}: a table of contents of more than {allowed}; use zstd")


def _entries(file: _File, end: int) -> Iterator[dict[str, Any]]:
    """Yield a file's entry, and one for each further chunk."""
    chunks = file.chunks
    if not chunks:
        yield file.toc
        return
    toc = {
        **file.toc,
        "digest": f"sha256:{file.hasher.hexdigest()}" if file.hasher else chunks[0][2],
        "offset": chunks[0][0],
        "endOffset": end,
    }
    if len(chunks) == 1:
        yield toc
        return
    yield {**toc, "chunkSize": chunks[0][1], "chunkDigest": chunks[0][2]}
    at = chunks[0][1]
    for offset, size, digest in chunks[1:]:
        chunk = {"type": "chunk", "name": toc["name"], "offset": offset}
        yield {**chunk, "chunkSize": size, "chunkOffset": at, "chunkDigest": digest}
        at += size


def _batches(units: Iterator[_Unit]) -> Iterator[list[_Unit]]:
    """Yield units in lists of about _BATCH bytes."""
    batch: list[_Unit] = []
    size = 0
    for unit in units:
        batch.append(unit)
        size += len(unit.data)
        del unit
        if size >= _BATCH:
            full, batch, size = [batch], [], 0
            yield full.pop()
    if batch:
        yield batch


def _units(tar: Iterable[bytes], split: TarSplit, where: str) -> Iterator[_Unit]:
    """Cut a tar where contents begin and end, and tell tar-split of it all."""
    recorder = _Recorder(tar, where)
    seen = Names()
    heads: list[bytes] = []
    done: list[_File] = []
    held = padding = 0
    for entry, content in read(recorder, where=where):
        head = recorder.take_head(padding)
        padding = -entry.size % BLOCK
        toc = toc_entry(head, entry, where)
        if not seen.add(entry.name):
            raise Unsupported(f"{where}: two entries named {display(entry.name)}, which zstd:chunked has not; use zstd")
        split.segment(head)
        heads.append(head)
        held += len(head)
        file = _File(toc)
        if not entry.size:
            split.file(toc["name"], 0, 0)
            done.append(file)
            if held < _BATCH:
                continue
        yield _Unit(b"".join(heads), None, tuple(done))
        heads, done, held = [], [], 0
        if entry.size:
            crc = yield from _content(recorder, content, file, entry.size)
            split.file(toc["name"], entry.size, crc)
    rest = recorder.take_rest()
    split.segment(rest)
    yield _Unit(b"".join([*heads, rest]), None, tuple(done))


def _content(recorder: _Recorder, content: Iterable[bytes], file: _File, size: int) -> Generator[_Unit, None, int]:
    """Yield a file's content in units; the value of the generator is its CRC."""
    crc = 0
    if size > _CHUNK:
        file.hasher = hashlib.sha256()

    def passing() -> Iterator[bytes]:
        nonlocal crc
        for piece in content:
            recorder.drop(len(piece))
            crc = crc64(piece, crc)
            if file.hasher:
                file.hasher.update(piece)
            yield piece

    left = size
    for data in reblock(passing(), _CHUNK):
        left -= len(data)
        units = [_Unit(data, file, () if left else (file,))]
        del data
        yield units.pop()
    return crc


class Names:
    """The names seen so far, by their hashes: 16 bytes each, where a set of names takes 150.

    Two names whose 64 bits, keyed by this process, are the same would be taken for one: that is less
    likely than a broken disk, and an error that says to use zstd.
    """

    def __init__(self) -> None:
        self._slots = array("q", bytes(8 * 4096))
        self._count = 0

    def add(self, name: bytes) -> bool:
        """Say whether a name is new."""
        if 2 * self._count >= len(self._slots):
            self._grow()
        self._count += 1
        return self._put(hash(name) or 1)

    def _put(self, key: int) -> bool:
        slots = self._slots
        last = len(slots) - 1
        at = key & last
        while found := slots[at]:
            if found == key:
                return False
            at = at + 1 & last
        slots[at] = key
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("q", bytes(16 * len(old)))
        for key in filter(None, old):
            self._put(key)


class _Recorder:
    """The chunks of a tar as they are read, kept until they are taken."""

    def __init__(self, chunks: Iterable[bytes], where: str) -> None:
        self._chunks = chunks
        self._raw = bytearray()
        self._where = where

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._raw += chunk
            if len(self._raw) > _TRAILER + 2 * len(chunk):
                raise LimitExceeded(f"{self._where}: more than {_TRAILER} bytes that are no content of an entry")
            yield chunk

    def take_head(self, padding: int) -> bytes:
        """Return what stands before the content: padding, extended headers, the header."""
        end = padding
        while self._raw[end + 156] in b"xgLK":
            end += BLOCK + padded(extended_size(self._raw[end : end + BLOCK]))
        return self._take(end + BLOCK)

    def take_rest(self) -> bytes:
        """Return what stands after the last entry."""
        return self._take(len(self._raw))

    def drop(self, size: int) -> None:
        """Forget content."""
        del self._raw[:size]

    def _take(self, size: int) -> bytes:
        taken = bytes(self._raw[:size])
        del self._raw[:size]
        return taken
