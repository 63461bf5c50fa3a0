"""Several layers as the one root filesystem they make together, without writing it anywhere.

`merge` reads headers only and gives a `Tree`: what is at each path, and which layer it comes
from. `flatten` then streams that tree as the entries of a single layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from imagetool.layer.entry import Entry, Item, parents
from imagetool.layer.tarreader import read
from imagetool.layer.tree import Tree

Opener = Callable[[], AbstractContextManager[Iterator[bytes]]]
"""Opens one layer as an uncompressed tar; called once for each pass."""


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
        inode = tree.get(name)
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
    given: set[bytes] = set()  # directories
    if (root := tree.get(b".")) is not None:
        yield root.entry, ()
    left = tree.layers()
    for number, (opener, where) in enumerate(layers):
        if number not in left:
            continue
        with opener() as chunks:
            for names, item in tree.surviving(read(chunks, where=where), number):
                yield from _emit(tree, names, item, given)
    for folder in tree.implied():  # directories that only whiteouts say there are
        yield from _folders(tree, folder + b"/", given)


def _emit(tree: Tree, names: tuple[bytes, ...], item: Item, given: set[bytes]) -> Iterator[Item]:
    entry, content = item
    first = names[0]
    for name in names:
        above = name.rpartition(b"/")[0]
        if above and above not in given:
            yield from _folders(tree, name, given)
        if entry.kind == "dir":
            if name == b"." or name in given:
                continue
            given.add(name)
        if name == first:
            yield (entry if name == entry.name else entry._replace(name=name)), content
        else:
            yield entry._replace(name=name, kind="link", linkname=first, size=0, xattrs={}), ()


def _folders(tree: Tree, name: bytes, given: set[bytes]) -> Iterator[Item]:
    """Yield the directories above a path that were not given yet."""
    for above in parents(name):
        if above not in given:
            given.add(above)
            _, folder = tree.lookup(above, follow=False)
            yield folder or Entry(above, "dir", 0o755), ()
