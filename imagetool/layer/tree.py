"""The root filesystem that layers make together, in some 150 bytes an entry: images have millions.

A directory is a dictionary of the names in it, so that of a path only its last part is held. What is there is
a string of 24 bytes, and whatever that cannot say, a tuple of its own. `Inode` is made of it when it is asked for.
All that knows how a tree is packed is in this one class.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.layer import whiteout
from imagetool.layer.entry import Entry, Item, Kind, display
from imagetool.layer.inode import PLAIN, Child, Common, Folder, Inode, Linked, Node, Odd

_LINKS: Final = 40  # symlinks in one resolution, as in the kernel
#: What a path takes at most beside its name, while its directory grows; a directory besides; an object of its own.
_PATH: Final = 192
_FOLDER: Final = 256
_OBJECT: Final = 512


class Tree:
    """The merged root: what is at every path; the root itself is b"." and may have no entry."""

    __slots__ = ("_common", "_held", "_layers", "_linked", "_links", "_moved", "_numbers", "_root")

    def __init__(self) -> None:
        self._root = Folder()
        self._held = 0  # bytes of memory, as much as was ever taken
        self._common: list[Common] = []
        self._numbers: dict[tuple[Kind, int, int, int, int], int] = {}
        self._layers: list[int] = []  # the number of the layer that came with each stamp
        self._linked: list[Linked] = []
        self._links: set[bytes] = set()  # names that the layer being applied has made as hard links
        #: By stamp and position, where entries landed whose layer's symlinks led them elsewhere.
        self._moved: dict[tuple[int, int], bytes] = {}

    def copy(self) -> Tree:
        """Return a tree of its own that holds the same."""
        tree = Tree()
        tree._common, tree._numbers, tree._layers = self._common[:], dict(self._numbers), self._layers[:]
        tree._moved, tree._held = dict(self._moved), self._held
        links = {id(old): Linked(old.node, set(old.names)) for old in self._linked}
        tree._linked = list(links.values())
        pending = [(self._root, tree._root)]
        while pending:
            old, new = pending.pop()
            new.node, new.stamp = old.node, old.stamp
            new.children = children = old.children.copy()
            for base, child in old.children.items():
                if type(child) is Folder:
                    children[base] = below = Folder()
                    pending.append((child, below))
                elif type(child) is Linked:
                    children[base] = links[id(child)]
        return tree

    def apply(self, entries: Iterable[Entry], layer: int, *, where: str) -> None:
        """Put one more layer on top; raises LimitExceeded for more than `limits.TREE_BYTES` in memory."""
        stamp = len(self._layers)
        self._layers.append(layer)
        self._links = set()
        near: bytes | None = None
        folder, path = self._root, b""
        for position, entry in enumerate(entries):
            name = entry[0]
            if name.find(whiteout.PREFIX) >= 0 and (hidden := whiteout.hidden(name, where=where)) is not None:
                self._hide(hidden, stamp)
                near = None  # it may be gone
                continue
            above, _, base = name.rpartition(b"/")
            if above != near:
                folder, path = self._enter(above, name, stamp, where)
                near = above if path == above else None  # what is put there may be the symlink that led there
            if path != above:
                name = path + b"/" + base if path else base
                self._moved[stamp, position] = name
                self._held += _OBJECT + len(name)
            if entry[1] == "link":
                self._link(folder, base, name, entry, where)
            elif name == b".":
                if entry[1] != "dir":
                    raise InvalidArchive(f"{where}: the root is a {entry.kind}, not a directory")
                self._root.node = self._node(entry, stamp, position)
            else:
                self._put(folder, base, name, self._node(entry, stamp, position), stamp, is_folder=entry[1] == "dir")
            if self._held > limits.TREE_BYTES:
                raise LimitExceeded(
                    f"{where}: at entry {display(name)}: the merged layers need more than {limits.named('TREE_BYTES')}"
                )

    def _node(self, entry: Entry, stamp: int, position: int) -> Node:
        _, kind, mode, uid, gid, size, mtime, linkname, _, _, xattrs = entry
        if not xattrs and not linkname and kind in ("file", "dir", "fifo"):
            common = (kind, mode, uid, gid, stamp)
            number = self._numbers.get(common)
            if number is None:
                number = self._numbers[common] = len(self._common)
                self._common.append(Common(*common))
                self._held += _OBJECT
            try:
                return PLAIN.pack(number, position, size, mtime)
            except struct.error:  # a time far away, or 2^32 entries
                pass
        self._held += _OBJECT + len(linkname) + sum(len(key) + len(value) + _PATH for key, value in xattrs.items())
        return Odd(Entry(b"", *entry[1:]), stamp, position)

    def _put(self, folder: Folder, base: bytes, name: bytes, node: Node, stamp: int, *, is_folder: bool) -> None:
        children = folder.children
        old = children.get(base)
        if old is None:
            self._held += _PATH + len(base)
        if not is_folder:
            if old is not None:
                self._drop(old, name)
            children[base] = node
            return
        if type(old) is not Folder:
            if old is not None:
                self._drop(old, name)
            children[base] = old = Folder()
            self._held += _FOLDER
        old.node, old.stamp = node, stamp

    def _link(self, folder: Folder, base: bytes, name: bytes, entry: Entry, where: str) -> None:
        """Give a file one more name."""
        above, _, last = entry.linkname.rpartition(b"/")
        folders, parts = self._resolve(above, entry.linkname, where)
        at = folders[-1]
        target = at.children.get(last) if at is not None else None
        path = b"/".join((*parts, last))
        if target is None or type(target) is Folder:
            raise InvalidArchive(
                f"{where}: {display(name)} is a hard link to {display(path)}, which is no file there is"
            )
        if name == b".":
            raise InvalidArchive(f"{where}: the root is a link, not a directory")
        self._links.add(name)
        old = folder.children.get(base)
        if old is target:
            return
        if type(target) is Linked:
            linked = target
        else:
            assert at is not None
            at.children[last] = linked = Linked(target, {path})
            self._linked.append(linked)
        self._held += _OBJECT + len(name)
        if old is not None:
            self._drop(old, name)
        folder.children[base] = linked
        linked.add(name)

    def _enter(self, above: bytes, name: bytes, stamp: int, where: str) -> tuple[Folder, bytes]:
        """Return the directory an entry lands in, which is made where it is missing, and its path."""
        folders, parts = self._resolve(above, name, where)
        folder = self._root
        for number, part in enumerate(parts):
            below = folders[number + 1]
            if below is None:
                folder.children[part] = below = Folder()
                self._held += _PATH + _FOLDER + len(part)
            folder = below
            folder.stamp = stamp
        return folder, b"/".join(parts)

    def _resolve(self, above: bytes, name: bytes, where: str) -> tuple[list[Folder | None], list[bytes]]:
        """Return the directories on the way to where `above` means, from the root on, and their names.

        Symlinks on the way that the layer being applied made are followed, as they are when it is
        unpacked; what older layers have where a directory is meant gives way to one.
        """
        waiting = above.split(b"/")[::-1]
        folders: list[Folder | None] = [self._root]
        parts: list[bytes] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part in (b"", b".", b".."):
                if part == b".." and parts:
                    del folders[-1], parts[-1]
                continue
            folder = folders[-1]
            child = folder.children.get(part) if folder is not None else None
            if child is not None and type(child) is not Folder:
                path = b"/".join((*parts, part))
                if not self._is_made(child, path, len(self._layers) - 1):
                    assert folder is not None
                    self._drop(folder.children.pop(part), path)
                    child = None
                else:
                    entry = self._inode(path, child).entry
                    if entry.kind != "symlink" or (links := links + 1) > _LINKS:
                        raise InvalidArchive(f"{where}: {display(name)} is below {display(path)}, a {entry.kind}")
                    if entry.linkname.startswith(b"/"):
                        folders, parts = [self._root], []
                    waiting += entry.linkname.split(b"/")[::-1]
                    continue
            folders.append(child if type(child) is Folder else None)
            parts.append(part)
        return folders, parts

    def is_made(self, path: bytes) -> bool:
        """Say whether the layer that was applied last, or is being applied, made what is at a path, or below it."""
        child = self._at(path)
        return child is not None and self._is_made(child, path, len(self._layers) - 1)

    def _is_made(self, child: Child, path: bytes, stamp: int) -> bool:
        if type(child) is Folder:
            return child.stamp == stamp
        return path in self._links or self._origin(child)[0] == stamp

    def _origin(self, child: Child) -> tuple[int, int]:
        """Return stamp and position of what is there; (-1, -1) for a directory without an entry."""
        node = child.node if type(child) is Folder or type(child) is Linked else child
        if node is None:
            return -1, -1
        if type(node) is bytes:
            number, position, _, _ = PLAIN.unpack(node)
            return self._common[number].stamp, position
        assert type(node) is Odd
        return node.stamp, node.position

    def _hide(self, hidden: bytes, stamp: int) -> None:
        """Remove what a whiteout hides, but for what its own layer made."""
        if hidden.endswith(b"/") or not hidden:
            self._empty(hidden.rstrip(b"/"), stamp)
        elif (child := self._at(hidden)) is not None:
            if self._is_made(child, hidden, stamp):
                self._empty(hidden, stamp)
            else:
                above, _, base = hidden.rpartition(b"/")
                folder = self._at(above)
                assert type(folder) is Folder
                self._drop(folder.children.pop(base), hidden)

    def _empty(self, path: bytes, stamp: int) -> None:
        pending = [(path, self._at(path))]
        while pending:
            path, folder = pending.pop()
            if type(folder) is not Folder:
                continue
            prefix = path + b"/" if path else b""
            for base, child in list(folder.children.items()):
                if self._is_made(child, prefix + base, stamp):
                    pending.append((prefix + base, child))
                else:
                    del folder.children[base]
                    self._drop(child, prefix + base)

    def _drop(self, child: Child, path: bytes) -> None:
        """Take the names of what was at a path, and below it, from what has others."""
        pending = [(path, child)] if self._linked else []
        while pending:
            path, child = pending.pop()
            if type(child) is Linked:
                child.discard(path)
            elif type(child) is Folder:
                pending += [(path + b"/" + base, below) for base, below in child.children.items()]

    def _at(self, path: bytes) -> Child | None:
        """Return what is at a path, taken by the letter; b"" is the root, too."""
        child: Child | None = self._root
        for part in path.split(b"/") if path and path != b"." else ():
            if type(child) is not Folder:
                return None
            child = child.children.get(part)
        return child

    def _inode(self, path: bytes, child: Child) -> Inode:
        """Return what is there; not for a directory without an entry."""
        linked = child if type(child) is Linked else None
        node = child.node if type(child) is Folder or type(child) is Linked else child
        if type(node) is bytes:
            number, position, size, mtime = PLAIN.unpack(node)
            kind, mode, uid, gid, stamp = self._common[number]
            return Inode(Entry(path, kind, mode, uid, gid, size, mtime), self._layers[stamp], position, linked)
        assert type(node) is Odd
        return Inode(Entry(path, *node.entry[1:]), self._layers[node.stamp], node.position, linked)

    def get(self, path: bytes) -> Inode | None:
        """Return what a layer describes at a path, which is taken by the letter."""
        child = self._at(path)
        if child is None or (type(child) is Folder and child.node is None):
            return None
        return self._inode(path, child)

    def origin(self, path: bytes) -> tuple[int, int] | None:
        """Return layer and position of what `get` would; no two files, or directories, have the same."""
        child = self._at(path)
        stamp, position = (-1, -1) if child is None else self._origin(child)
        return None if stamp < 0 else (self._layers[stamp], position)

    def has(self, path: bytes) -> bool:
        """Say whether there is anything at a path, if only a directory that no layer describes."""
        return self._at(path) is not None

    def is_folder(self, path: bytes) -> bool:
        """Say whether there is a directory at a path; b"" is the root."""
        return type(self._at(path)) is Folder

    def children(self, folder: bytes) -> list[bytes]:
        """Return the names in a directory, sorted."""
        found = self._at(folder)
        return sorted(found.children) if type(found) is Folder else []

    def paths(self) -> Iterator[bytes]:
        """Yield every path but the root's, a directory before what is in it, each directory sorted."""
        return (path for path, _ in self._walk())

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """Yield what layers describe, with its path, in the order of `paths`; the root first."""
        if self._root.node is not None:
            yield b".", self._inode(b".", self._root)
        for path, child in self._walk():
            if type(child) is not Folder or child.node is not None:
                yield path, self._inode(path, child)

    def implied(self) -> Iterator[bytes]:
        """Yield the directories that no layer describes, but for the root."""
        return (path for path, child in self._walk() if type(child) is Folder and child.node is None)

    def _walk(self) -> Iterator[tuple[bytes, Child]]:
        pending = [(b"", self._root, iter(sorted(self._root.children)))]
        while pending:
            prefix, folder, bases = pending[-1]
            for base in bases:
                child = folder.children[base]
                yield prefix + base, child
                if type(child) is Folder:
                    pending.append((prefix + base + b"/", child, iter(sorted(child.children))))
                    break
            else:
                pending.pop()

    def lookup(self, path: bytes, *, follow: bool = True) -> tuple[bytes, Entry | None]:
        """Resolve a path as a process chrooted to this root would.

        Returns the name it comes down to, and the entry there or None; a directory that only
        exists as the parent of other entries is given as one with mode 0755.
        """
        waiting = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
        at: list[tuple[bytes, Child | None]] = [(b"", self._root)]
        links = 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                del at[max(1, len(at) - 1) :]
                continue
            folder = at[-1][1]
            child = folder.children.get(part) if type(folder) is Folder else None
            if (waiting or follow) and (target := self._target(child)):
                links += 1
                if links > _LINKS:
                    raise InvalidArchive(f"{display(path)}: too many symlinks")
                if target.startswith(b"/"):
                    del at[1:]
                waiting += [piece for piece in reversed(target.split(b"/")) if piece not in (b"", b".")]
                continue
            at.append((part, child))
        name = b"/".join([part for part, _ in at[1:]]) or b"."
        child = at[-1][1]
        if child is None:
            return name, None
        if type(child) is Folder and child.node is None:
            return name, Entry(name, "dir", 0o755)
        return name, self._inode(name, child).entry

    @staticmethod
    def _target(child: Child | None) -> bytes:
        node = child.node if type(child) is Linked else child
        return node.entry.linkname if type(node) is Odd else b""

    def layers(self) -> set[int]:
        """Return the layers of which something is left."""
        stamps = {self._origin(child)[0] for _, child in self._walk()} | {self._origin(self._root)[0]}
        return {self._layers[stamp] for stamp in stamps if stamp >= 0}

    def surviving(self, items: Iterable[Item], layer: int) -> Iterator[tuple[tuple[bytes, ...], Item]]:
        """Yield what of a layer's items, given from the first on, is left, each with all of its names, sorted."""
        elsewhere = self._elsewhere(layer)
        stamps = frozenset(stamp for stamp, number in enumerate(self._layers) if number == layer)
        near: bytes | None = None
        children: dict[bytes, Child] = {}
        for position, item in enumerate(items):
            if elsewhere and (names := elsewhere.get(position)):
                yield names, item
                continue
            name = item[0][0]
            above, _, base = name.rpartition(b"/")
            if above != near:
                folder = self._at(above)
                children = folder.children if type(folder) is Folder else {}
                near = above
            child = self._root if name == b"." else children.get(base)
            if child is not None and type(child) is not Linked:
                stamp, at = self._origin(child)
                if at == position and stamp in stamps:
                    yield (name,), item

    def _elsewhere(self, layer: int) -> dict[int, tuple[bytes, ...]]:
        """Return, by position, the names of what has several or is not where its entry says."""
        found: dict[int, tuple[bytes, ...]] = {}
        for (stamp, position), path in self._moved.items():
            if self._layers[stamp] == layer:
                child = self._at(path)
                if child is not None and type(child) is not Linked and self._origin(child) == (stamp, position):
                    found[position] = (path,)
        for linked in self._linked:
            stamp, position = self._origin(linked)
            if self._layers[stamp] == layer and linked.names:
                found[position] = linked.ordered()
        return found
