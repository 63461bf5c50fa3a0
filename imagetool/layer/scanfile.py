"""A scan as bytes: kept beside an unpacked tree, read before its difference is taken.

    imagetool scan 2\\n
    LENGTH and JSON           what the caller keeps with it
    COUNT and records         one fixed structure a path
    sections                  names, targets, far times, xattrs; a number is eight bytes, a length or a count
    SHA-256 of all before

It lies where others may write, so nothing in it is believed before its checksum and its bounds
have been looked at; paths in it are only ever compared with those that are there.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from itertools import starmap
from typing import Any, Final

from imagetool import limits
from imagetool.errors import InvalidDocument, LimitExceeded
from imagetool.layer.directory import Record, Scan
from imagetool.oci.document import decode, encode

_MAGIC: Final = b"imagetool scan 2\n"
_RECORD: Final = struct.Struct("<IIIQqqQQQ")
_NUMBER: Final = struct.Struct("<Q")
_FAR: Final = struct.Struct("<Q16s16s")  # the number of a path, and its times where a record has no room: after 2262
_CHECKSUM: Final = 32


def render(scan: Scan, notes: Mapping[str, Any]) -> bytes:
    """Return a scan as bytes. `notes` is a JSON object of the caller's."""
    names = sorted(scan.records)
    places = {name: number for number, name in enumerate(names)}
    xattrs = [
        piece
        for name, attributes in scan.xattrs.items()
        for attribute, value in attributes.items()
        for piece in (_NUMBER.pack(places[name]), attribute, value)
    ]
    records, far = [*map(scan.records.__getitem__, names)], b""
    try:
        packed = [*starmap(_RECORD.pack, records)]
    except struct.error:
        far = b"".join(_far(place, record) for place, record in enumerate(records) if _near(record) != record)
        packed = [*starmap(_RECORD.pack, map(_near, records))]
    parts = [
        _MAGIC,
        _sized(encode(notes)),
        _NUMBER.pack(len(names)),
        *packed,
        _sized(b"\0".join(names)),
        _sized(b"\0".join(piece for pair in scan.targets.items() for piece in pair)),
        _sized(far),
        _NUMBER.pack(len(xattrs)),
        *map(_sized, xattrs),
    ]
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def _near(record: Record) -> Record:
    """Return a record whose times are 0 where they are further away than 64 bits of nanoseconds."""
    mtime, ctime = (time if -1 << 63 <= time < 1 << 63 else 0 for time in (record.mtime, record.ctime))
    return record._replace(mtime=mtime, ctime=ctime)


def _far(place: int, record: Record) -> bytes:
    mtime, ctime = (time.to_bytes(16, "little", signed=True) for time in (record.mtime, record.ctime))
    return _FAR.pack(place, mtime, ctime)


def _sized(data: bytes) -> bytes:
    return _NUMBER.pack(len(data)) + data


def parse(raw: bytes, *, where: str) -> tuple[Scan, dict[str, Any]]:
    """Read what `render` made; return the scan and the notes.

    Args:
        raw: at most `limits.SCAN_BYTES`.
        where: the file's name for errors.

    Raises InvalidDocument for anything else, LimitExceeded for too many bytes or entries.
    """
    if len(raw) > limits.SCAN_BYTES:
        raise LimitExceeded(f"{where}: larger than {limits.named('SCAN_BYTES')}")
    if not raw.startswith(_MAGIC):
        raise InvalidDocument(f"{where}: not a scan of this version of imagetool; unpack the image again")
    if hashlib.sha256(memoryview(raw)[:-_CHECKSUM]).digest() != raw[-_CHECKSUM:]:
        raise InvalidDocument(f"{where}: damaged: its checksum is wrong; unpack the image again")
    return _Sections(raw, where).read()


class _Sections:
    def __init__(self, raw: bytes, where: str) -> None:
        self._raw = raw
        self._end = len(raw) - _CHECKSUM
        self._at = len(_MAGIC)
        self._where = where

    def read(self) -> tuple[Scan, dict[str, Any]]:
        notes = decode(self._bytes(), what=self._where)
        count = self._number()
        if count > limits.TAR_ENTRIES:
            raise LimitExceeded(f"{self._where}: {count} entries, more than {limits.named('TAR_ENTRIES')}")
        records = map(Record._make, _RECORD.iter_unpack(self._take(count * _RECORD.size)))
        names = self._strings()
        if len(names) != count:
            raise self._wrong("it has as many names as records")
        scan = Scan(dict(zip(names, records, strict=True)))
        if len(scan.records) != count:
            raise self._wrong("every name is there once")
        targets = self._strings()
        self._read_far_times(scan, names)
        scan.targets.update(zip(targets[::2], targets[1::2], strict=False))
        self._read_xattrs(scan, names)
        if len(targets) % 2 or self._at != self._end:
            raise self._wrong("its parts are whole")
        if not scan.targets.keys() <= scan.records.keys():
            raise self._wrong("symlinks are among its names")
        return scan, notes

    def _read_far_times(self, scan: Scan, names: list[bytes]) -> None:
        times = self._bytes()
        if len(times) % _FAR.size:
            raise self._wrong("far times are whole")
        for place, *pair in _FAR.iter_unpack(times):
            if place >= len(names):
                raise self._wrong("what it speaks of is among its names")
            mtime, ctime = (int.from_bytes(time, "little", signed=True) for time in pair)
            scan.records[names[place]] = scan.records[names[place]]._replace(mtime=mtime, ctime=ctime)

    def _read_xattrs(self, scan: Scan, names: list[bytes]) -> None:
        count = self._number()
        if count % 3:
            raise self._wrong("attributes have a name and a value")
        for _ in range(count // 3):
            name = self._name(names, self._bytes())
            attribute, value = self._bytes(), self._bytes()
            scan.xattrs[name] = {**scan.xattrs.get(name, {}), attribute: value}

    def _name(self, names: list[bytes], number: bytes) -> bytes:
        place = int.from_bytes(number, "little")
        if len(number) != _NUMBER.size or place >= len(names):
            raise self._wrong("what it speaks of is among its names")
        return names[place]

    def _strings(self) -> list[bytes]:
        data = self._bytes()
        return data.split(b"\0") if data else []

    def _bytes(self) -> bytes:
        return self._take(self._number())

    def _number(self) -> int:
        return int(_NUMBER.unpack(self._take(_NUMBER.size))[0])

    def _take(self, size: int) -> bytes:
        start = self._at
        if size > self._end - start:
            raise self._wrong("its parts are whole")
        self._at = start + size
        return self._raw[start : self._at]

    def _wrong(self, rule: str) -> InvalidDocument:
        return InvalidDocument(f"{self._where}: not a scan, in which {rule}; unpack the image again")
