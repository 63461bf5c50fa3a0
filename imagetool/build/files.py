"""Where COPY takes files from: a directory on disk, or the merged layers of another image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from imagetool import limits
from imagetool.build.chmod import Chmod
from imagetool.content.store import Fetcher
from imagetool.dockerfile.ignore import IgnoreRules
from imagetool.errors import LimitExceeded
from imagetool.image.image import Layer, opener
from imagetool.layer.entry import Entry, Item, Kind, display
from imagetool.layer.merge import Opener, merge
from imagetool.layer.tarreader import read
from imagetool.layer.tree import Tree
from imagetool.oci.digest import Digest
from imagetool.values import dataclass

_KEPT_TREES: Final = 4


class Taken(NamedTuple):
    """One path that is copied: the name it has at the source, and the entry it becomes.

    `entry` has the source's attributes and the destination's name.
    """

    source: bytes
    entry: Entry


class TakenFiles(NamedTuple):
    """Regular files of one directory that are copied, in order; what they are like is looked up when they are read.

    Most of a context is such files, and this way a file takes little more memory than its name.

    folder: their directory at the source. target: the directory in the layer.
    tree: files with several names become hard links within what has the same number.
    owner, chmod: what they get instead of what they have.
    """

    folder: bytes
    target: bytes
    bases: list[bytes]
    tree: int = 0
    owner: tuple[int, int] | None = None
    chmod: Chmod | None = None

    def names(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each file's name at the source and in the layer."""
        source = b"" if self.folder == b"." else self.folder + b"/"
        target = b"" if self.target == b"." else self.target + b"/"
        return ((source + base, target + base) for base in self.bases)


class Child(NamedTuple):
    """What is in a directory.

    entry: None for a regular file that `TakenFiles` can take.
    inode: equal for the names of one file, None for a file with one name and where there is no entry.
    excluded: a directory that is ignored itself but may hold files that are not.
    """

    base: bytes
    kind: Kind
    entry: Entry | None = None
    inode: object = None
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A directory that COPY may take files from by a name, and what of it is not there."""

    folder: Path
    ignore: IgnoreRules


class Files(Protocol):
    """A tree of files. Names are as in `Entry.name`; symlinks are resolved inside the tree."""

    def lookup(self, path: bytes, *, follow: bool = True) -> tuple[bytes, Entry | None]:
        """Resolve a path; return the name it comes down to and the entry there, or None."""
        ...

    def children(self, folder: bytes) -> list[Child]:
        """Return all that is in a directory and not ignored, sorted by name."""
        ...

    def stream(self, taken: Sequence[Taken | TakenFiles]) -> Iterator[Item]:
        """Yield the entries with their content: directories and links in place, an order of the source's choice."""
        ...


def dressed(entry: Entry, name: bytes, owner: tuple[int, int] | None, chmod: Chmod | None) -> Entry:
    """Give an entry its name in the layer and what --chown and --chmod say."""
    _, kind, mode, uid, gid, size, mtime, linkname, major, minor, xattrs = entry
    uid, gid = owner or (uid, gid)
    if chmod is not None and kind != "symlink":
        mode = chmod.apply(mode, is_folder=kind == "dir")
    # Not `_replace`, which costs several times as much: this is done for every file of an image.
    return Entry(name, kind, mode, uid, gid, size, mtime, linkname, major, minor, xattrs)


