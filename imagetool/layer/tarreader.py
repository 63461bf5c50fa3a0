"""Read layer tars from any stream, trusting nothing in them.

Understands ustar, pax (global and local), GNU long names, base-256 numbers, sparse files of
all four kinds, and pre-POSIX v7 headers. Whatever readers are known to take in different ways
is refused.

Source: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from zlib import adler32

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.acl import ACCESS, DEFAULT, with_lists
from imagetool.layer.blocks import BLOCK, Blocks
from imagetool.layer.entry import Entry, Item, Kind, display, normal_name
from imagetool.layer.paxrecords import LIBARCHIVE_XATTR, XATTR_PREFIX, parse_records, pax_int, pax_time, pax_xattrs
from imagetool.layer.sparse import OTHERS, SPARSE, Sparse, expand, from_header, from_records

_KIND_OF_TYPE: Final[dict[int, Kind]] = {
    0x00: "file",  # v7
    ord("0"): "file",
    ord("7"): "file",  # contiguous
    ord("1"): "link",
    ord("2"): "symlink",
    ord("3"): "char",
    ord("4"): "block",
    ord("5"): "dir",
    ord("6"): "fifo",
    ord("S"): "file",
}
_OLD_SPARSE: Final = ord("S")
_GNU_MAGIC: Final = b"ustar  \0"
_EXTENDED: Final = b"xgLK"
#: What a global header may say of all entries that follow; of other fields it would be nonsense.
_GLOBAL: Final = frozenset({b"uid", b"gid", b"mtime"})
_NOT_GLOBAL: Final = (b"path", b"linkpath", b"size", XATTR_PREFIX, LIBARCHIVE_XATTR, SPARSE, ACCESS, DEFAULT, *OTHERS)
_ZERO: Final = bytes(BLOCK)
_SECOND: Final = 1_000_000_000
_MAX_TIME: Final = (1 << 40) * _SECOND  # far beyond what file systems keep; they would clamp it themselves
_MAX_MAJOR: Final = 0xFFF  # the kernel keeps 12 bits of it and would cut off others
_MAX_MINOR: Final = 0xFFFFF
_NO_CHANGE: Final = 0xFFFFFFFF  # as an id this means "no change" to chown(2)
_NO_XATTRS: Final[Mapping[bytes, bytes]] = {}
_SMALL: Final = 64 * limits.KIB  # content up to this size is cut out at once
#: A header as name; mode, uid and gid; size; mtime; checksum; all the rest.
_FIELDS: Final = struct.Struct("100s24s12s12s8s356s").unpack_from
#: Fields that were read before: owners, times and small sizes repeat all the time.
_NUMBERS: Final[dict[bytes, int]] = {}
_KNOWN_NUMBERS: Final = 16384
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
    tails: dict[bytes, _Tail] = {}
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
            tail = _tail(block, where)
            if len(tails) < 1024:
                tails[rest] = tail
        _check_sum(block, tail, where)
        left -= 1
        if left < 0:
            raise LimitExceeded(f"{where}: at entry {_name(block)}: more entries than {limits.named('TAR_ENTRIES')}")
        if tail.kind is None:
            extended.add(block, source)
            continue
        records = extended.records
        entry = _entry(block, tail, records, where)
        if entry.kind == "link" and extended.posix:
            _check_link(block, records, entry.name, where)
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


class _Tail(NamedTuple):
    """What a header says from its type on; neighbours share all of it. `kind` is None for an extended header."""

    kind: Kind | None
    linkname: bytes
    devmajor: int
    devminor: int
    prefix: bytes
    sum: int
    is_simple: bool  # a directory, or a file that is not sparse


def _tail(block: bytes, where: str) -> _Tail:
    flag = block[156]
    kind = _KIND_OF_TYPE.get(flag)
    total = sum(block[156:]) + 8 * 0x20
    if kind is None:
        extended = _Tail(None, b"", 0, 0, b"", total, is_simple=False)
        if flag in _EXTENDED:
            return extended
        _check_sum(block, extended, where)  # before all else for what is no header at all
        what = f"an entry of type {bytes((flag,))!r}"
        raise InvalidArchive(f"{where}: entry {_name(block)} is {what}, which is not supported")
    if flag == _OLD_SPARSE and block[257:265] != _GNU_MAGIC:
        raise InvalidArchive(f"{where}: entry {_name(block)} is a sparse file of an archive that is not GNU tar's")
    prefix = b""
    if flag != _OLD_SPARSE and block[257:265] == _GNU_MAGIC and block[386:495].strip(b"\0"):
        raise InvalidArchive(
            f"{where}: entry {_name(block)} has a sparse map and is no sparse file: readers differ on it"
        )
    if block[257:262] == b"ustar" and block[345] and block[257:265] != _GNU_MAGIC:
        if block[262]:
            raise InvalidArchive(f"{where}: entry {_name(block)} is of no format that says what its prefix means")
        prefix = block[345:500].partition(b"\0")[0] + b"/"
    major = minor = 0
    if kind in ("char", "block"):
        major, minor = _number(block, 329, 8, "device", where), _number(block, 337, 8, "device", where)
        if not 0 <= major <= _MAX_MAJOR or not 0 <= minor <= _MAX_MINOR:
            raise InvalidArchive(f"{where}: entry {_name(block)} is a device {major}:{minor}, which cannot be")
        if kind == "char" and major == minor == 0:
            raise InvalidArchive(f"{where}: entry {_name(block)} is a device 0:0, the kernel's own whiteout")
    linkname = block[157:257].partition(b"\0")[0] if kind in ("symlink", "link") else b""
    is_simple = kind == "dir" or (kind == "file" and flag != _OLD_SPARSE)
    return _Tail(kind, linkname, major, minor, prefix, total, is_simple)


def _name(block: bytes) -> str:
    return display(block[:100].partition(b"\0")[0])


def _check_sum(block: bytes, tail: _Tail, where: str) -> None:
    """Compare modulo 65,521, which is what adler32 gives at C speed; a header's sum is seldom above it."""
    head = block[:148]
    stated = _NUMBERS.get(block[148:156])
    if stated is None:
        try:
            stated = _number(block, 148, 8, "checksum", where)
        except InvalidArchive:
            raise _no_header(block, where) from None
    if ((adler32(head) & 0xFFFF) - 1 + tail.sum - stated) % 65521:
        signed = sum(head) + tail.sum - 256 * sum(byte > 127 for byte in head + block[156:])
        if signed != stated:
            raise _no_header(block, where)


