"""Directories that a layer needs but does not describe, as the layers below it have them.

A directory of an upper overlay layer covers those of the same name below it: without this a
layer that holds nothing but tmp/x would make /tmp root's with mode 0755.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from imagetool.layer.entry import is_private
from imagetool.safefs.openat2 import open_beneath

_PLACE: Final = os.O_PATH | os.O_NOFOLLOW
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def inherit(layer: Path, names: Sequence[bytes], lowers: Sequence[Path], *, opaque: bytes) -> None:
    """Give directories of a new overlay layer the mode, owner, attributes and time of those below them.

    Args:
        names: the directories that the layer itself does not describe.
        lowers: the layers below it, topmost first.
        opaque: the attribute that says that a directory hides those below it.

    Raises OSError.
    """
    if not names or not lowers:
        return
    roots = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in (layer, *lowers)]
    try:
        for name in sorted(names, reverse=True):  # innermost first: what is changed below alters no time
            _inherit(roots[0], name, roots[1:], opaque)
    finally:
        for root in roots:
            os.close(root)


def _inherit(layer: int, name: bytes, lowers: Sequence[int], opaque: bytes) -> None:
    if _is_covered(layer, name, opaque):
        return
    for lower in lowers:
        try:
            source = open_beneath(lower, name, _PLACE)
        except FileNotFoundError:
            if _is_covered(lower, name, opaque):
                return
            continue
        except (NotADirectoryError, OSError):
            return  # a whiteout, file or symlink on the way: nothing below it is seen
        try:
            if stat.S_ISDIR(os.fstat(source).st_mode):
                _copy(lower, layer, name)
        finally:
            os.close(source)
        return


def _is_covered(root: int, name: bytes, opaque: bytes) -> bool:
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
