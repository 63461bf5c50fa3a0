"""Ids of an image as other ids on the disk, for a container that will be in a user namespace with such a map.

What names users is mapped everywhere: owners, access control lists, and the root that file
capabilities are for, as the kernel does for a process inside of such a namespace.

Source: user_namespaces(7), "User and group ID mappings"; capabilities(7), "File capability versioning".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from imagetool.errors import UsageError
from imagetool.layer import acl, whiteout
from imagetool.layer.entry import Entry, Item, display
from imagetool.values import dataclass

_IDS: Final = 0xFFFFFFFF  # the highest is none: it means "no change" to chown(2)
_CAPABILITY: Final = b"security.capability"
_VERSION: Final = 0xFF000000
_VERSION_2, _VERSION_3 = 0x02000000, 0x03000000
_PLAIN_SIZE: Final = 20  # of version 2; version 3 has the id of a root behind it
_MAGIC: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class IdMap:
    """Which id of a container is which id outside; the rows are (inside, outside, how many).

    Raises UsageError for rows without ids, beyond 32 bits, or that say an id twice.
    """

    rows: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        for column in (0, 1):
            free = 0
            for row in sorted(self.rows, key=lambda row: row[column]):
                if not 0 < row[2] <= _IDS - row[column] or row[column] < free:
                    raise UsageError(f"{self}: a map of ids must have some, below {_IDS}, and say each once")
                free = row[column] + row[2]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> IdMap:
        """Read rows as "CONTAINER:HOST:SIZE", or "CONTAINER:HOST" for one id; none at all leave all ids what they are.

        Raises UsageError.
        """
        rows = []
        for text in texts:
            numbers = text.split(":")
            if not 2 <= len(numbers) <= 3 or not all(n.isascii() and n.isdigit() and len(n) < 11 for n in numbers):
                raise UsageError(f"{text[:80]!r} maps no ids: give CONTAINER:HOST:SIZE, for example 0:100000:65536")
            inside, outside, size, *_ = *map(int, numbers), 1
            rows.append((inside, outside, size))
        return cls(tuple(rows)) if rows else SAME_IDS

    def __str__(self) -> str:
        return ",".join(f"{inside}:{outside}:{size}" for inside, outside, size in self.rows)

    def outside(self, number: int) -> int | None:
        """Return what an id of the container is outside."""
        for inside, outside, size in self.rows:
            if inside <= number < inside + size:
                return outside + number - inside
        return None

    def inside(self, number: int) -> int | None:
        """Return what an id outside is in the container."""
        for inside, outside, size in self.rows:
            if outside <= number < outside + size:
                return inside + number - outside
        return None

    def within(self, namespace: IdMap) -> IdMap:
        """Return the map that has the ids outside as a process in another namespace says them, those that it can."""
        rows = []
        for inside, outside, size in self.rows:
            for named, true, count in namespace.rows:
                first, end = max(outside, true), min(outside + size, true + count)
                if first < end:
                    rows.append((inside + first - outside, named + first - true, end - first))
        return IdMap(tuple(rows))


SAME_IDS: Final = IdMap(((0, 0, _IDS),))


@dataclass(frozen=True, slots=True)
class OwnerMap:
    """A map of user ids and one of group ids."""

    users: IdMap
    groups: IdMap

    @classmethod
    def parse(cls, users: Sequence[str], groups: Sequence[str]) -> OwnerMap | None:
        """Return what options say, None when they say nothing. Raises UsageError, also where root is not mapped."""
        if not users and not groups:
            return None
        found = cls(IdMap.parse(users), IdMap.parse(groups))
        if found.users.outside(0) is None or found.groups.outside(0) is None:
            raise UsageError("the map of ids says nothing of root: add 0:HOST:SIZE")
        return found

    def within(self, namespace: OwnerMap) -> OwnerMap:
        """Return the map that has the ids outside as a process in another namespace says them.

        Raises UsageError where it cannot say them all.
        """
        return OwnerMap(
            _within(self.users, namespace.users, "users", "uid"),
            _within(self.groups, namespace.groups, "groups", "gid"),
        )

    @property
    def root(self) -> tuple[int, int]:
        """Who root of the container is outside. Raises UsageError."""
        return _found(self.users.outside, 0, "user", "/", _ADD), _found(self.groups.outside, 0, "group", "/", _ADD)

    def placed(self, items: Iterable[Item], where: str) -> Iterator[Item]:
        """Yield a layer's items with the ids that are set on the disk. Raises UsageError for those without one."""
        for entry, content in items:
            if entry.kind == "link" or whiteout.is_reserved(entry.name):
                yield entry, content
                continue
            what = f"{where}: {display(entry.name)}"
            yield _mapped(entry, self.users.outside, self.groups.outside, what, _ADD, self.root[0]), content

    def stated(self, entry: Entry) -> Entry:
        """Return an entry of what is on the disk with the ids that the image has. Raises UsageError."""
        return _mapped(entry, self.users.inside, self.groups.inside, display(entry.name), _CHOWN, 0)


