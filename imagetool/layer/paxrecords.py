"""The records of pax extended headers, as bytes. docs/reference/tar-records.md says what becomes of each key.

Source: POSIX.1-2017 pax, "pax Extended Header"; GNU tar's quoting of attribute names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.entry import display

XATTR_PREFIX: Final = b"SCHILY.xattr."
LIBARCHIVE_XATTR: Final = b"LIBARCHIVE.xattr."
_REPEATED: Final = frozenset({b"GNU.sparse.offset", b"GNU.sparse.numbytes"})


def render_records(records: Mapping[bytes, bytes]) -> bytes:
    """Return the body of an extended header, keys sorted."""
    return b"".join(_record(key, value) for key, value in sorted(records.items()))


def _record(key: bytes, value: bytes) -> bytes:
    """Render "LENGTH KEY=VALUE\\n", where LENGTH counts its own digits too."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    if len(str(length)) > len(str(size)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def parse_records(body: bytes, *, where: str) -> dict[bytes, bytes]:
    """Read the body of an extended header; values may hold any byte, so each is cut out by its length.

    The two keys that GNU tar repeats on purpose, for the regions of a sparse file, come as one
    record each, values joined by commas. Raises InvalidArchive for malformed records and for
    two with any other key.
    """
    records: dict[bytes, bytes] = {}
    repeated: dict[bytes, list[bytes]] = {}
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
        if key in _REPEATED:
            repeated.setdefault(key, []).append(value[:-1])
        elif key in records:
            raise InvalidArchive(f"{where}: two pax records for {display(key)}")
        else:
            records[key] = value[:-1]
        at = end
    return records | {key: b",".join(values) for key, values in repeated.items()}


def quote(attribute: bytes) -> bytes:
    """Return an attribute's name as the key of a record may hold it, "=" and "%" escaped."""
    if b"=" not in attribute and b"%" not in attribute:
        return attribute
    return attribute.replace(b"%", b"%25").replace(b"=", b"%3D")


def unquote(key: bytes) -> bytes:
    """Return the attribute's name that `quote` was given."""
    return key.replace(b"%3D", b"=").replace(b"%25", b"%") if b"%" in key else key


def pax_int(pax: Mapping[bytes, bytes], key: bytes, where: str) -> int:
    """Return a record that is a number; raises InvalidArchive."""
    text = pax[key]
    if not text.isdigit() or len(text) > 19:
        raise InvalidArchive(f"{where}: an entry has {key.decode()} {text[:40]!r}")
    return int(text)


def pax_time(text: bytes, where: str) -> int:
    """Return a record that is a time, in nanoseconds; what is finer is cut off. Raises InvalidArchive."""
    seconds, dot, fraction = text.removeprefix(b"-").partition(b".")
    if not seconds.isdigit() or len(seconds) > 13 or (dot and fraction and not fraction.isdigit()):
        raise InvalidArchive(f"{where}: an entry has mtime {text[:40]!r}")
    value = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -value if text.startswith(b"-") else value


def pax_xattrs(pax: Mapping[bytes, bytes], name: bytes, where: str) -> dict[bytes, bytes]:
    """Return the extended attributes of the entry `name`; raises InvalidArchive and LimitExceeded.

    libarchive says each twice: as others do, and with the value in base64. Both have the name with
    most characters escaped, which only the second is read back from.
    """
    xattrs = {unquote(key[len(XATTR_PREFIX) :]): value for key, value in pax.items() if key.startswith(XATTR_PREFIX)}
    if any(key.startswith(LIBARCHIVE_XATTR) for key in pax):
        _add_libarchive(xattrs, pax, f"{where}: entry {display(name)}")
    for attribute, value in xattrs.items():
        if len(value) > limits.TAR_XATTR_BYTES:
            raise LimitExceeded(
                f"{where}: entry {display(name)} has an extended attribute of {len(value)} bytes,"
                f" more than {limits.named('TAR_XATTR_BYTES')}"
            )
        if not 0 < len(attribute) <= 255 or b"\0" in attribute or attribute.startswith(b"SCHILY."):
            raise InvalidArchive(f"{where}: entry {display(name)} has an extended attribute that can have no such name")
    return xattrs


def _add_libarchive(xattrs: dict[bytes, bytes], pax: Mapping[bytes, bytes], what: str) -> None:
    from base64 import b64decode
    from urllib.parse import unquote_to_bytes

    found: dict[bytes, bytes] = {}
    for key, text in pax.items():
        if not key.startswith(LIBARCHIVE_XATTR):
            continue
        escaped = key[len(LIBARCHIVE_XATTR) :]
        attribute = unquote_to_bytes(escaped)
        try:
            value = b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except ValueError:
            raise InvalidArchive(f"{what} has {display(key)[:80]} with a value that is not base64") from None
        if attribute in found or pax.get(XATTR_PREFIX + escaped, value) != value:
            raise InvalidArchive(f"{what} has two values of {display(attribute)[:80]}: readers differ on it")
        xattrs.pop(unquote(escaped), None)
        found[attribute] = value
    xattrs |= found
