"""Read layer tars from any stream, trusting nothing in them.

Understands ustar, pax (global and local), GNU long names, base-256 numbers, sparse files of
all four kinds, and pre-POSIX v7 headers. Whatever readers are known to take in different ways
is refused.

Source: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final
from zlib import adler32

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.acl import ACCESS, DEFAULT
from imagetool.layer.blocks import BLOCK, Blocks
from imagetool.layer.entry import Entry, Item, Kind, display
from imagetool.layer.paxrecords import LIBARCHIVE_XATTR, XATTR_PREFIX, parse_records
from imagetool.layer.sparse import OTHERS, SPARSE, Sparse, expand, from_header, from_records
from imagetool.layer.tarheader import (
    KNOWN_NUMBERS,
    NUMBERS,
    OLD_SPARSE,
    SECOND,
    Tail,
    check_link,
    check_sum,
    read_entry,
    read_number,
    read_tail,
    shown_name,
)

#: What a global header may say of all entries that follow; of other fields it would be nonsense.
_GLOBAL: Final = frozenset({b"uid", b"gid", b"mtime"})
_NOT_GLOBAL: Final = (b"path", b"linkpath", b"size", XATTR_PREFIX, LIBARCHIVE_XATTR, SPARSE, ACCESS, DEFAULT, *OTHERS)
_ZERO: Final = bytes(BLOCK)
_NO_XATTRS: Final[Mapping[bytes, bytes]] = {}
_SMALL: Final = 64 * limits.KIB  # content up to this size is cut out at once
#: A header as name; mode, uid and gid; size; mtime; checksum; all the rest.
_FIELDS: Final = struct.Struct("100s24s12s12s8s356s").unpack_from
_OWNERS: Final[dict[bytes, tuple[int, int, int]]] = {}  # mode, uid and gid side by side
_NO_NAMES: Final = frozenset((b"", b".", b".."))
_new: Final = tuple.__new__  # of a NamedTuple, without going through its own constructor


def read(chunks: Iterable[bytes], *, where: str) -> Iterator[Item]:
    """Yield each entry of an uncompressed tar with its content, in archive order.

    The content is valid until the next entry is asked for; what was not read of it is skipped.
    Names come normalised (`entry.normal_name`). The stream is read to its end, past the
    end-of-archive marker, by `limits.TAR_TRAILING_BYTES` at most.

    Args:
        where: the archive's name for errors, for example "layer sha256:…".

    Raises InvalidArchive, naming the entry, for anything malformed, and LimitExceeded for more
    than `limits.TAR_ENTRIES` entries or longer names or headers than `limits` allows.
    """
    source = Blocks(chunks, where)
    tails: dict[bytes, Tail] = {}
    extended = _Extended(where)
    left = limits.TAR_ENTRIES
    while True:
        if not extended.records and not extended.seen:
            left = yield from _plain(source, tails, left)
        block = source.block()
        if not block or block == _ZERO:
            break
        rest = block[156:]
        tail = tails.get(rest)
        if tail is None:
            tail = read_tail(block, where)
            if len(tails) < 1024:
                tails[rest] = tail
        check_sum(block, tail, where)
        left -= 1
        if left < 0:
            raise LimitExceeded(
                f"{where}: at entry {shown_name(block)}: more entries than {limits.named('TAR_ENTRIES')}"
            )
        if tail.kind is None:
            extended.add(block, source)
            continue
        records = extended.records
        entry = read_entry(block, tail, records, where)
        if entry.kind == "link" and extended.posix:
            check_link(block, records, entry.name, where)
        if not records:
            _remember(block, entry)
        extended.reset()
        source.entry, source.is_inside = entry.name, True
        size = entry.size
        sparse = None if tail.is_simple and not records else _sparse(block, records, source, entry, where)
        if sparse is not None:
            size = sparse.stored
        elif size <= _SMALL:
            content = (source.take(size),) if size else ()
            source.is_inside = False
            yield entry, content
            continue
        pieces = source.pieces(size)
        if sparse is None:
            yield entry, pieces
        else:
            yield entry._replace(size=sparse.size), expand(sparse, pieces)
        for _ in pieces:
            pass
        source.skip(-size % BLOCK)
        source.is_inside = False
    if extended.seen:
        raise InvalidArchive(f"{where}: the archive ends after an extended header")
    source.drain()


class _Extended:
    """The extended headers before an entry, and what global ones say of all that follow."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._common: dict[bytes, bytes] = {}
        self.records: Mapping[bytes, bytes] = {}
        self.seen = b""  # types of the headers before the next entry; each may occur once
        self.posix = False  # whether there was any that makes this a pax archive

    def reset(self) -> None:
        self.records = self._common
        self.seen = b""

    def add(self, block: bytes, source: Blocks) -> None:
        where = self._where
        flag = block[156:157]
        self.posix = self.posix or flag in b"xg"
        size = read_number(block, 124, 12, "size", where)
        if size > limits.TAR_PAX_BYTES:
            allowed = limits.named("TAR_PAX_BYTES")
            raise LimitExceeded(
                f"{where}: {shown_name(block)}: an extended header of {size} bytes, more than {allowed}"
            )
        if size < 0:
            raise InvalidArchive(f"{where}: an extended header of {size} bytes")
        body = source.take(size + -size % BLOCK)
        if flag in b"LK" and body[size : size + 1].strip(b"\0"):
            raise InvalidArchive(f"{where}: a long name does not end where its header says: readers differ on it")
        body = body[:size]
        if flag == b"g":
            self._add_global(parse_records(body, where=where))
            return
        if flag in self.seen:
            raise InvalidArchive(f"{where}: two extended headers of type {flag.decode()} for one entry")
        self.seen += flag
        if flag == b"x":
            records = parse_records(body, where=where)
        else:
            records = {b"path" if flag == b"L" else b"linkpath": body.rstrip(b"\0")}
        if any(key in records and key in self.records for key in (b"path", b"linkpath")):
            raise InvalidArchive(f"{where}: two extended headers name one entry")
        self.records = {**self.records, **records}

    def _add_global(self, records: dict[bytes, bytes]) -> None:
        for key in records:
            if key.startswith(_NOT_GLOBAL):
                raise InvalidArchive(f"{self._where}: a global header says {display(key)} for all entries")
        self._common |= {key: value for key, value in records.items() if key in _GLOBAL}
        self.records = {**self._common, **self.records}


