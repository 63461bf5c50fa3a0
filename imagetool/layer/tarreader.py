"""Read layer tars from any stream, trusting nothing in them.

Understands ustar, pax (global and local), GNU long names, base-256 numbers and pre-POSIX v7
headers. Sparse files are refused: their names and sizes mean something else than they say.

Source: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from zlib import adler32

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.entry import Entry, Item, Kind, display, normal_name
from imagetool.layer.tarcodec import BLOCK, XATTR_PREFIX

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
}
_ZERO: Final = bytes(BLOCK)
_SECOND: Final = 1_000_000_000
#: Fields that were read before: modes, owners, times and small sizes repeat all the time.
_NUMBERS: Final[dict[bytes, int]] = {}
_MAX_TIME: Final = 1 << 62  # nanoseconds; beyond it the kernel could not store it either


class _Source:
    """A stream as an exact reader."""

    def __init__(self, chunks: Iterable[bytes], where: str) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._at = 0
        self._where = where

    def block(self) -> bytes:
        """Return the next 512 bytes; b"" at the end of the stream."""
        at = self._at
        end = at + BLOCK
        if end <= len(self._buffer):
            self._at = end
            return self._buffer[at:end]
        return self.take(BLOCK, at_end=True)

    def take(self, size: int, *, at_end: bool = False) -> bytes:
        """Return exactly `size` bytes (small ones); with `at_end` an empty rest of the stream is b""."""
        parts = []
        left = size
        for part in self.pieces(size, at_end=at_end):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def pieces(self, size: int, *, at_end: bool = False) -> Iterator[bytes]:
        """Yield exactly `size` bytes in pieces as they come."""
        left = size
        while left:
            have = len(self._buffer) - self._at
            if not have:
                self._buffer, self._at = next(self._chunks, b""), 0
                if not self._buffer:
                    if at_end and left == size:
                        return
                    raise InvalidArchive(f"{self._where}: the archive ends in the middle of an entry")
                continue
            if self._at == 0 and have <= left:
                piece = self._buffer
            else:
                piece = self._buffer[self._at : self._at + left]
            self._at += len(piece)
            left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read the stream to its end, so that whoever verifies it sees all of it."""
        for _ in self._chunks:
            pass


def read(chunks: Iterable[bytes], *, where: str) -> Iterator[Item]:
    """Yield each entry of an uncompressed tar with its content, in archive order.

    The content is an iterator that is valid until the next entry is asked for; what was not
    read of it is skipped. Names come normalised (`entry.normal_name`). The stream is read to
    its end, past the end-of-archive marker.

    Args:
        where: the archive's name for errors, for example "layer sha256:…".

    Raises InvalidArchive, naming the entry, for anything malformed, and LimitExceeded for more
    than `limits.TAR_ENTRIES` entries or longer names or headers than `limits` allows.
    """
    source = _Source(chunks, where)
    common: dict[bytes, bytes] = {}
    local: dict[bytes, bytes] = {}
    count = 0
    while (block := source.block()) and block != _ZERO:
        _check_sum(block, where)
        flag = block[156]
        if flag in b"xgLK":
            size = _number(block, 124, 12, "size", where)
            if size > limits.TAR_PAX_BYTES:
                raise LimitExceeded(f"{where}: an extended header of {size} bytes")
            body = source.take(size)
            source.take(-size % BLOCK)
            if flag == ord("L"):
                local[b"path"] = body.rstrip(b"\0")
            elif flag == ord("K"):
                local[b"linkpath"] = body.rstrip(b"\0")
            else:
                (common if flag == ord("g") else local).update(_records(body, where))
            continue
        count += 1
        if count > limits.TAR_ENTRIES:
            raise LimitExceeded(f"{where}: more than {limits.TAR_ENTRIES} entries")
        entry, stored = _entry(block, {**common, **local} if common or local else local, where)
        local = {}
        content = source.pieces(stored)
        yield entry, content
        for _ in content:
            pass
        source.take(-stored % BLOCK)
    if local:
        raise InvalidArchive(f"{where}: the archive ends after an extended header")
    source.drain()


