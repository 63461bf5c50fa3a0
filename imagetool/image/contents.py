"""What is in an image's layers, and how two images differ, without unpacking them."""

from __future__ import annotations

import hashlib
import marshal
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from imagetool import limits
from imagetool.image.difference import Aspect, Difference, ImageDifference, LayerDifference
from imagetool.image.image import Image, opener
from imagetool.layer import whiteout
from imagetool.layer.entry import Entry, Item
from imagetool.layer.inode import Inode
from imagetool.layer.tarreader import read
from imagetool.layer.tree import Tree

_FIELDS: Final[tuple[tuple[Aspect, tuple[str, ...]], ...]] = (
    ("type", ("kind",)),
    ("mode", ("mode",)),
    ("owner", ("uid", "gid")),
    ("mtime", ("mtime",)),
    ("size", ("size",)),
    ("target", ("linkname",)),
    ("device", ("devmajor", "devminor")),
    ("xattrs", ("xattrs",)),
)
#: Bytes of the SHA-256 of a secret and the content: nobody who made the content can have aimed at another's.
_DIGEST: Final = 12
_NOTHING: Final = bytes(_DIGEST)  # of what holds nothing
_BLOCK: Final = 64 * limits.KIB  # of a side that is packed together
_ROW: Final = 100  # bytes of one beside its strings


def diff_images(left: Image, right: Image) -> ImageDifference:
    """Compare two images path by path, in one pass over the layers of both; what they share is read once.

    Content is compared by digest; a file is the same when type, mode, owner, time, content,
    attributes and the names it has are. One merged root is in memory at a time, beside the layers that are
    shared; of the first image's some 40 bytes a path stay. Raises what reading the layers raises.
    """
    shared = 0
    for one, other in zip(left.layers, right.layers, strict=False):
        if one.diff_id != other.diff_id:
            break
        shared += 1
    base = _Side(Tree(), {}, hashlib.sha256(os.urandom(32)))
    base.apply(left, range(shared))
    first = base if shared == len(left.layers) else base.copy()
    left_steps = first.apply(left, range(shared, len(left.layers)))
    rows = first.pack()
    del first  # before there is another
    right_steps = base.apply(right, range(shared, len(right.layers)))
    return ImageDifference(left.layers[:shared], tuple(left_steps), tuple(right_steps), _compare(rows, base))


class _Side:
    """One image so far: its merged tree, and by layer the digests of what its entries hold, one after another."""

    def __init__(self, tree: Tree, digests: dict[int, bytearray], secret: hashlib._Hash) -> None:
        self.tree = tree
        self.digests = digests
        self._secret = secret

    def copy(self) -> _Side:
        """Return one that other layers can be put on."""
        return _Side(self.tree.copy(), dict(self.digests), self._secret)

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
            steps.append(LayerDifference(layer, difference))
        return steps

    def _noted(self, items: Iterator[Item], number: int, difference: Difference, where: str) -> Iterator[Entry]:
        digests = self.digests[number] = bytearray()
        for entry, content in items:
            digest = self._digest(content) if entry.kind == "file" and entry.size else _NOTHING
            digests += digest
            self._note(entry, digest, difference, where)
            yield entry

    def _note(self, entry: Entry, digest: bytes, difference: Difference, where: str) -> None:
        name = entry.name
        hidden = whiteout.hidden(name, where=where)
        if hidden is not None:
            for path in self._hides(hidden):
                if not self.tree.is_made(path):
                    difference.removed.add(path)
            return
        before = self.tree.get(name)
        if before is None:
            difference.added.add(name)
            return
        if entry.kind == "link":
            target = self.tree.get(entry.linkname)
            if target is None or (target.layer, target.position) == (before.layer, before.position):
                return
            entry, digest = target.entry, self.digest(target)
        aspects = _aspects(before.entry, entry, same_content=self.digest(before) == digest)
        if aspects:
            difference.changed.add(name, aspects)

    def _hides(self, hidden: bytes) -> list[bytes]:
        if hidden.endswith(b"/") or not hidden:
            folder = hidden.rstrip(b"/") or b"."
            return [child if folder == b"." else folder + b"/" + child for child in self.tree.children(folder)]
        return [hidden] if self.tree.lookup(hidden, follow=False)[1] is not None else []

    def digest(self, inode: Inode) -> bytes:
        """Return the digest of a file's content; zeros for an empty file, and for anything else."""
        at = _DIGEST * inode.position
        return bytes(self.digests[inode.layer][at : at + _DIGEST])

    def _digest(self, content: Iterable[bytes]) -> bytes:
        hasher = self._secret.copy()
        for chunk in content:
            hasher.update(chunk)
        return hasher.digest()[:_DIGEST]

    def rows(self) -> Iterator[_Row]:
        """Yield what there is, in the order of `Tree.walk`."""
        names: dict[int, bytes] = {}
        for name, inode in self.tree.walk():
            yield name, inode.entry, self.digest(inode), _names(inode, names)

    def pack(self) -> list[bytes]:
        """Return all rows so that they take little memory."""
        packed = []
        block: list[tuple[bytes, tuple[object, ...], bytes, bytes]] = []
        size = 0
        for name, entry, digest, names in self.rows():
            xattrs = dict(entry.xattrs)
            block.append((name, (*entry[1:10], xattrs), digest, names))
            size += _ROW + len(name) + len(entry.linkname) + sum(map(len, xattrs.values()))
            if size >= _BLOCK:
                packed.append(zlib.compress(marshal.dumps(block), 1))
                block, size = [], 0
        packed.append(zlib.compress(marshal.dumps(block), 1))
        return packed


