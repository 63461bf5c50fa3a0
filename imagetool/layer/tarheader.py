"""The fields of a tar's header, checked, as an entry.

Octal and base-256 numbers, names with a prefix, types and devices; what extended headers say comes first.

Source: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from zlib import adler32

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.acl import ACCESS, DEFAULT, with_lists
from imagetool.layer.entry import Entry, Kind, display, normal_name
from imagetool.layer.paxrecords import pax_int, pax_time, pax_xattrs
from imagetool.layer.sparse import SPARSE

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
OLD_SPARSE: Final = ord("S")  # the type of GNU's first sparse files
_GNU_MAGIC: Final = b"ustar  \0"
_EXTENDED: Final = b"xgLK"
SECOND: Final = 1_000_000_000
_MAX_TIME: Final = (1 << 40) * SECOND  # far beyond what file systems keep; they would clamp it themselves
_MAX_MAJOR: Final = 0xFFF  # the kernel keeps 12 bits of it and would cut off others
_MAX_MINOR: Final = 0xFFFFF
_NO_CHANGE: Final = 0xFFFFFFFF  # as an id this means "no change" to chown(2)
#: Fields that were read before, and their numbers: owners, times and small sizes repeat all the time.
NUMBERS: Final[dict[bytes, int]] = {}
KNOWN_NUMBERS: Final = 16384


class Tail(NamedTuple):
    """What a header says from its type on; neighbours share all of it. `kind` is None for an extended header."""

    kind: Kind | None
    linkname: bytes
    devmajor: int
    devminor: int
    prefix: bytes
    sum: int
    is_simple: bool  # a directory, or a file that is not sparse


def read_tail(block: bytes, where: str) -> Tail:
    """Return what a header says from its type on; raises InvalidArchive for what readers differ on or do not know."""
    flag = block[156]
    kind = _KIND_OF_TYPE.get(flag)
    total = sum(block[156:]) + 8 * 0x20
    if kind is None:
        extended = Tail(None, b"", 0, 0, b"", total, is_simple=False)
        if flag in _EXTENDED:
            return extended
        check_sum(block, extended, where)  # before all else for what is no header at all
        what = f"an entry of type {bytes((flag,))!r}"
        raise InvalidArchive(f"{where}: entry {shown_name(block)} is {what}, which is not supported")
    if flag == OLD_SPARSE and block[257:265] != _GNU_MAGIC:
        raise InvalidArchive(f"{where}: entry {shown_name(block)} is a sparse file of an archive that is not GNU tar's")
    prefix = b""
    if flag != OLD_SPARSE and block[257:265] == _GNU_MAGIC and block[386:495].strip(b"\0"):
        raise InvalidArchive(
            f"{where}: entry {shown_name(block)} has a sparse map and is no sparse file: readers differ on it"
        )
    if block[257:262] == b"ustar" and block[345] and block[257:265] != _GNU_MAGIC:
        if block[262]:
            raise InvalidArchive(f"{where}: entry {shown_name(block)} is of no format that says what its prefix means")
        prefix = block[345:500].partition(b"\0")[0] + b"/"
    major = minor = 0
    if kind in ("char", "block"):
        major, minor = read_number(block, 329, 8, "device", where), read_number(block, 337, 8, "device", where)
        if not 0 <= major <= _MAX_MAJOR or not 0 <= minor <= _MAX_MINOR:
            raise InvalidArchive(f"{where}: entry {shown_name(block)} is a device {major}:{minor}, which cannot be")
        if kind == "char" and major == minor == 0:
            raise InvalidArchive(f"{where}: entry {shown_name(block)} is a device 0:0, the kernel's own whiteout")
    linkname = block[157:257].partition(b"\0")[0] if kind in ("symlink", "link") else b""
    is_simple = kind == "dir" or (kind == "file" and flag != OLD_SPARSE)
    return Tail(kind, linkname, major, minor, prefix, total, is_simple)


def shown_name(block: bytes) -> str:
    """Return the name in a header as it is shown in errors, whatever else the header is."""
    return display(block[:100].partition(b"\0")[0])


def check_sum(block: bytes, tail: Tail, where: str) -> None:
    """Raise InvalidArchive for a header with another checksum than it says.

    Compared modulo 65,521, which is what adler32 gives at C speed; a header's sum is seldom above it.
    """
    head = block[:148]
    stated = NUMBERS.get(block[148:156])
    if stated is None:
        try:
            stated = read_number(block, 148, 8, "checksum", where)
        except InvalidArchive:
            raise _no_header(block, where) from None
    if ((adler32(head) & 0xFFFF) - 1 + tail.sum - stated) % 65521:
        signed = sum(head) + tail.sum - 256 * sum(byte > 127 for byte in head + block[156:])
        if signed != stated:
            raise _no_header(block, where)


def _no_header(block: bytes, where: str) -> InvalidArchive:
    """Say that a block is no header; by its name only where it looks like one that has been damaged."""
    raw = block[:100].rstrip(b"\0")
    name = shown_name(block) if raw.isascii() and raw.decode().isprintable() else ""
    return InvalidArchive(f"{where}: the header of {name or 'an entry'} has a wrong checksum; not a tar archive?")


def read_entry(block: bytes, tail: Tail, pax: Mapping[bytes, bytes], where: str) -> Entry:
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
            pax_int(pax, b"uid", where) if b"uid" in pax else read_number(block, 108, 8, "uid", where),
            pax_int(pax, b"gid", where) if b"gid" in pax else read_number(block, 116, 8, "gid", where),
        ),
        pax_int(pax, b"size", where) if b"size" in pax else read_number(block, 124, 12, "size", where),
        pax_time(pax[b"mtime"], where) if b"mtime" in pax else read_number(block, 136, 12, "mtime", where) * SECOND,
        pax_xattrs(pax, raw_name, where),
        where,
    )
    return with_lists(entry, pax, where) if entry.xattrs or ACCESS in pax or DEFAULT in pax else entry


def _finished(
    block: bytes,
    tail: Tail,
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
        # but for pax archives (`check_link`). After others with a size GNU tar looks for content, libarchive does not.
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
    mode = read_number(block, 100, 8, "mode", where) & 0o7777
    assert kind is not None
    return Entry(name, kind, mode, *owner, size, mtime, linkname, major, minor, xattrs)


def check_link(block: bytes, records: Mapping[bytes, bytes], name: bytes, where: str) -> None:
    """Refuse a hard link with a size in a pax archive: libarchive takes what follows for its content, others do not."""
    if pax_int(records, b"size", where) if b"size" in records else read_number(block, 124, 12, "size", where):
        raise InvalidArchive(f"{where}: entry {display(name)} is a link with a size in a pax archive: readers differ")


def read_number(block: bytes, at: int, length: int, what: str, where: str) -> int:
    """Return the number in an octal or base-256 field, 0 for a blank one; raises InvalidArchive, naming `what`."""
    field = block[at : at + length]
    known = NUMBERS.get(field)
    if known is not None:
        return known
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * length - 1)) - 1)
        return value - (1 << (8 * length - 1)) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise InvalidArchive(f"{where}: entry {shown_name(block)} has {what} {digits!r}; not a tar archive?")
    value = int(digits or b"0", 8)
    if len(NUMBERS) > KNOWN_NUMBERS:
        NUMBERS.clear()
    NUMBERS[field] = value
    return value
