"""POSIX access control lists: the text that tars have them as, and the attribute that the kernel takes.

GNU tar (`--acls`) and bsdtar write the records SCHILY.acl.access and SCHILY.acl.default: entries such
as `user:bob:rw-`, parted by newlines or commas, bsdtar with the number behind them (`user:bob:rw-:1000`).
A layer of ours holds the attribute instead, as docker and buildah read it.

Users count by number. GNU tar and bsdtar look a name without one up among the users of the host that
unpacks, where an image's users mean nothing; only root is the same everywhere. So an entry for another
name without a number is kept as text while layers are read, merged and written, and left out, with a
warning, of what is unpacked; the rest of its list, mask and all, is set.

Source: POSIX 1003.1e draft 17, "ACL text forms"; acl(5); star(5); linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer.entry import Entry, display

ACCESS: Final = b"SCHILY.acl.access"
DEFAULT: Final = b"SCHILY.acl.default"
#: The records, and the attribute that says the same as each.
ATTRIBUTE_OF: Final = {ACCESS: b"system.posix_acl_access", DEFAULT: b"system.posix_acl_default"}
_HEADER: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_KNOWN: Final = {_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER}
_NO_ID: Final = 0xFFFFFFFF
_TAGS: Final = {
    **dict.fromkeys((b"user", b"u"), (_USER_OBJ, _USER)),
    **dict.fromkeys((b"group", b"g"), (_GROUP_OBJ, _GROUP)),
    **dict.fromkeys((b"mask", b"m"), (_MASK, 0)),
    **dict.fromkeys((b"other", b"o"), (_OTHER, 0)),
}
_PERMISSIONS: Final = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}


def with_lists(entry: Entry, pax: Mapping[bytes, bytes], where: str) -> Entry:
    """Return an entry with the lists that its records state; the one for access states its mode, too.

    Where the attribute itself is recorded as well, it counts: it has numbers. A list that names users
    without a number is kept under the record's own key, too. Raises InvalidArchive and LimitExceeded, also
    for attributes that no kernel takes.
    """
    xattrs = dict(entry.xattrs)
    mode = entry.mode
    for key, attribute in ATTRIBUTE_OF.items():
        if (key not in pax and attribute not in xattrs) or entry.kind == "link":
            continue
        what = f"{where}: entry {display(entry.name)}"
        if entry.kind == "symlink" or (key == DEFAULT and entry.kind != "dir"):
            raise InvalidArchive(f"{what} is a {entry.kind}, which cannot have the list {attribute.decode()}")
        if attribute in xattrs:
            _check(xattrs[attribute], what)
        if key not in pax:
            continue
        binary, has_names, permissions = from_text(pax[key], what)
        if xattrs.get(attribute, binary) != binary:
            continue
        if key == ACCESS and attribute not in xattrs:
            mode = mode & ~0o777 | permissions
        if has_names:
            xattrs[key] = pax[key]
        if len(binary) > len(_HEADER) + 3 * _ENTRY.size or key == DEFAULT:
            xattrs[attribute] = binary
    return entry._replace(mode=mode, xattrs=xattrs)


def from_text(text: bytes, what: str) -> tuple[bytes, bool, int]:
    """Return a list as the kernel's attribute, whether users in it have names only, and the mode it comes to.

    Those users are not in the attribute. Raises InvalidArchive, beginning with `what`, for a list
    that is malformed or that the kernel would not take, LimitExceeded for a long one.
    """
    found: dict[tuple[int, int], int] = {}
    names: set[tuple[int, bytes]] = set()
    for line in text.replace(b"\n", b",").split(b","):
        said = line.partition(b"\t#")[0].strip()
        if not said or said.startswith(b"#"):
            continue
        tag, identity, permissions = _entry(said, what)
        if isinstance(identity, bytes):
            is_new = (tag, identity) not in names
            names.add((tag, identity))
        else:
            is_new = (tag, identity) not in found
            found[tag, identity] = permissions
        if not is_new:
            raise InvalidArchive(f"{what} has an access control list that says {display(said)[:80]!r} anew")
    tags = [tag for tag, _ in found] + [tag for tag, _ in names]
    if not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= set(tags) or (_MASK not in tags and len(tags) > 3):
        raise InvalidArchive(f"{what} has an access control list without an owner, a group, all others or a mask")
    size = len(_HEADER) + len(found) * _ENTRY.size
    if size > limits.TAR_XATTR_BYTES:
        raise LimitExceeded(
            f"{what} has an access control list of {size} bytes, more than {limits.named('TAR_XATTR_BYTES')}"
        )
    binary = _HEADER + b"".join(_ENTRY.pack(tag, found[tag, number], number) for tag, number in sorted(found))
    group = found.get((_MASK, _NO_ID), found[_GROUP_OBJ, _NO_ID])
    return binary, bool(names), found[_USER_OBJ, _NO_ID] << 6 | group << 3 | found[_OTHER, _NO_ID]


def _check(binary: bytes, what: str) -> None:
    """Refuse what is not an attribute with a list in it; one without entries is as none."""
    entries = binary[len(_HEADER) :]
    if not binary.startswith(_HEADER) or len(entries) % _ENTRY.size:
        raise InvalidArchive(f"{what} has an access control list that is not of version 2")
    tags = [tag for tag, permissions, _ in _ENTRY.iter_unpack(entries) if permissions < 8]
    is_complete = {_USER_OBJ, _GROUP_OBJ, _OTHER} <= set(tags) <= _KNOWN and (_MASK in tags or len(tags) == 3)
    if entries and (len(tags) != len(entries) // _ENTRY.size or tags != sorted(tags) or not is_complete):
        raise InvalidArchive(f"{what} has an access control list that says things twice, in disorder or not at all")


def _entry(said: bytes, what: str) -> tuple[int, int | bytes, int]:
    """Return an entry's tag, its number, or its name where it has no number, and its permissions."""
    fields = [field.strip() for field in said.split(b":")]
    if fields[0] in (b"default", b"d"):
        del fields[0]
    own, named = _TAGS.get(fields[0] if fields else b"", (0, 0))
    if own in (_MASK, _OTHER) and len(fields) == 2:
        fields.insert(1, b"")
    if not own or not 3 <= len(fields) <= 4 or (fields[1] and not named):
        raise InvalidArchive(f"{what} has an access control list with {display(said)[:80]!r} in it")
    _, name, letters, *number = fields
    if not 0 < len(letters) <= 3 or any(letter not in _PERMISSIONS for letter in letters):
        raise InvalidArchive(f"{what} has an access control list with {display(said)[:80]!r} in it")
    permissions = 0
    for letter in letters:
        permissions |= _PERMISSIONS[letter]
    if not name:
        return own, _NO_ID, permissions
    stated = number[0] if number else name
    if number and not stated.isdigit():
        raise InvalidArchive(f"{what} has an access control list with {display(said)[:80]!r} in it")
    if not stated.isdigit():
        return named, 0 if name == b"root" else name, permissions
    if len(stated) > 10 or int(stated) >= _NO_ID:
        raise InvalidArchive(f"{what} has an access control list for the number {stated[:40].decode()}")
    return named, int(stated), permissions


def map_ids(value: bytes, uid: Callable[[int], int | None], gid: Callable[[int], int | None]) -> bytes:
    """Return a list's attribute with other numbers for its users and groups, without those that become None.

    One that is malformed stays as it is, for the kernel to refuse.
    """
    if not value.startswith(_HEADER) or (len(value) - len(_HEADER)) % _ENTRY.size:
        return value
    entries = []
    for tag, permissions, number in _ENTRY.iter_unpack(value[len(_HEADER) :]):
        mapped: int | None = number
        if tag in (_USER, _GROUP):
            mapped = uid(number) if tag == _USER else gid(number)
        if mapped is not None:
            entries.append((tag, mapped, permissions))
    return _HEADER + b"".join(_ENTRY.pack(tag, permissions, number) for tag, number, permissions in sorted(entries))


def without_users(value: bytes) -> bytes:
    """Return a list's attribute with nobody in it but the owner, the group, the mask and all others."""
    return map_ids(value, lambda _: None, lambda _: None)
