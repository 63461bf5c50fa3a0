"""Where a container's root filesystem comes from. Plain values; the executor mounts them."""

from __future__ import annotations

from pathlib import Path

from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that is the root as it is."""

    path: Path


@dataclass(frozen=True, slots=True)
class Overlay:
    """Lower directories, topmost first, and where changes go; `userxattr` inside a user namespace."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path
    userxattr: bool = False


Rootfs = Directory | Overlay