_Row = tuple[bytes, Entry, bytes, bytes]
"""A path, what is there, the digest of its content, and of the names it has where there are several."""


def _unpacked(packed: Iterable[bytes]) -> Iterator[_Row]:
    for block in packed:
        for name, entry, digest, names in marshal.loads(zlib.decompress(block)):  # what `pack` made
            yield name, Entry(name, *entry), digest, names


def _names(inode: Inode, known: dict[int, bytes]) -> bytes:
    """Return a digest of a file's names, which is made once for all of them; b"" for a single one."""
    if inode.linked is None:
        return b""
    found = known.get(id(inode.linked))
    if found is None:
        names = inode.names
        found = hashlib.sha256(b"\0".join(names)).digest() if len(names) > 1 else b""
        known[id(inode.linked)] = found
    return found


def _aspects(before: Entry, after: Entry, *, same_content: bool) -> tuple[Aspect, ...]:
    found: list[Aspect] = []
    if before[1:] != after[1:]:
        found += (
            aspect
            for aspect, fields in _FIELDS
            if any(getattr(before, name) != getattr(after, name) for name in fields)
        )
    if before.kind == after.kind == "file" and not same_content:
        found.append("content")
    return tuple(found)


def _compare(packed: Iterable[bytes], second: _Side) -> Difference:
    difference = Difference()
    gone: list[bytes] = []  # the last path that is gone, and those of the directories above it that are
    for one, other in _paired(_unpacked(packed), second.rows()):
        if one is None:
            assert other is not None
            difference.added.add(other[0])
            continue
        name, before, content, names = one
        if other is None:
            above = name.rpartition(b"/")[0]
            while gone and gone[-1] != above and not above.startswith(gone[-1] + b"/"):
                gone.pop()
            if above not in gone:  # of a directory that is gone as a whole only itself
                difference.removed.add(name)
            gone.append(name)
            continue
        _, after, other_content, other_names = other
        aspects = _aspects(before, after, same_content=content == other_content)
        if names != other_names and before.kind == after.kind != "dir":
            aspects = (*aspects, "links")
        if aspects:
            difference.changed.add(name, aspects)
    return difference


def _paired(left: Iterator[_Row], right: Iterator[_Row]) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Yield the rows of two sides path by path, with None where a side has none."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        first = _place(one)
        second = _place(other)
        if first == second:
            yield one, other
            one, other = next(left, None), next(right, None)
        elif second is None or (first is not None and first < second):
            yield one, None
            one = next(left, None)
        else:
            yield None, other
            other = next(right, None)


def _place(row: _Row | None) -> bytes | None:
    """Return what sorts as `Tree.walk` does: the root first, then each directory before what is in it."""
    if row is None:
        return None
    return b"" if row[0] == b"." else row[0].replace(b"/", b"\0")


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
