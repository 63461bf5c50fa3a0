"""Read the table of contents of a layer that can be pulled in parts: zstd:chunked and eStargz.

To us such a layer is an ordinary zstd or gzip stream. But others make their file system of the table
and never see the tar, so a layer whose two sides differ is two different images; `compare` finds that.

Source: containers/storage, docs/containers-storage-zstd-chunked.md; stargz-snapshotter, docs/estargz.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from imagetool import limits
from imagetool.errors import DigestMismatch, InvalidArchive, InvalidDocument, LimitExceeded
from imagetool.layer.annotations import CHUNKED_CHECKSUM, CHUNKED_POSITION, OLD_NAMES, STARGZ_TOC, is_chunked
from imagetool.layer.chunked import FOOTER_MAGIC, MANIFEST_TYPE
from imagetool.layer.entry import Entry, display, normal_name
from imagetool.layer.tarreader import read
from imagetool.layer.tocentry import TYPES
from imagetool.oci import document
from imagetool.oci.descriptor import Descriptor
from imagetool.streams.decompress import decompress
from imagetool.streams.verify import read_all
from imagetool.streams.zstdframes import skippable
from imagetool.values import dataclass

Ranges = Callable[[int, int], bytes]
"""Returns the bytes of a blob from an offset, by number; fewer at its end."""

_FOOTER: Final = 64
_OLD_FOOTER: Final = 40  # as it was until tar-split came, with another magic number
_OLD_MAGIC: Final = b"GnUlInUx"
_STARGZ_FOOTER: Final = 51
_STARGZ_NAME: Final = b"stargz.index.json"
#: Entries that eStargz has in its tar, or in its table, for its own ends.
_LANDMARKS: Final = frozenset({b".prefetch.landmark", b".no.prefetch.landmark", _STARGZ_NAME})


@dataclass(frozen=True, slots=True)
class TocEntry:
    """What a table of contents says of one path.

    name: as `Entry.name`. type: reg, dir, symlink, hardlink, char, block or fifo.
    digest: of the content, as text; "" for what has none. offset and end: where in the blob the
    content's frames are; 0 where the table does not say.
    """

    name: bytes
    type: str
    size: int
    mode: int
    uid: int
    gid: int
    linkname: bytes
    digest: str
    offset: int
    end: int


def is_partial(descriptor: Descriptor) -> bool:
    """Say whether a layer claims to have a table of contents."""
    return is_chunked(descriptor) or STARGZ_TOC in descriptor.annotations


def read_toc(blob: Ranges, size: int, annotations: Mapping[str, str], *, where: str) -> list[TocEntry]:
    """Return a blob's table of contents, found by its footer, in the table's order.

    Where an annotation has the table's digest, or its position, it must be right.

    Raises InvalidArchive for a blob without such a footer or a table that is damaged,
    DigestMismatch for another table than the annotation says, LimitExceeded for a huge one.
    """
    tail = blob(max(0, size - _FOOTER - 8), _FOOTER + 8)
    old = tail[-_OLD_FOOTER - 8 :]
    if tail[:8] == skippable(bytes(_FOOTER))[:8] and tail.endswith(FOOTER_MAGIC):
        raw = _chunked_table(blob, tail[8:], annotations, where)
    elif old[:8] == skippable(bytes(_OLD_FOOTER))[:8] and old.endswith(_OLD_MAGIC):
        raw = _chunked_table(blob, old[8:], annotations, where)
    else:
        raw = _stargz_table(blob, size, tail[-_STARGZ_FOOTER:], annotations, where)
    tree = document.decode(raw, what=f"{where}, table of contents", limit="TOC_BYTES")
    entries = document.get_list(
        tree, "entries", lambda item, at: document.expect(item, dict, at, where), path="$", what=where
    )
    return [_entry(tree, where) for tree in entries if tree.get("type") != "chunk"]


def _chunked_table(blob: Ranges, footer: bytes, annotations: Mapping[str, str], where: str) -> bytes:
    at, length, size, kind = (int.from_bytes(footer[i : i + 8], "little") for i in range(0, 32, 8))
    if kind != MANIFEST_TYPE:
        raise InvalidArchive(f"{where}: a table of contents of type {kind}")
    _check_size(max(length, size), where)
    position = _annotation(annotations, CHUNKED_POSITION) or ""
    if position and position != f"{at}:{length}:{size}:{kind}":
        raise InvalidArchive(
            f"{where}: its annotation has the table of contents at {position[:80]}, its footer elsewhere"
        )
    stored = blob(at, length)
    _check(stored, _annotation(annotations, CHUNKED_CHECKSUM), where)
    return read_all(decompress([stored], where=where, limit=size), size, where=where)


def _check_size(size: int, where: str) -> None:
    if size > limits.TOC_BYTES:
        raise LimitExceeded(f"{where}: a table of contents of {size} bytes, more than {limits.named('TOC_BYTES')}")


def _annotation(annotations: Mapping[str, str], name: str) -> str | None:
    return annotations.get(name, annotations.get(OLD_NAMES[name]))


def _stargz_table(blob: Ranges, size: int, footer: bytes, annotations: Mapping[str, str], where: str) -> bytes:
    offset = footer[16:32]
    if (
        len(footer) < _STARGZ_FOOTER
        or footer[:2] != b"\x1f\x8b"
        or footer[12:14] != b"SG"
        or footer[32:38] != b"STARGZ"
    ):
        raise InvalidArchive(f"{where}: no table of contents: its end is a footer of neither zstd:chunked nor eStargz")
    if offset.strip(b"0123456789abcdefABCDEF"):
        raise InvalidArchive(f"{where}: the footer has its table of contents at {offset!r}")
    at = int(offset, 16)
    length = size - _STARGZ_FOOTER - at
    if length <= 0:
        raise InvalidArchive(f"{where}: the footer has a table of contents of {length} bytes")
    _check_size(length, where)
    tar = decompress([blob(at, length)], where=where, limit=limits.TOC_BYTES)
    for entry, content in read(tar, where=where):
        if entry.name == _STARGZ_NAME:
            raw = read_all(content, limits.TOC_BYTES, where=where, name="TOC_BYTES")
            _check(raw, annotations.get(STARGZ_TOC), where)
            return raw
    raise InvalidArchive(f"{where}: where its table of contents should be there is none")


def _check(data: bytes, expected: str | None, where: str) -> None:
    got = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if expected is not None and got != expected:
        raise DigestMismatch(f"{where}, table of contents", expected=expected[:80], got=got)


def _entry(tree: Mapping[str, Any], where: str) -> TocEntry:
    def number(key: str) -> int:
        return document.get(tree, key, int, 0, path="$.entries", what=where)

    def text(key: str) -> str:
        return document.get(tree, key, str, "", path="$.entries", what=where)

    kind = text("type")
    if kind not in TYPES.values():
        raise InvalidDocument(f"{where}: its table of contents has an entry of type {kind[:20]!r}")
    link = text("linkName").encode()
    return TocEntry(
        name=normal_name(text("name").encode(), where=where),
        type=kind,
        size=number("size"),
        mode=number("mode") & 0o7777,
        uid=number("uid"),
        gid=number("gid"),
        linkname=normal_name(link, where=where) if kind == "hardlink" else link,
        digest=text("digest"),
        offset=number("offset"),
        end=number("endOffset"),
    )


def compare(toc: Iterable[TocEntry], tar: Iterable[bytes], *, where: str) -> Iterator[str]:
    """Yield one line for each way in which a layer's table of contents says something else than its tar.

    The tar is read to its end. eStargz's own landmarks and table do not count.
    """
    left: dict[bytes, TocEntry] = {}
    for entry in toc:
        if entry.name in left:
            yield f"the table of contents has {display(entry.name)} twice"
        left[entry.name] = entry
    for found, content in read(tar, where=where):
        hasher = hashlib.sha256()
        for piece in content:
            hasher.update(piece)
        if found.name in _LANDMARKS:
            left.pop(found.name, None)
            continue
        said = left.pop(found.name, None)
        if said is None:
            yield f"{display(found.name)} is in the tar and not in the table of contents"
            continue
        yield from _differences(said, found, f"sha256:{hasher.hexdigest()}")
    for name in left:
        if name not in _LANDMARKS:
            yield f"{display(name)} is in the table of contents and not in the tar"


def _differences(said: TocEntry, found: Entry, digest: str) -> Iterator[str]:
    facts: tuple[tuple[str, object, object], ...] = (
        ("type", said.type, TYPES[found.kind]),
        ("size", said.size, found.size),
        ("mode", said.mode, found.mode),
        ("owner", (said.uid, said.gid), (found.uid, found.gid)),
        ("link", said.linkname, found.linkname),
        ("content", said.digest or digest, digest),
    )
    for what, one, other in facts:
        if one != other:
            yield f"{display(found.name)}: {what} is {one!r} in the table of contents and {other!r} in the tar"