def _entry(block: bytes, pax: dict[bytes, bytes], where: str) -> tuple[Entry, int]:
    """Return the entry a header and its pax records describe, and how many bytes of content are stored."""
    flag = block[156]
    raw_name = pax.get(b"path")
    if raw_name is None:
        raw_name = block[:100].partition(b"\0")[0]
        if block[257:262] == b"ustar" and block[345] and block[257:265] != b"ustar  \0":
            raw_name = block[345:500].partition(b"\0")[0] + b"/" + raw_name
    if len(raw_name) > limits.TAR_NAME_BYTES:
        raise LimitExceeded(f"{where}: an entry name of {len(raw_name)} bytes ({display(raw_name)[:60]}…)")
    kind = _KIND_OF_TYPE.get(flag)
    if kind is None or any(key.startswith(b"GNU.sparse.") for key in pax):
        what = "a sparse file" if flag == ord("S") or kind else f"an entry of type {bytes((flag,))!r}"
        raise InvalidArchive(f"{where}: entry {display(raw_name)} is {what}, which is not supported")
    if kind == "file" and raw_name.endswith(b"/") and flag in b"\x000":
        kind = "dir"  # v7 had no type for directories
    name = normal_name(raw_name, where=where)
    size = _pax_int(pax, b"size", where) if b"size" in pax else _number(block, 124, 12, "size", where)
    if not 0 <= size <= limits.LAYER_BYTES:
        raise InvalidArchive(f"{where}: entry {display(name)} has size {size}")
    linkname = b""
    if kind in ("symlink", "link"):
        linkname = pax.get(b"linkpath") or block[157:257].partition(b"\0")[0]
        if not linkname or len(linkname) > limits.TAR_NAME_BYTES or b"\0" in linkname:
            raise InvalidArchive(f"{where}: entry {display(name)} links to nothing that can be")
        if kind == "link":
            linkname = normal_name(linkname, where=f"{where}: the link {display(name)}")
    device = kind in ("char", "block")
    entry = Entry(
        name,
        kind,
        _number(block, 100, 8, "mode", where) & 0o7777,
        _id(block, pax, b"uid", 108, where),
        _id(block, pax, b"gid", 116, where),
        size if kind == "file" else 0,
        _time(block, pax, where),
        linkname,
        _number(block, 329, 8, "device", where) if device else 0,
        _number(block, 337, 8, "device", where) if device else 0,
        _xattrs(pax, name, where) if pax else {},
    )
    # Some writers repeat the file's size in a hard link's header, and store nothing: so does GNU tar's reader.
    return entry, size if kind not in ("link", "symlink", "dir", "char", "block", "fifo") else 0


def _check_sum(block: bytes, where: str) -> None:
    """Compare modulo 65,521, which is what adler32 gives at C speed; a header's sum is seldom above it."""
    stated = _number(block, 148, 8, "checksum", where)
    body = block[:148] + block[156:]
    if ((adler32(body) & 0xFFFF) - 1 + 8 * 0x20 - stated) % 65521:
        signed = sum(body) + 8 * 0x20 - 256 * sum(byte > 127 for byte in body)
        if signed != stated:
            name = display(block[:100].partition(b"\0")[0])
            raise InvalidArchive(
                f"{where}: the header of {name or 'an entry'} has a wrong checksum; not a tar archive?"
            )


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
        name = display(block[:100].partition(b"\0")[0])
        raise InvalidArchive(f"{where}: entry {name} has {what} {digits!r}")
    value = int(digits or b"0", 8)
    if len(_NUMBERS) > 8192:
        _NUMBERS.clear()
    _NUMBERS[field] = value
    return value


def _id(block: bytes, pax: dict[bytes, bytes], key: bytes, at: int, where: str) -> int:
    value = _pax_int(pax, key, where) if key in pax else _number(block, at, 8, key.decode(), where)
    if not 0 <= value < 0xFFFFFFFF:  # the last one means "no change" to chown(2)
        raise InvalidArchive(f"{where}: an entry has {key.decode()} {value}")
    return value


def _time(block: bytes, pax: dict[bytes, bytes], where: str) -> int:
    text = pax.get(b"mtime")
    if text is None:
        return max(-_MAX_TIME, min(_number(block, 136, 12, "mtime", where) * _SECOND, _MAX_TIME))
    seconds, dot, fraction = text.lstrip(b"-").partition(b".")
    if not seconds.isdigit() or len(seconds) > 12 or (dot and fraction and not fraction.isdigit()):
        raise InvalidArchive(f"{where}: an entry has mtime {text[:40]!r}")
    value = min(int(seconds) * _SECOND + int(fraction[:9].ljust(9, b"0")), _MAX_TIME)
    return -value if text.startswith(b"-") else value


def _pax_int(pax: dict[bytes, bytes], key: bytes, where: str) -> int:
    text = pax[key]
    if not text.isdigit() or len(text) > 19:
        raise InvalidArchive(f"{where}: an entry has {key.decode()} {text[:40]!r}")
    return int(text)


def _xattrs(pax: dict[bytes, bytes], name: bytes, where: str) -> dict[bytes, bytes]:
    xattrs = {key[len(XATTR_PREFIX) :]: value for key, value in pax.items() if key.startswith(XATTR_PREFIX)}
    for attribute, value in xattrs.items():
        if len(value) > limits.TAR_XATTR_BYTES or len(attribute) > 255 or not attribute:
            raise LimitExceeded(f"{where}: entry {display(name)} has an extended attribute that is too big")
    return xattrs


def _records(body: bytes, where: str) -> dict[bytes, bytes]:
    """Read pax records; values may hold any byte, so each is cut out by its length."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        digits = body[at : at + 8].partition(b" ")[0]
        if not digits.isdigit():
            raise InvalidArchive(f"{where}: a malformed pax record {body[at : at + 40]!r}")
        end = at + int(digits)
        record = body[at + len(digits) + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(body) or not record.endswith(b"\n") or not equals or not key:
            raise InvalidArchive(f"{where}: a malformed pax record {body[at : at + 40]!r}")
        if key in records:
            raise InvalidArchive(f"{where}: two pax records for {display(key)}")
        records[key] = value[:-1]
        at = end
    return records
