"""Hard links of a layer to files of the layers below it.

An overlay has no links from one layer to another. The kernel copies a file up when it is given one
more name, and so do we: the new layer gets the file under both names.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from imagetool.errors import InvalidArchive
from imagetool.layer.entry import Entry, Item, display, is_private
from imagetool.layer.scan import KIND_OF_TYPE, file_content, read_xattrs
from imagetool.layer.unpack import MissingLink, Ownership, Unpacked, Whiteouts, unpack
from imagetool.safefs.openat2 import open_beneath
from imagetool.snapshot.inherit import is_covered
from imagetool.values import replace

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def copy_up(
    layer: Path,
    unpacked: Unpacked,
    lowers: Sequence[Path],
    *,
    opaque: bytes,
    where: str,
    whiteouts: Whiteouts,
    ownership: Ownership,
    warn: Callable[[str], None],
) -> Unpacked:
    """Make the links of a new overlay layer to what is below it; return what is then left to be done.

    Args:
        lowers: the layers below it, topmost first.
        opaque: the attribute that says that a directory hides those below it.

    Raises InvalidArchive for a link to what no layer has, OSError.
    """
    if not unpacked.links:
        return unpacked
    roots = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in (layer, *lowers)]
    try:
        items = _items(roots[0], unpacked.links, roots[1:], opaque, where)
        more = unpack(items, layer, where=where, whiteouts=whiteouts, ownership=ownership, warn=warn)
    finally:
        for root in roots:
            os.close(root)
    return replace(unpacked, implied=(*unpacked.implied, *more.implied), links=())


def _items(
    layer: int, links: Sequence[MissingLink], lowers: Sequence[int], opaque: bytes, where: str
) -> Iterator[Item]:
    made: set[bytes] = set()
    for name, target, file in links:
        item = None if target in made else _below(layer, target, lowers, opaque)
        if item is None and target not in made:
            raise InvalidArchive(f"{where}: {display(name)} is a hard link to {display(target)}, which is not there")
        if _identity(layer, name) != file:
            continue  # a later entry took its place
        made.add(name)
        if item is not None and _identity(layer, target) is not None:  # and here that of the target
            entry, content = item
            yield entry._replace(name=name), content
            continue
        if item is not None:
            yield item
            made.add(target)
        yield Entry(name, "link", linkname=target), ()


def _identity(layer: int, name: bytes) -> tuple[int, int] | None:
    """Return inode and ctime of what a layer has at a path; None for nothing."""
    try:
        fd = open_beneath(layer, name, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        status = os.fstat(fd)
        return status.st_ino, status.st_ctime_ns
    finally:
        os.close(fd)


def _below(layer: int, name: bytes, lowers: Sequence[int], opaque: bytes) -> Item | None:
    """Return the file that the layers below show at a path, as one of `layer`; None for a directory, too."""
    above, _, base = name.rpartition(b"/")
    if above and is_covered(layer, above, opaque):
        return None
    for lower in lowers:
        try:
            folder = open_beneath(lower, above or b".", _FOLDER)
        except FileNotFoundError:
            if is_covered(lower, above, opaque):
                return None
            continue
        except OSError:
            return None  # a whiteout, file or symlink on the way: nothing below it is seen
        try:
            return _item(folder, base, name)
        except FileNotFoundError:
            if above and is_covered(lower, above, opaque):
                return None
        finally:
            os.close(folder)
    return None


def _item(folder: int, base: bytes, name: bytes) -> Item | None:
    status = os.stat(base, dir_fd=folder, follow_symlinks=False)
    kind = KIND_OF_TYPE.get(stat.S_IFMT(status.st_mode))
    device = status.st_rdev if kind in ("char", "block") else 0
    if kind is None or kind == "dir" or (kind == "char" and device == 0):
        return None
    xattrs = read_xattrs(b"/proc/self/fd/%d/%b" % (folder, base))
    entry = Entry(
        name,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_size if kind == "file" else 0,
        status.st_mtime_ns,
        os.readlink(base, dir_fd=folder) if kind == "symlink" else b"",
        os.major(device),
        os.minor(device),
        {attribute: value for attribute, value in xattrs.items() if not is_private(attribute)},
    )
    if kind != "file":
        return entry, ()
    return entry, file_content(os.open(base, _FILE | os.O_CLOEXEC, dir_fd=folder), status.st_size)