class LayerFiles:
    """The merged root filesystem of layers, read straight from their tars."""

    def __init__(self, layers: Sequence[tuple[Opener, str]], load: Callable[[], Tree] | None = None) -> None:
        self.layers = layers
        self._load = load or (lambda: merge(layers))
        self._tree: Tree | None = None

    @property
    def tree(self) -> Tree:
        """The merged tree; the layers' headers are read when it is first asked for."""
        if self._tree is None:
            self._tree = self._load()
        return self._tree

    def lookup(self, path: bytes, *, follow: bool = True) -> tuple[bytes, Entry | None]:
        """Resolve a path; see `Files`."""
        return self.tree.lookup(path, follow=follow)

    def children(self, folder: bytes) -> list[Child]:
        """List a directory; see `Files`."""
        found: list[Child] = []
        prefix = b"" if folder == b"." else folder + b"/"
        for base in self.tree.children(folder):
            name = prefix + base
            inode = self.tree.get(name)
            if inode is None:
                found.append(Child(base, "dir", Entry(name, "dir", 0o755)))
            elif inode.entry.kind == "file" and len(inode.names) == 1:
                found.append(Child(base, "file"))
            else:
                number = (inode.layer, inode.position) if len(inode.names) > 1 else None
                found.append(Child(base, inode.entry.kind, inode.entry, number))
        return found

    def stream(self, taken: Sequence[Taken | TakenFiles]) -> Iterator[Item]:
        """Yield what has no content first, in the order given, then files as the layers have them; see `Files`."""
        wanted: dict[int, dict[int, list[Entry]]] = {}
        links: list[Entry] = []
        for source, entry in self._entries(taken):
            inode = self.tree.get(source)
            if entry.kind == "file" and inode is not None:
                wanted.setdefault(inode.layer, {}).setdefault(inode.position, []).append(entry)
            elif entry.kind == "link":
                links.append(entry)
            else:
                yield entry, ()
        for number, (open_layer, where) in enumerate(self.layers):
            positions = wanted.get(number)
            if positions:
                with open_layer() as chunks:
                    yield from _pick(read(chunks, where=where), positions)
        for entry in links:
            yield entry, ()

    def _entries(self, taken: Sequence[Taken | TakenFiles]) -> Iterator[tuple[bytes, Entry]]:
        for item in taken:
            if isinstance(item, Taken):
                yield item
                continue
            for source, name in item.names():
                inode = self.tree.get(source)
                assert inode is not None
                yield source, dressed(inode.entry, name, item.owner, item.chmod)

    def read(self, path: bytes, limit: str) -> bytes | None:
        """Return the content of a small regular file, or None when there is none.

        Raises LimitExceeded when it is larger than a limit, named as a constant of `limits`.
        """
        name, entry = self.lookup(path)
        if entry is None or entry.kind != "file":
            return None
        if entry.size > getattr(limits, limit):
            raise LimitExceeded(f"{display(path)} of the image has {entry.size} bytes, more than {limits.named(limit)}")
        for _, content in self.stream([Taken(name, entry)]):
            return b"".join(content)
        return None


def _pick(items: Iterator[Item], positions: Mapping[int, list[Entry]]) -> Iterator[Item]:
    """Yield the entries at the wanted positions of one layer; one file wanted twice is held in memory once."""
    for position, (_, content) in enumerate(items):
        entries = positions.get(position)
        if not entries:
            continue
        if len(entries) == 1:
            yield entries[0], content
            continue
        data = list(content)
        for entry in entries:
            yield entry, data


class Trees:
    """The merged trees of stacks of layers, remembered: a step that continues a stack reads its new layers only.

    The last few are kept. For several threads, of which one reads at a time.
    """

    def __init__(self, store: Fetcher) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[tuple[Digest, ...], Tree] = {}

    def files(self, layers: Sequence[Layer]) -> LayerFiles:
        """Return the files of a stack; it is read when they are first asked for."""
        openers = [(opener(self._store, layer), f"layer {layer.descriptor.digest}") for layer in layers]
        stack = tuple(layer.diff_id for layer in layers)
        return LayerFiles(openers, lambda: self._tree(stack, openers))

    def _tree(self, stack: tuple[Digest, ...], openers: Sequence[tuple[Opener, str]]) -> Tree:
        with self._lock:
            return self._merged(stack, openers)

    def _merged(self, stack: tuple[Digest, ...], openers: Sequence[tuple[Opener, str]]) -> Tree:
        prefixes = [known for known in self._known if stack[: len(known)] == known]
        nearest = max(prefixes, key=len, default=())
        tree = self._known.pop(nearest, None)
        if tree is not None:
            self._known[nearest] = tree  # used last
        if tree is None or nearest != stack:
            tree = self._known[stack] = merge(openers, tree, count=len(nearest))
        for oldest in list(self._known)[:-_KEPT_TREES]:
            del self._known[oldest]
        return tree
