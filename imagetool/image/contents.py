"""What is in an image's layers, and how two images differ, without unpacking them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from imagetool.image.image import Image, Layer, opener
from imagetool.layer import whiteout
from imagetool.layer.entry import Entry, Item
from imagetool.layer.inode import Inode
from imagetool.layer.tarreader import read
from imagetool.layer.tree import Tree
from imagetool.values import dataclass, field

Aspect = Literal["type", "mode", "owner", "mtime", "size", "content", "target", "device", "xattrs", "links"]
_ASPECTS: Final[tuple[tuple[Aspect, tuple[str, ...]], ...]] = (
    ("type", ("kind",)),
    ("mode", ("mode",)),
    ("owner", ("uid", "gid")),
    ("mtime", ("mtime",)),
    ("size", ("size",)),
    ("target", ("linkname",)),
    ("device", ("devmajor", "devminor")),
    ("xattrs", ("xattrs",)),
)

_NOTHING: Final = bytes(32)  # the digest of what holds nothing


@dataclass(frozen=True, slots=True)
class Change:
    """A path that both sides have; `aspects` says in what it differs."""

    path: bytes
    aspects: tuple[Aspect, ...]


@dataclass(slots=True)
class Difference:
    """What has to be done to one root filesystem to make it the other; paths sorted."""

    added: list[bytes] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """What one layer does to those below it."""

    layer: Layer
    difference: Difference


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """How two images differ.

    common: the layers at the bottom that both have. left, right: what each further layer of
    the first and of the second image does. total: from the first image's root to the second's.
    """

    common: tuple[Layer, ...]
    left: tuple[LayerDifference, ...]
    right: tuple[LayerDifference, ...]
    total: Difference


def diff_images(left: Image, right: Image) -> ImageDifference:
    """Compare two images path by path, in one pass over the layers of both; what they share is read once.

    Content is compared by digest; a file is the same when type, mode, owner, time, content,
    attributes and the names it has are. Raises what reading the layers raises.
    """
    shared = 0
    for one, other in zip(left.layers, right.layers, strict=False):
        if one.diff_id != other.diff_id:
            break
        shared += 1
    base = _Side(Tree(), {})
    base.apply(left, range(shared))
    sides = []
    for image in (left, right):
        side = _Side(base.tree.copy(), dict(base.digests))
        sides.append((side, tuple(side.apply(image, range(shared, len(image.layers))))))
    (first, left_steps), (second, right_steps) = sides
    return ImageDifference(left.layers[:shared], left_steps, right_steps, _compare(first, second))


class _Side:
    """One image so far: its merged tree, and by layer the digests of what its entries hold, one after another."""

    def __init__(self, tree: Tree, digests: dict[int, bytearray]) -> None:
        self.tree = tree
        self.digests = digests

    def apply(self, image: Image, numbers: Iterable[int]) -> list[LayerDifference]:
        """Put layers on top, and return what each of them does."""
        steps = []
        for number in numbers:
            layer = image.layers[number]
            where = f"layer {layer.descriptor.digest}"
            difference = Difference()
            with opener(image.content, layer)() as chunks:
                noted = self._noted(read(chunks, where=where), number, difference, where)
                self.tree.apply(noted, number, where=where)
            steps.append(LayerDifference(layer, _sorted(difference)))
        return steps

    def _noted(self, items: Iterator[Item], number: int, difference: Difference, where: str) -> Iterator[Entry]:
        digests = self.digests[number] = bytearray()
        for entry, content in items:
            digest = _digest(content) if entry.kind == "file" and entry.size else _NOTHING
            digests += digest
            self._note(entry, digest, difference, where)
            yield entry

    def _note(self, entry: Entry, digest: bytes, difference: Difference, where: str) -> None:
        name = entry.name
        hidden = whiteout.hidden(name, where=where)
        if hidden is not None:
            difference.removed += [path for path in self._hides(hidden) if not self.tree.is_made(path)]
            return
        before = self.tree.get(name)
        if before is None:
            difference.added.append(name)
            return
        if entry.kind == "link":
            target = self.tree.get(entry.linkname)
            if target is None or (target.layer, target.position) == (before.layer, before.position):
                return
            entry, digest = target.entry, self.digest(target)
        aspects = _aspects(before.entry, entry, same_content=self.digest(before) == digest)
        if aspects:
            difference.changed.append(Change(name, aspects))

    def _hides(self, hidden: bytes) -> list[bytes]:
        if hidden.endswith(b"/") or not hidden:
            folder = hidden.rstrip(b"/") or b"."
            return [child if folder == b"." else folder + b"/" + child for child in self.tree.children(folder)]
        return [hidden] if self.tree.lookup(hidden, follow=False)[1] is not None else []

    def digest(self, inode: Inode) -> bytes:
        """Return the digest of a file's content; zeros for an empty file, and for anything else."""
        at = len(_NOTHING) * inode.position
        return bytes(self.digests[inode.layer][at : at + len(_NOTHING)])


