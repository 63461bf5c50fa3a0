"""How two root filesystems differ, in a few bytes a path: there may be a million on either side."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from imagetool import limits
from imagetool.image.image import Layer
from imagetool.values import dataclass, field

Aspect = Literal["type", "mode", "owner", "mtime", "size", "content", "target", "device", "xattrs", "links"]
ASPECTS: Final[tuple[Aspect, ...]] = (
    "type",
    "mode",
    "owner",
    "mtime",
    "size",
    "target",
    "device",
    "xattrs",
    "content",
    "links",
)
_RUN: Final = 2 * limits.MIB  # of paths that are sorted at once
_BLOCK: Final = 16 * limits.KIB  # of paths that are packed together: of each run one such block is unpacked at a time
_OBJECT: Final = 48  # what each takes in memory beside its bytes
_BETWEEN: Final = b"\0\0"  # no path has a NUL, and what comes after one in `Changes` is never empty and has none


class _Packed:
    """Strings in order, compressed as they come, in sorted runs that are merged when they are read."""

    __slots__ = ("_bytes", "_count", "_last", "_runs")

    def __init__(self) -> None:
        self._runs: list[list[bytes]] = []
        self._last: list[bytes] = []
        self._bytes = 0
        self._count = 0

    def add(self, item: bytes) -> None:
        self._count += 1
        self._last.append(item)
        self._bytes += _OBJECT + len(item)
        if self._bytes >= _RUN:
            self._last.sort()
            self._runs.append([zlib.compress(block, 1) for block in _blocks(self._last)])
            self._last, self._bytes = [], 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        if not self._runs:
            return iter(sorted(self._last))
        return heapq.merge(*map(_unpacked, self._runs), sorted(self._last))


def _blocks(items: Iterable[bytes]) -> Iterator[bytes]:
    block: list[bytes] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item)
        if size >= _BLOCK:
            yield _BETWEEN.join(block)
            block, size = [], 0
    if block:
        yield _BETWEEN.join(block)


def _unpacked(run: Iterable[bytes]) -> Iterator[bytes]:
    for block in run:
        yield from zlib.decompress(block).split(_BETWEEN)


class Paths:
    """Paths; they are read sorted, as often as one likes."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed = _Packed()

    def add(self, path: bytes) -> None:
        """Add one, in any order."""
        self._packed.add(path)

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._packed)


@dataclass(frozen=True, slots=True)
class Change:
    """A path that both sides have; `aspects` says in what it differs."""

    path: bytes
    aspects: tuple[Aspect, ...]


class Changes:
    """Changes; they are read sorted by path, as often as one likes."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed = _Packed()

    def add(self, path: bytes, aspects: Sequence[Aspect]) -> None:
        """Add one, in any order; of aspects there is at least one."""
        self._packed.add(path + b"\0" + bytes(ASPECTS.index(aspect) + 1 for aspect in aspects))

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Change]:
        for item in self._packed:
            path, _, numbers = item.partition(b"\0")
            yield Change(path, tuple(ASPECTS[number - 1] for number in numbers))


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to be done to one root filesystem to make it the other; paths sorted."""

    added: Paths = field(default_factory=Paths)
    changed: Changes = field(default_factory=Changes)
    removed: Paths = field(default_factory=Paths)

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
