"""One entry of a layer's table of contents (zstd:chunked), out of what its tar says.

It must be what Go's reader of tars sees, for that is what others compare it with.

Source: containers/storage, docs/containers-storage-zstd-chunked.md.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from imagetool.errors import InvalidArchive, Unsupported
from imagetool.layer.blocks import BLOCK
from imagetool.layer.entry import Entry, display
from imagetool.layer.paxrecords import XATTR_PREFIX, parse_records
from imagetool.layer.sparse import SPARSE

#: What a table of contents calls the kinds of entries.
TYPES: Final = {
    "file": "reg",
    "link": "hardlink",
    "symlink": "symlink",
    "dir": "dir",
    "char": "char",
    "block": "block",
    "fifo": "fifo",
}


def toc_entry(head: bytes, entry: Entry, where: str) -> dict[str, Any]:
    """Return an entry of the table of contents: like Go's reader of tars sees it, for that is compared."""
    header = head[-BLOCK:]
    records, long = _extended(head, where)
    if header[156:157] == b"S" or any(key.startswith(SPARSE) for key in records):
        raise Unsupported(f"{where}: {display(entry.name)} is a sparse file; zstd:chunked has none, use zstd")
    name = long.get(b"L", records.get(b"path", _short_name(header)))
    toc: dict[str, Any] = {"type": TYPES[entry.kind], "name": _text(name, entry, where)}
    if entry.linkname:
        link = long.get(b"K", records.get(b"linkpath", header[157:257].partition(b"\0")[0]))
        toc["linkName"] = _text(link, entry, where)
    octal = header[100:108].partition(b"\0")[0].strip(b" ")
    mode = entry.mode if header[100] & 0x80 else int(octal or b"0", 8)
    numbers = {"mode": mode, "size": entry.size, "uid": entry.uid, "gid": entry.gid}
    toc |= {key: value for key, value in numbers.items() if value}
    toc["modtime"] = _time(entry.mtime)
    for key, record in (("accesstime", b"atime"), ("changetime", b"ctime")):
        if record in records:
            seconds, _, fraction = records[record].decode().partition(".")
            toc[key] = _time(int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0")))
    toc |= {key: value for key, value in (("devMajor", entry.devmajor), ("devMinor", entry.devminor)) if value}
    xattrs = {
        _text(key[len(XATTR_PREFIX) :], entry, where): b64encode(value).decode()
        for key, value in records.items()
        if key.startswith(XATTR_PREFIX)
    }
    return {**toc, "xattrs": xattrs} if xattrs else toc


def _extended(head: bytes, where: str) -> tuple[Mapping[bytes, bytes], Mapping[bytes, bytes]]:
    """Return the pax records and the GNU long names that stand before a header."""
    records: Mapping[bytes, bytes] = {}
    long: dict[bytes, bytes] = {}
    at = len(head) % BLOCK  # what is left of padding is never a whole block
    while at < len(head) - BLOCK:
        block = head[at : at + BLOCK]
        if not block.strip(b"\0"):
            raise InvalidArchive(f"{where}: an empty block between entries")
        size = extended_size(block)
        body = head[at + BLOCK : at + BLOCK + size]
        if block[156:157] == b"g":
            raise Unsupported(f"{where}: a global extended header; zstd:chunked cannot say what it means, use zstd")
        if block[156:157] == b"x":
            records = parse_records(body, where=where)
        else:
            long[block[156:157]] = body.rstrip(b"\0")
        at += BLOCK + padded(size)
    return records, long


def _short_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _text(name: bytes, entry: Entry, where: str) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Unsupported(
            f"{where}: {display(entry.name)}: a name is not UTF-8, which zstd:chunked needs; use zstd"
        ) from None


def _time(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"


def padded(size: int) -> int:
    """Return a size with what fills its last block up."""
    return size + -size % BLOCK


def extended_size(block: bytes | bytearray) -> int:
    """Return the size an extended header says, which the reader has checked."""
    field = bytes(block[124:136])
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.partition(b"\0")[0].strip(b" ") or b"0", 8)
