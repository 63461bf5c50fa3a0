"""A scan as bytes: kept beside an unpacked tree, read before its difference is taken.

    imagetool scan 1\\n
    LENGTH and JSON           what the caller keeps with it
    COUNT and records         one fixed structure a path
    sections                  names, targets, xattrs; a number is eight bytes, a length or a count
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

_MAGIC: Final = b"imagetool scan 1\n"
_RECORD: Final = struct.Struct("<IIIQqqQQQ")
_NUMBER: Final = struct.Struct("<Q")
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
    parts = [
        _MAGIC,
        _sized(encode(notes)),
        _NUMBER.pack(len(names)),
        *starmap(_RECORD.pack, map(scan.records.__getitem__, names)),
        _sized(b"\0".join(names)),
        _sized(b"\0".join(piece for pair in scan.targets.items() for piece in pair)),
        _NUMBER.pack(len(xattrs)),
        *map(_sized, xattrs),
    ]
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


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
        scan.targets.update(zip(targets[::2], targets[1::2], strict=False))
        self._read_xattrs(scan, names)
        if len(targets) % 2 or self._at != self._end:
            raise self._wrong("its parts are whole")
        if not scan.targets.keys() <= scan.records.keys():
            raise self._wrong("symlinks are among its names")
        return scan, notes

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
