"""Several layers as the one root filesystem they make together, without writing it anywhere.

`merge` reads headers only and gives a `Tree`: what is at each path, and which layer it comes
from. `flatten` then streams that tree as the entries of a single layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from imagetool.errors import InvalidArchive
from imagetool.layer import whiteout
from imagetool.layer.entry import Entry, Item, display, parents
from imagetool.layer.tarreader import read
from imagetool.values import dataclass, field

Opener = Callable[[], AbstractContextManager[Iterator[bytes]]]
"""Opens one layer as an uncompressed tar; called once for each pass."""

_LINKS = 40  # symlinks in one resolution, as in the kernel


@dataclass(slots=True, eq=False)
class Inode:
    """What one or more paths of the tree hold. `layer` and `position` say which entry it came as."""

    entry: Entry
    layer: int
    position: int
    names: set[bytes] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Tree:
    """The merged root: every path to its inode; the root itself is b"." and may be missing."""

    inodes: dict[bytes, Inode] = field(default_factory=dict)
    children: dict[bytes, set[bytes]] = field(default_factory=dict)

    def copy(self) -> Tree:
        """Return a tree of its own that holds the same."""
        inodes = {
            id(inode): Inode(inode.entry, inode.layer, inode.position, set(inode.names))
            for inode in self.inodes.values()
        }
        children = {folder: set(names) for folder, names in self.children.items()}
        return Tree({name: inodes[id(inode)] for name, inode in self.inodes.items()}, children)

    def apply(self, entries: Iterable[Entry], layer: int, *, where: str) -> None:
        """Put one more layer on top."""
        made: set[bytes] = set()
        for position, entry in enumerate(entries):
            hidden = whiteout.hidden(entry.name, where=where)
            if hidden is None:
                name = self._place(entry.name, made, where)
                if entry.kind == "link":
                    entry = entry._replace(linkname=self._place(entry.linkname, made, where))
                self._put(entry._replace(name=name), layer, position, where)
                while name not in made:
                    made.add(name)
                    name = name.rpartition(b"/")[0] or name
            elif hidden.endswith(b"/") or not hidden:
                self._empty(hidden.rstrip(b"/") or b".", made)
            elif hidden in made:
                self._empty(hidden, made)
            else:
                self._remove(hidden)

    def _place(self, name: bytes, made: set[bytes], where: str) -> bytes:
        """Return the path an entry lands at.

        Symlinks on the way that its own layer made are followed, as they are when the layer is
        unpacked; what older layers have where a directory is meant gives way to one.
        """
        above, _, base = name.rpartition(b"/")
        inode = self.inodes.get(above)
        if not above or (inode is not None and inode.entry.kind == "dir"):
            return name
        waiting = above.split(b"/")[::-1]
        at: list[bytes] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part in (b"", b".", b".."):
                del at[len(at) - (part == b"..") :]
                continue
            path = b"/".join([*at, part])
            inode = self.inodes.get(path)
            if inode is None or inode.entry.kind == "dir":
                at.append(part)
            elif path not in made:
                self._remove(path)
                at.append(part)
            elif inode.entry.kind == "symlink" and (links := links + 1) <= _LINKS:
                at = [] if inode.entry.linkname.startswith(b"/") else at
                waiting += inode.entry.linkname.split(b"/")[::-1]
            else:
                raise InvalidArchive(f"{where}: {display(name)} is below {display(path)}, a {inode.entry.kind}")
        return b"/".join([*at, base])

    def _put(self, entry: Entry, layer: int, position: int, where: str) -> None:
        name = entry.name
        if entry.kind == "link":
            target = self.inodes.get(entry.linkname)
            if target is None or target.entry.kind == "dir":
                raise InvalidArchive(
                    f"{where}: {display(name)} is a hard link to {display(entry.linkname)}, which is no file there is"
                )
            if target is self.inodes.get(name):
                return
            inode = target
        else:
            inode = Inode(entry, layer, position)
        if name == b"." and inode.entry.kind != "dir":
            raise InvalidArchive(f"{where}: the root is a {entry.kind}, not a directory")
        old = self.inodes.get(name)
        if inode.entry.kind != "dir" or (old is not None and old.entry.kind != "dir"):
            self._remove(name)
        self.inodes[name] = inode
        inode.names.add(name)
        self._adopt(name)

    def _adopt(self, name: bytes) -> None:
        while name != b".":
            above, _, base = name.rpartition(b"/")
            folder = above or b"."
            siblings = self.children.setdefault(folder, set())
            if base in siblings:
                return
            siblings.add(base)
            name = folder

    def _empty(self, folder: bytes, made: set[bytes]) -> None:
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            for base in list(self.children.get(folder, ())):
                path = base if folder == b"." else folder + b"/" + base
                if path in made:
                    waiting.append(path)
                else:
                    self._remove(path)

    def _remove(self, name: bytes) -> None:
        pending = [name]
        above, _, base = name.rpartition(b"/")
        self.children.get(above or b".", set()).discard(base)
        while pending:
            path = pending.pop()
            inode = self.inodes.pop(path, None)
            if inode is not None:
                inode.names.discard(path)
            pending += [path + b"/" + child for child in self.children.pop(path, ())]

    def lookup(self, path: bytes, *, follow: bool = True) -> tuple[bytes, Entry | None]:
        """Resolve a path as a process chrooted to this root would.

        Returns the name it comes down to, and the entry there or None; a directory that only
        exists as the parent of other entries is given as one with mode 0755.
        """
        waiting = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
        at: list[bytes] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                del at[-1:]
                continue
            entry = self._entry(b"/".join([*at, part]))
            if entry is not None and entry.kind == "symlink" and (waiting or follow):
                links += 1
                if links > _LINKS:
                    raise InvalidArchive(f"{display(path)}: too many symlinks")
                if entry.linkname.startswith(b"/"):
                    at = []
                waiting += [piece for piece in reversed(entry.linkname.split(b"/")) if piece not in (b"", b".")]
                continue
            at.append(part)
        name = b"/".join(at) or b"."
        return name, self._entry(name)

    def _entry(self, name: bytes) -> Entry | None:
        inode = self.inodes.get(name)
        if inode is not None:
            return inode.entry
        return Entry(name, "dir", 0o755) if name == b"." or name in self.children else None


def merge(layers: Sequence[tuple[Opener, str]], below: Tree | None = None, *, count: int = 0) -> Tree:
    """Return the tree that layers make, base first; each comes with its name for errors.

    below: the tree that the first `count` of them make, which need not be read then; it stays as it is.
    """
    tree = Tree() if below is None else below.copy()
    for number, (opener, where) in list(enumerate(layers))[count:]:
        with opener() as chunks:
            tree.apply((entry for entry, _ in read(chunks, where=where)), number, where=where)
    return tree


def content_digests(layers: Sequence[tuple[Opener, str]], names: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the SHA-256 of what files of the merged root hold, by path; what is no file there is left out."""
    tree = merge(layers)
    wanted: dict[tuple[int, int], list[bytes]] = {}
    for name in names:
        inode = tree.inodes.get(name)
        if inode is not None and inode.entry.kind == "file":
            wanted.setdefault((inode.layer, inode.position), []).append(name)
    found: dict[bytes, bytes] = {}
    for number in sorted({layer for layer, _ in wanted}):
        opener, where = layers[number]
        with opener() as chunks:
            for position, (_, content) in enumerate(read(chunks, where=where)):
                paths = wanted.get((number, position))
                if paths is not None:
                    hasher = hashlib.sha256()
                    for chunk in content:
                        hasher.update(chunk)
                    found.update(dict.fromkeys(paths, hasher.digest()))
    return found


