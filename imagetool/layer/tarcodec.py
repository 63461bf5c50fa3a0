"""Layer tars as bytes: the canonical writer, and the parts of the format both directions share.

The writer makes plain ustar, with a pax header before an entry only where ustar cannot say
it: long or non-ASCII names, times below the second or before 1970, big sizes and ids, xattrs.
User and group names are left out, so the bytes do not depend on the host.

Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final
from zlib import adler32

from imagetool.errors import InvalidArchive, StorageError
from imagetool.layer.acl import ATTRIBUTE_OF
from imagetool.layer.blocks import BLOCK
from imagetool.layer.entry import Entry, Item, Kind, display
from imagetool.layer.paxrecords import XATTR_PREFIX, quote, render_records
from imagetool.limits import CHUNK

TYPE_OF_KIND: Final[dict[Kind, bytes]] = {
    "file": b"0",
    "link": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
_MAGIC: Final = b"ustar\x0000"
_ZEROS: Final = bytes(BLOCK)
_END: Final = bytes(2 * BLOCK)
_SECOND: Final = 1_000_000_000
_OCTAL_11: Final = 0o77777777777  # the largest size or time of an 11-digit field: 8 GiB - 1
_OCTAL_7: Final = 0o7777777  # the largest id


def write(items: Iterable[Item], *, where: str = "layer") -> Iterator[bytes]:
    """Yield a tar archive in blocks of about `limits.CHUNK` bytes.

    Entries are written in the order given. Raises StorageError when a file's content is not
    as long as its entry says (it changed while it was read).
    """
    header = header_writer()
    parts: list[bytes] = []
    held = 0
    for entry, content in items:
        block = header(entry)
        parts.append(block)
        held += len(block)
        size = entry.size
        if size:
            left = size
            for chunk in content:
                left -= len(chunk)
                if left < 0:
                    break
                parts.append(chunk)
                held += len(chunk)
                if held >= CHUNK:
                    parts = [b"".join(parts)]
                    chunk = b""
                    yield parts.pop()  # whoever takes it is the only one that holds it
                    held = 0
            if left:
                raise StorageError(f"{where}: {display(entry.name)} changed while it was read; try again")
            if rest := size % BLOCK:
                parts.append(_ZEROS[rest:])
                held += BLOCK - rest
        if held >= CHUNK:
            parts = [b"".join(parts)]
            yield parts.pop()
            held = 0
    parts.append(_END)
    yield b"".join(parts)


def header_writer() -> Callable[[Entry], bytes]:
    """Return a function that renders headers and remembers what entries have in common.

    Thousands of neighbours share mode, owner, time and type: the bytes between name and
    checksum, and their sum, are rendered once for each such combination. The low half of
    adler32 is one more than the sum of the bytes (below 65,521), at C speed.
    """
    known: dict[tuple[int, int, int, int, str], tuple[bytes, bytes, int]] = {}

    def header(entry: Entry) -> bytes:
        name, kind, mode, uid, gid, size, mtime, linkname, _, _, xattrs = entry
        stored = name + b"/" if kind == "dir" else name
        if (
            xattrs
            or len(stored) > 100
            or len(linkname) > 100
            or mtime % _SECOND
            or size > _OCTAL_11
            or not 0 <= mtime <= _OCTAL_11 * _SECOND
            or uid > _OCTAL_7
            or gid > _OCTAL_7
            or not stored.isascii()
            or not linkname.isascii()
            or kind in ("char", "block")
        ):
            return _long_header(entry, stored)
        key = (mode, uid, gid, mtime, kind)
        common = known.get(key)
        if common is None:
            if len(known) > 4096:
                known.clear()
            before = b"%07o\0%07o\0%07o\0" % (mode, uid, gid)
            after = b"%011o\0" % (mtime // _SECOND)
            common = known[key] = (before, after, sum(before) + sum(after) + _fixed_sum(kind))
        before, after, total = common
        length = b"%011o\0" % size
        total += (adler32(stored) & 0xFFFF) + (adler32(length) & 0xFFFF) - 2
        flag = TYPE_OF_KIND[kind]
        if linkname:
            total += adler32(linkname) & 0xFFFF
            total -= 1
            tail = flag + linkname.ljust(100, b"\0") + _MAGIC + _TAIL
        else:
            tail = flag + _NO_LINK
        return b"%b%b%b%b%06o\0 %b" % (stored.ljust(100, b"\0"), before, length, after, total, tail)

    return header


#: What follows the link name: empty user and group names, zero device numbers, no prefix.
_TAIL: Final = bytes(64) + b"0000000\0" * 2 + bytes(167)
_NO_LINK: Final = bytes(100) + _MAGIC + _TAIL
_CHECKSUM_SPACES: Final = 8 * 0x20


def _fixed_sum(kind: Kind) -> int:
    return _CHECKSUM_SPACES + sum(_MAGIC) + sum(_TAIL) + sum(TYPE_OF_KIND[kind])


def _long_header(entry: Entry, stored: bytes) -> bytes:
    """Render an entry that plain ustar cannot say, after the pax header that says the rest."""
    records: dict[bytes, bytes] = {}
    prefix = b""
    name = stored
    if not stored.isascii():
        records[b"path"] = stored
        name = _ascii(stored)[:100]
    elif len(stored) > 100:
        split = stored.rfind(b"/", 0, min(156, len(stored) - 1))
        if split > 0 and len(stored) - split - 1 <= 100:
            prefix, name = stored[:split], stored[split + 1 :]
        else:
            records[b"path"] = stored
            name = stored[:100]
    linkname = entry.linkname
    if len(linkname) > 100 or not linkname.isascii():
        records[b"linkpath"] = linkname
        linkname = _ascii(linkname)[:100]
    if records and not _is_utf8(stored + b"/" + entry.linkname):
        records[b"hdrcharset"] = b"BINARY"  # pax names are UTF-8 unless this says otherwise
    seconds, fraction = divmod(entry.mtime, _SECOND)
    if fraction or not 0 <= seconds <= _OCTAL_11:
        records[b"mtime"] = _decimal(entry.mtime)
    uid, gid, size = entry.uid, entry.gid, entry.size
    for key, value, most in ((b"uid", uid, _OCTAL_7), (b"gid", gid, _OCTAL_7), (b"size", size, _OCTAL_11)):
        if value > most:
            records[key] = b"%d" % value
    for attribute, data in sorted(entry.xattrs.items()):
        records[attribute if attribute in ATTRIBUTE_OF else XATTR_PREFIX + quote(attribute)] = data
    block = _ustar(
        name,
        entry.mode,
        min(uid, _OCTAL_7),
        min(gid, _OCTAL_7),
        size if size <= _OCTAL_11 else 0,
        min(max(seconds, 0), _OCTAL_11),
        TYPE_OF_KIND[entry.kind],
        linkname,
        prefix,
        (entry.devmajor, entry.devminor),
    )
    return _pax(records) + block if records else block


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ascii(name: bytes) -> bytes:
    return bytes(byte if byte < 0x80 else 0x5F for byte in name)


def _decimal(nanoseconds: int) -> bytes:
    """Render a time as pax does: seconds with as many decimals as needed, exact for negative times too."""
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")


def _pax(records: dict[bytes, bytes]) -> bytes:
    body = render_records(records)
    header = _ustar(b"PaxHeader", 0o644, 0, 0, len(body), 0, b"x", b"", b"", (0, 0))
    return header + body + bytes(-len(body) % BLOCK)


def _ustar(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    seconds: int,
    flag: bytes,
    linkname: bytes,
    prefix: bytes,
    device: tuple[int, int],
) -> bytes:
    if not 0 <= device[0] <= _OCTAL_7 or not 0 <= device[1] <= _OCTAL_7:
        raise InvalidArchive(f"{display(name)}: device number {device} does not fit in a tar header")
    before = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, seconds)
    after = flag + linkname.ljust(100, b"\0") + _MAGIC + bytes(64) + b"%07o\0%07o\0" % device
    after += prefix.ljust(155, b"\0") + bytes(12)
    return before + b"%06o\0 " % (sum(before) + sum(after) + _CHECKSUM_SPACES) + after
