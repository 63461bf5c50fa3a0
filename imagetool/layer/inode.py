"""What a tree holds at its paths: a string of 24 bytes, and whatever that cannot say, an object of its own."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, final

from imagetool.layer.entry import Entry, Kind

#: The number of what neighbours have in common, the position in the layer, size, time.
PLAIN: Final = struct.Struct("<IIqq")


class Odd(NamedTuple):
    """What needs more than 24 bytes; its entry has no name. `stamp` is as in `Common`."""

    entry: Entry
    stamp: int
    position: int


class Common(NamedTuple):
    """What many entries of a layer have in common. `stamp` counts the layers that were applied."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    stamp: int


Node = bytes | Odd


@final
class Folder:
    """A directory. `node` is None where no layer describes it, `stamp` of the last layer that put something there."""

    __slots__ = ("children", "node", "stamp")

    def __init__(self) -> None:
        self.children: dict[bytes, Child] = {}
        self.node: Node | None = None
        self.stamp = -1


@final
class Linked:
    """What has, or once had, several names."""

    __slots__ = ("_sorted", "names", "node")

    def __init__(self, node: Node, names: set[bytes]) -> None:
        self.node = node
        self.names = names
        self._sorted: tuple[bytes, ...] | None = None

    def add(self, name: bytes) -> None:
        """Give it one more name."""
        self.names.add(name)
        self._sorted = None

    def discard(self, name: bytes) -> None:
        """Take a name from it."""
        self.names.discard(name)
        self._sorted = None

    def ordered(self) -> tuple[bytes, ...]:
        """Return its names, sorted."""
        if self._sorted is None:
            self._sorted = tuple(sorted(self.names))
        return self._sorted


class Inode(NamedTuple):
    """What one or more paths of the tree hold.

    entry: under the path that was asked for. layer, position: which entry it came as; no two have the
    same. linked: its names, where it has or had several.
    """

    entry: Entry
    layer: int
    position: int
    linked: Linked | None

    @property
    def names(self) -> tuple[bytes, ...]:
        """All of its paths, sorted; the very same object as long as they do not change, where there are several."""
        return (self.entry.name,) if self.linked is None else self.linked.ordered()


Child = bytes | Odd | Linked | Folder