def flatten(layers: Sequence[tuple[Opener, str]], tree: Tree | None = None) -> Iterator[Item]:
    """Yield the merged root as entries of one layer: every directory before what is in it, no whiteouts.

    Content is streamed from the layers in a second pass, base first; of a file that has several
    names the first that survives carries the content and the others are hard links to it.
    """
    tree = merge(layers) if tree is None else tree
    given: set[bytes] = set()
    if (root := tree.inodes.get(b".")) is not None:
        yield root.entry, ()
    for number, (opener, where) in enumerate(layers):
        wanted = {inode.position: inode for inode in _surviving(tree, number)}
        if not wanted:
            continue
        with opener() as chunks:
            for position, (_, content) in enumerate(read(chunks, where=where)):
                inode = wanted.get(position)
                if inode is not None:
                    yield from _emit(tree, inode, content, given)
    for folder in sorted(tree.children.keys() - tree.inodes.keys() - given - {b"."}):
        for name in (*parents(folder), folder):  # directories that only whiteouts say there are
            if name not in given:
                given.add(name)
                yield Entry(name, "dir", 0o755), ()


def _surviving(tree: Tree, layer: int) -> Iterator[Inode]:
    for inode in tree.inodes.values():
        if inode.layer == layer:
            yield inode


def _emit(tree: Tree, inode: Inode, content: Iterable[bytes], given: set[bytes]) -> Iterator[Item]:
    first, *others = sorted(inode.names)
    for name in (first, *others):
        for above in parents(name):
            if above not in given:
                given.add(above)
                _, folder = tree.lookup(above, follow=False)
                yield (folder or Entry(above, "dir", 0o755))._replace(name=above), ()
        if name == b"." or name in given:
            continue
        given.add(name)
        if name == first:
            yield inode.entry._replace(name=name), content
        else:
            yield inode.entry._replace(name=name, kind="link", linkname=first, size=0, xattrs={}), ()