def _digest(content: Iterable[bytes]) -> bytes:
    hasher = hashlib.sha256()
    for chunk in content:
        hasher.update(chunk)
    return hasher.digest()


def _aspects(before: Entry, after: Entry, *, same_content: bool) -> tuple[Aspect, ...]:
    found: list[Aspect] = [
        aspect for aspect, fields in _ASPECTS if any(getattr(before, name) != getattr(after, name) for name in fields)
    ]
    if before.kind == after.kind == "file" and not same_content:
        found.append("content")
    return tuple(found)


def _compare(first: _Side, second: _Side) -> Difference:
    difference = Difference()
    gone: set[bytes] = set()
    same_names: dict[tuple[int, int], bool] = {}
    for name, before in first.tree.walk():
        after = second.tree.get(name)
        if after is None:
            gone.add(name)  # of a directory that is gone as a whole only itself
            if name.rpartition(b"/")[0] not in gone:
                difference.removed.append(name)
            continue
        aspects = _aspects(before.entry, after.entry, same_content=first.digest(before) == second.digest(after))
        if _has_other_names(before, after, same_names) and before.entry.kind == after.entry.kind != "dir":
            aspects = (*aspects, "links")
        if aspects:
            difference.changed.append(Change(name, aspects))
    difference.added += (name for name, _ in second.tree.walk() if first.tree.get(name) is None)
    return _sorted(difference)


def _has_other_names(before: Inode, after: Inode, known: dict[tuple[int, int], bool]) -> bool:
    """Compare the names of two files once, however many there are."""
    if before.linked is None and after.linked is None:
        return False
    one, other = before.names, after.names
    if before.linked is None or after.linked is None:
        return one != other
    pair = id(one), id(other)
    if pair not in known:
        known[pair] = one == other
    return not known[pair]


def _sorted(difference: Difference) -> Difference:
    difference.added.sort()
    difference.changed.sort(key=lambda change: change.path)
    difference.removed.sort()
    return difference


def entries(image: Image, *, layer: int | None = None) -> Iterator[Entry]:
    """Yield what is in an image, sorted by path; or what one layer holds, in its own order, whiteouts and all.

    Args:
        layer: which one, 0 for the base; None for the root filesystem they make together.

    Names of one file come as a file and hard links to it.
    """
    if layer is not None:
        chosen = image.layers[layer]
        with opener(image.content, chosen)() as chunks:
            for entry, _ in read(chunks, where=f"layer {chosen.descriptor.digest}"):
                yield entry
        return
    tree = Tree()
    for number, each in enumerate(image.layers):
        where = f"layer {each.descriptor.digest}"
        with opener(image.content, each)() as chunks:
            tree.apply((entry for entry, _ in read(chunks, where=where)), number, where=where)
    for name, inode in tree.walk():
        first = inode.names[0]
        yield inode.entry if name == first else inode.entry._replace(kind="link", linkname=first, size=0)