def _no_header(block: bytes, where: str) -> InvalidArchive:
    """Say that a block is no header; by its name only where it looks like one that has been damaged."""
    raw = block[:100].rstrip(b"\0")
    name = _name(block) if raw.isascii() and raw.decode().isprintable() else ""
    return InvalidArchive(f"{where}: the header of {name or 'an entry'} has a wrong checksum; not a tar archive?")


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
        size = _number(block, 124, 12, "size", where)
        if size > limits.TAR_PAX_BYTES:
            allowed = limits.named("TAR_PAX_BYTES")
            raise LimitExceeded(f"{where}: {_name(block)}: an extended header of {size} bytes, more than {allowed}")
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


def _plain(source: Blocks, tails: Mapping[bytes, _Tail], left: int) -> Generator[Item, None, int]:
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
    numbers, owners = _NUMBERS.get, _OWNERS.get
    near, prefix, tail_sum = b"", b"", 0
    near_owner, mode, uid, gid = b"", 0, 0, 0
    near_time, seconds, mtime = b"", 0, 0
    near_folder: bytes | None = None
    known = len(_NUMBERS)
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
            if known < _KNOWN_NUMBERS and total >= 0:  # some thousands, each met again and again
                known += 1
                _NUMBERS[sum_field] = total
        if size is None:
            size = _octal(size_field)
        if time_field != near_time:
            seconds = _octal(time_field)
            near_time, mtime = time_field, seconds * _SECOND
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


def _entry(block: bytes, tail: _Tail, pax: Mapping[bytes, bytes], where: str) -> Entry:
    """Return the entry that a header and the extended headers before it describe."""
    raw_name = pax.get(SPARSE + b"name", pax.get(b"path"))
    if raw_name is None:
        raw_name = tail.prefix + block[:100].partition(b"\0")[0]
    entry = _finished(
        block,
        tail,
        raw_name,
        pax.get(b"linkpath", tail.linkname) if tail.kind in ("symlink", "link") else b"",
        (
            pax_int(pax, b"uid", where) if b"uid" in pax else _number(block, 108, 8, "uid", where),
            pax_int(pax, b"gid", where) if b"gid" in pax else _number(block, 116, 8, "gid", where),
        ),
        pax_int(pax, b"size", where) if b"size" in pax else _number(block, 124, 12, "size", where),
        pax_time(pax[b"mtime"], where) if b"mtime" in pax else _number(block, 136, 12, "mtime", where) * _SECOND,
        pax_xattrs(pax, raw_name, where),
        where,
    )
    return with_lists(entry, pax, where) if entry.xattrs or ACCESS in pax or DEFAULT in pax else entry