def _plain(source: Blocks, tails: Mapping[bytes, Tail], left: int) -> Generator[Item, None, int]:
    """Yield entries as long as they are directories and small files with plain headers; return how many may follow.

    Nearly all are, and what is done here is what every single one costs. What neighbours have in
    common was read and checked before, by the reader of all others, which decides whatever is in
    doubt here.

    Args:
        left: how many entries there may be.
    """
    buffer, at = source.buffer, source.at
    end = len(buffer)
    most = min(_SMALL, limits.LAYER_BYTES)
    numbers, owners = NUMBERS.get, _OWNERS.get
    near, prefix, tail_sum = b"", b"", 0
    near_owner, mode, uid, gid = b"", 0, 0, 0
    near_time, seconds, mtime = b"", 0, 0
    near_folder: bytes | None = None
    known = len(NUMBERS)
    kind: Kind | None = None
    entry: Entry | None = None
    while at + 512 <= end and left > 0:
        name, owner_field, size_field, time_field, sum_field, rest = _FIELDS(buffer, at)
        if rest != near:
            tail = tails.get(rest)
            if tail is None or not tail.is_simple:
                break
            near, kind, prefix, tail_sum = rest, tail.kind, tail.prefix, tail.sum
        total, size = numbers(sum_field), numbers(size_field)
        if total is None:
            total = _octal(sum_field)
            if known < KNOWN_NUMBERS and total >= 0:  # some thousands, each met again and again
                known += 1
                NUMBERS[sum_field] = total
        if size is None:
            size = _octal(size_field)
        if time_field != near_time:
            seconds = _octal(time_field)
            near_time, mtime = time_field, seconds * SECOND
        if (adler32(buffer[at : at + 148]) & 0xFFFF) - 1 + tail_sum != total:
            break
        if owner_field != near_owner:
            owner = owners(owner_field)
            if owner is None:
                break
            near_owner = owner_field
            mode, uid, gid = owner
        start = at + 512
        after = start + size + (-size & 511)
        if not 0 <= size <= most or after > end or seconds < 0:
            break
        name = prefix + name.partition(b"\0")[0]
        if kind == "dir":
            name = name.removesuffix(b"/")
            if size:
                break
        folder, slash, base = name.rpartition(b"/")
        if base in _NO_NAMES or (folder != near_folder and not _is_normal(folder, slash)):
            break
        near_folder = folder or None
        left -= 1
        at = after
        entry = _new(Entry, (name, kind, mode, uid, gid, size, mtime, b"", 0, 0, _NO_XATTRS))
        yield entry, ((buffer[start : start + size],) if size else ())
    source.at = at
    if entry is not None:
        source.entry = entry.name
    return left


def _is_normal(folder: bytes, slash: bytes) -> bool:
    """Say whether the directory of a name is written as in `Entry.name`; some that are not quite are good enough."""
    if not folder:
        return not slash
    # find(), because `in` first asks whether it was given a number, which costs as much again
    return folder[0] != 0x2F and folder.find(b"//") < 0 and folder.find(b"./") < 0 and folder[-1] not in b"/."


def _octal(field: bytes) -> int:
    """Return a number written as nearly all are, in digits up to the field's end; -1 for whatever else there is."""
    digits = field.rstrip(b"\0 ")
    try:
        return int(digits, 8) if digits.isdigit() else -1
    except ValueError:
        return -1


def _remember(block: bytes, entry: Entry) -> None:
    """Keep the owner and mode of a header that says them itself; those around it are likely to have the same."""
    if len(_OWNERS) > 1024:
        _OWNERS.clear()
    _OWNERS[block[100:124]] = entry.mode, entry.uid, entry.gid


def _sparse(block: bytes, pax: Mapping[bytes, bytes], source: Blocks, entry: Entry, where: str) -> Sparse | None:
    """Return how a sparse file is stored, None for any other entry."""
    has_records = any(key.startswith(SPARSE) for key in pax)
    for key in OTHERS:
        if key in pax:
            what = f"{where}: entry {display(entry.name)} has {key.decode()}"
            raise InvalidArchive(f"{what}: it is stored in a way that readers differ on")
    if block[156] != OLD_SPARSE and not has_records:
        return None
    where = f"{where}: entry {display(entry.name)}"
    if entry.kind != "file" or (has_records and block[156] == OLD_SPARSE):
        raise InvalidArchive(f"{where} is a sparse file in two ways, or no file")

    def number(block: bytes, at: int) -> int:
        return read_number(block, at, 12, "a sparse map", where)

    if has_records:
        sparse = from_records(pax, source.take, entry.size, where)
    else:
        sparse = from_header(block, number, lambda: source.take(BLOCK), entry.size, where)
    source.expanded += sparse.size
    if source.expanded > limits.LAYER_BYTES:
        raise LimitExceeded(
            f"{where}: with it the sparse files have {source.expanded} bytes, more than {limits.named('LAYER_BYTES')}"
        )
    return sparse
