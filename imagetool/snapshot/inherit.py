"""Directories that a layer needs but does not describe, as the layers below it have them.

A directory of an upper overlay layer covers those of the same name below it: without this a
layer that holds nothing but tmp/x would make /tmp root's with mode 0755.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

from imagetool.layer.entry import is_private
from imagetool.safefs.openat2 import open_beneath

_PLACE: Final = os.O_PATH | os.O_NOFOLLOW
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def inherit(
    layer: Path, names: Sequence[bytes], hidden: Container[bytes], lowers: Sequence[Path], *, opaque: bytes
) -> None:
    """Give directories of a new overlay layer the mode, owner, attributes and time of those below them.

    Args:
        names: the directories that the layer itself does not describe.
        hidden: paths that it hides from below; a directory there is a new one.
        lowers: the layers below it, topmost first.
        opaque: the attribute that says that a directory hides those below it.

    Raises OSError.
    """
    if not names or not lowers:
        return
    roots = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in (layer, *lowers)]
    try:
        for name in sorted(names, reverse=True):  # innermost first: what is changed below alters no time
            lower = None if name in hidden else _below(roots[0], name, roots[1:], opaque)
            if lower is not None:
                _copy(lower, roots[0], name)
    finally:
        for root in roots:
            os.close(root)


def remove_stray_marks(
    layer: Path, hidden: Sequence[bytes], implied: Sequence[bytes], lowers: Sequence[Path], *, opaque: bytes
) -> None:
    """Remove whiteouts of a new overlay layer that hide nothing, and directories that are there for such marks only.

    In a directory that no layer below has, too, the kernel merges nothing and lists the whiteouts themselves.

    Args:
        hidden: the paths that the layer hides.
        implied: the directories that it does not describe.
        lowers, opaque: as for `inherit`.

    Raises OSError.
    """
    if not hidden and not implied:
        return
    roots = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in (layer, *lowers)]
    try:
        merged: dict[bytes, bool] = {}
        for name in hidden:
            above, _, base = name.rpartition(b"/")
            if above not in merged:
                merged[above] = _is_merged(roots[0], above or b".", roots[1:], opaque)
            if not merged[above]:
                _remove_whiteout(roots[0], above or b".", base)
        for name in sorted(implied, reverse=True):
            _remove_unneeded(roots[0], name, roots[1:], opaque)
    finally:
        for root in roots:
            os.close(root)


def _remove_unneeded(layer: int, name: bytes, lowers: Sequence[int], opaque: bytes) -> None:
    """Remove a directory that is empty and covers none; only an entry's name, a whiteout's, spoke of it."""
    try:
        folder = open_beneath(layer, name, _FOLDER)
    except OSError:
        return
    try:
        is_empty = not os.listdir(folder)
    finally:
        os.close(folder)
    above, _, base = name.rpartition(b"/")
    if is_empty and _below(layer, name, lowers, opaque) is None:
        folder = open_beneath(layer, above or b".", _FOLDER)
        try:
            time = os.fstat(folder).st_mtime_ns
            os.rmdir(base, dir_fd=folder)
            os.utime(folder, ns=(time, time))
        finally:
            os.close(folder)


def _remove_whiteout(layer: int, above: bytes, base: bytes) -> None:
    try:
        folder = open_beneath(layer, above, _FOLDER)
    except OSError:  # what held it was hidden, or replaced, by a later entry
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(base, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                time = os.fstat(folder).st_mtime_ns
                os.unlink(base, dir_fd=folder)
                os.utime(folder, ns=(time, time))
    finally:
        os.close(folder)


def _is_folder(layer: int, name: bytes) -> bool:
    try:
        os.close(open_beneath(layer, name, _FOLDER))
    except OSError:  # a later entry took its place
        return False
    return True


def _is_merged(layer: int, name: bytes, lowers: Sequence[int], opaque: bytes) -> bool:
    return not is_covered(layer, name, opaque) and _below(layer, name, lowers, opaque) is not None


def _below(layer: int, name: bytes, lowers: Sequence[int], opaque: bytes) -> int | None:
    """Return the topmost of the layers below one that has a directory where `layer` has one, opaque or not."""
    above = name.rpartition(b"/")[0]
    if not _is_folder(layer, name) or (above and is_covered(layer, above, opaque)):
        return None
    for lower in lowers:
        try:
            source = open_beneath(lower, name, _PLACE)
        except FileNotFoundError:
            if is_covered(lower, name, opaque):
                return None
            continue
        except (NotADirectoryError, OSError):
            return None  # a whiteout, file or symlink on the way: nothing below it is seen
        try:
            return lower if stat.S_ISDIR(os.fstat(source).st_mode) else None
        finally:
            os.close(source)
    return None


def is_covered(root: int, name: bytes, opaque: bytes) -> bool:
    """Say whether a layer hides what others have at a path: an opaque directory, or none, on the way."""
    parts = name.split(b"/")
    for depth in range(1, len(parts) + 1):
        try:
            fd = open_beneath(root, b"/".join(parts[:depth]), _FOLDER)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            if opaque in map(os.fsencode, os.listxattr(fd)):
                return True
        finally:
            os.close(fd)
    return False


def _copy(lower: int, layer: int, name: bytes) -> None:
    source = open_beneath(lower, name, _FOLDER)
    try:
        target = open_beneath(layer, name, _FOLDER)
        try:
            status = os.fstat(source)
            os.fchown(target, status.st_uid, status.st_gid)
            os.fchmod(target, stat.S_IMODE(status.st_mode))
            for attribute in map(os.fsencode, os.listxattr(source)):
                if not is_private(attribute):
                    os.setxattr(target, attribute, os.getxattr(source, attribute))
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)