def _within(ids: IdMap, namespace: IdMap, what: str, kind: str) -> IdMap:
    found = ids.within(namespace)
    if ids is not SAME_IDS and sum(row[2] for row in found.rows) < sum(row[2] for row in ids.rows):
        allowed = ",".join(f"{outside}-{outside + size - 1}" for _, outside, size in namespace.rows)
        raise UsageError(f"files can be given here to the {what} {allowed} only, and --{kind}-map has others: {ids}")
    return found


_ADD: Final = "is in no map of ids; add one, --uid-map or --gid-map CONTAINER:HOST:SIZE"
_CHOWN: Final = "is not in the map of ids that this was unpacked with; give it to one who is"
_Function = Callable[[int], int | None]


def _mapped(entry: Entry, users: _Function, groups: _Function, where: str, hint: str, root: int) -> Entry:
    def user(number: int) -> int:
        return _found(users, number, "user", where, hint)

    def group(number: int) -> int:
        return _found(groups, number, "group", where, hint)

    xattrs = dict(entry.xattrs)
    for attribute in acl.ATTRIBUTE_OF.values():
        if attribute in xattrs:
            xattrs[attribute] = acl.map_ids(xattrs[attribute], user, group)
    if _CAPABILITY in xattrs:
        xattrs[_CAPABILITY] = _capability(xattrs[_CAPABILITY], user, root)
    return entry._replace(uid=user(entry.uid), gid=group(entry.gid), xattrs=xattrs)


def _found(function: _Function, number: int, kind: str, where: str, hint: str) -> int:
    found = function(number)
    if found is None:
        raise UsageError(f"{where}: {kind} {number} {hint}")
    return found


def _capability(value: bytes, user: Callable[[int], int], root: int) -> bytes:
    """Return capabilities for another root; they are for `root` where they say nothing of one."""
    if len(value) < _PLAIN_SIZE:
        return value  # the kernel refuses it
    magic = _MAGIC.unpack_from(value)[0]
    if magic & _VERSION == _VERSION_3 and len(value) == _PLAIN_SIZE + _MAGIC.size:
        root = user(_MAGIC.unpack_from(value, _PLAIN_SIZE)[0])
    elif magic & _VERSION != _VERSION_2:
        return value
    version = _VERSION_3 if root else _VERSION_2
    plain = _MAGIC.pack(magic & ~_VERSION | version) + value[_MAGIC.size : _PLAIN_SIZE]
    return plain + _MAGIC.pack(root) if root else plain


def namespace_ids(rows: str) -> OwnerMap:
    """Return the maps of a user namespace as "uid_map / gid_map", each the numbers of its file. Raises UsageError."""
    maps = []
    for numbers in (part.split() for part in rows.split("/")):
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False)
        maps.append(IdMap.parse(f"{inside}:{outside}:{size}" for inside, outside, size in triples))
    if len(maps) != 2:
        raise UsageError(f"{rows[:80]!r} are not the ids of a user namespace")
    return OwnerMap(*maps)
