"""Owners that an ordinary user may not give its files, recorded beside them.

The attribute `user.rootlesscontainers` holds a protobuf message with the owner inside the
container: field 1 the uid, field 2 the gid, both varints. umoci, and proot-based tools, read
and write the same. Files without it belong to root.

Source: rootlesscontaine.rs, "proto/rootlesscontainers.proto".
"""

from __future__ import annotations

from typing import Final

from imagetool.errors import InvalidDocument

OWNER: Final = b"user.rootlesscontainers"
_NOTHING: Final = 0xFFFFFFFF  # in either field: not recorded


def render_owner(uid: int, gid: int) -> bytes:
    """Return the attribute's value; it is not needed for 0:0."""
    return b"".join(tag + _varint(number) for tag, number in ((b"\x08", uid), (b"\x10", gid)) if number)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def parse_owner(value: bytes, *, where: str) -> tuple[int, int]:
    """Read the attribute's value; raises InvalidDocument for anything but two numbers of 32 bits."""
    owner = {1: 0, 2: 0}
    at = 0
    while at < len(value):
        field, kind = value[at] >> 3, value[at] & 7
        number = shift = 0
        while True:
            at += 1
            if field not in owner or kind or at >= len(value) or shift > 28:
                raise InvalidDocument(f"{where}: the attribute {OWNER.decode()} is not an owner")
            number |= (value[at] & 0x7F) << shift
            shift += 7
            if value[at] < 0x80:
                break
        at += 1
        if number > _NOTHING:
            raise InvalidDocument(f"{where}: the attribute {OWNER.decode()} is not an owner")
        owner[field] = 0 if number == _NOTHING else number
    return owner[1], owner[2]
