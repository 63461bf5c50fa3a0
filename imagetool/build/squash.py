"""Several layers as one: what they change of the layers below them."""

from __future__ import annotations

from collections.abc import Iterator

from imagetool.build.files import LayerFiles, Taken
from imagetool.layer.entry import Entry, Item
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
    taken: list[Taken] = []
    first: dict[tuple[int, int], bytes] = {}
    for name, inode in tree.walk():
        old = below.get(name)
        identity = inode.layer, inode.position
        if old is not None and (old.layer, old.position) == identity:
            continue
        entry = inode.entry
        if entry.kind == "file" and first.setdefault(identity, name) != name:
            entry = entry._replace(kind="link", linkname=first[identity], size=0)
        taken.append(Taken(name, entry))
    yield from _removed(tree, below, time)
    yield from _implied(tree, below)
    yield from files.stream(taken)


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