def _sparse(block: bytes, pax: Mapping[bytes, bytes], source: Blocks, entry: Entry, where: str) -> Sparse | None:
    """Return how a sparse file is stored, None for any other entry."""
    has_records = any(key.startswith(SPARSE) for key in pax)
    for key in OTHERS:
        if key in pax:
            what = f"{where}: entry {display(entry.name)} has {key.decode()}"
            raise InvalidArchive(f"{what}: it is stored in a way that readers differ on")
    if block[156] != _OLD_SPARSE and not has_records:
        return None
    where = f"{where}: entry {display(entry.name)}"
    if entry.kind != "file" or (has_records and block[156] == _OLD_SPARSE):
        raise InvalidArchive(f"{where} is a sparse file in two ways, or no file")

    def number(block: bytes, at: int) -> int:
        return _number(block, at, 12, "a sparse map", where)

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


def _finished(
    block: bytes,
    tail: _Tail,
    raw_name: bytes,
    linkname: bytes,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    xattrs: Mapping[bytes, bytes],
    where: str,
) -> Entry:
    """Check what was read, however it was said, and return it."""
    kind, _, major, minor, _, _, _ = tail
    if len(raw_name) > limits.TAR_NAME_BYTES:
        raise LimitExceeded(
            f"{where}: entry {display(raw_name)[:60]}…: its name has {len(raw_name)} bytes,"
            f" more than {limits.named('TAR_NAME_BYTES')}"
        )
    name = normal_name(raw_name, where=where)
    if size < 0:
        raise InvalidArchive(f"{where}: entry {display(name)} has size {size}")
    if size > limits.LAYER_BYTES:
        raise LimitExceeded(f"{where}: entry {display(name)} has size {size}, more than {limits.named('LAYER_BYTES')}")
    if min(owner) < 0 or max(owner) >= _NO_CHANGE:
        raise InvalidArchive(f"{where}: entry {display(name)} has owner {owner[0]}:{owner[1]}")
    if kind != "file":
        # Some writers repeat the file's size in a hard link's header and store nothing: readers agree on it
        # but for pax archives (`_check_link`). After others with a size GNU tar looks for content, libarchive does not.
        if size and kind != "link":
            raise InvalidArchive(f"{where}: entry {display(name)} is a {kind} with content: readers differ on it")
        size = 0
        if kind in ("symlink", "link"):
            if len(linkname) > limits.TAR_NAME_BYTES:
                raise LimitExceeded(
                    f"{where}: entry {display(name)} links to a name of {len(linkname)} bytes,"
                    f" more than {limits.named('TAR_NAME_BYTES')}"
                )
            if not linkname or b"\0" in linkname:
                raise InvalidArchive(f"{where}: entry {display(name)} links to nothing that can be")
            if kind == "link":
                linkname = normal_name(linkname, where=f"{where}: the link {display(name)}")
    elif raw_name.endswith(b"/"):
        if size:
            raise InvalidArchive(f"{where}: entry {display(raw_name)} is a directory with content")
        kind = "dir"  # v7 had no type for directories
    if not -_MAX_TIME <= mtime <= _MAX_TIME:
        mtime = _MAX_TIME if mtime > 0 else -_MAX_TIME
    mode = _number(block, 100, 8, "mode", where) & 0o7777
    assert kind is not None
    return Entry(name, kind, mode, *owner, size, mtime, linkname, major, minor, xattrs)


def _check_link(block: bytes, records: Mapping[bytes, bytes], name: bytes, where: str) -> None:
    """Refuse a hard link with a size in a pax archive: libarchive takes what follows for its content, others do not."""
    if pax_int(records, b"size", where) if b"size" in records else _number(block, 124, 12, "size", where):
        raise InvalidArchive(f"{where}: entry {display(name)} is a link with a size in a pax archive: readers differ")


def _number(block: bytes, at: int, length: int, what: str, where: str) -> int:
    """Read an octal or base-256 field; blank is 0."""
    field = block[at : at + length]
    known = _NUMBERS.get(field)
    if known is not None:
        return known
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * length - 1)) - 1)
        return value - (1 << (8 * length - 1)) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise InvalidArchive(f"{where}: entry {_name(block)} has {what} {digits!r}; not a tar archive?")
    value = int(digits or b"0", 8)
    if len(_NUMBERS) > _KNOWN_NUMBERS:
        _NUMBERS.clear()
    _NUMBERS[field] = value
    return value
