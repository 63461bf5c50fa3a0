"""Several layers as one: what they change of the layers below them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from imagetool.build.files import LayerFiles
from imagetool.layer.entry import Entry, Item
from imagetool.layer.tarreader import read
from imagetool.layer.tree import Tree
from imagetool.layer.whiteout import PREFIX


def squashed(files: LayerFiles, below: Tree, *, time: int) -> Iterator[Item]:
    """Yield the entries of one layer that makes `files` out of the tree `below`.

    Args:
        files: the files of all layers, whose first ones are those that `below` was made of.
        time: of whiteouts, nanoseconds.

    A file that gained a name is written anew under it: a layer cannot link to another's.
    """
    tree = files.tree
    yield from _removed(tree, below, time)
    yield from _implied(tree, below)
    layers: set[int] = set()
    for name, inode in tree.walk():
        if below.origin(name) != (inode.layer, inode.position):
            if inode.entry.kind == "file":
                layers.add(inode.layer)
            else:
                yield inode.entry, ()
    for number in sorted(layers):
        open_layer, where = files.layers[number]
        with open_layer() as chunks:
            for names, (entry, content) in tree.surviving(read(chunks, where=where), number):
                if entry.kind == "file":
                    new = [name for name in names if below.origin(name) != tree.origin(name)]
                    yield from _named(new, entry, content)


def _named(names: list[bytes], entry: Entry, content: Iterable[bytes]) -> Iterator[Item]:
    """Yield a file under its names: the content with the first, links to it with the others."""
    for name in names:
        if name == names[0]:
            yield entry._replace(name=name), content
        else:
            yield entry._replace(name=name, kind="link", linkname=names[0], size=0), ()


def _removed(tree: Tree, below: Tree, time: int) -> Iterator[Item]:
    for name in below.paths():
        folder, _, base = name.rpartition(b"/")
        if not tree.has(name) and tree.is_folder(folder):
            yield Entry(folder + b"/" + PREFIX + base if folder else PREFIX + base, "file", 0o644, mtime=time), ()


def _implied(tree: Tree, below: Tree) -> Iterator[Item]:
    """Yield the directories that no layer describes, where nothing else would make them, or make them as they are."""
    for name in tree.implied():
        if below.get(name) is not None or (not tree.children(name) and not below.is_folder(name)):
            yield Entry(name, "dir", 0o755), ()
