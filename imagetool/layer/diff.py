"""The difference of a directory tree between two scans, as the entries of a layer.

Nothing is read but what changed. A file that was touched and put back (same size, mode, owner,
time and attributes) is compared by the digest of its content when somebody can tell what that
was, and counts as changed otherwise.

Source: image-spec v1.1 layer.md, "Representing Changes".
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from imagetool.errors import StorageError
from imagetool.layer.directory import Record, Scan, readable
from imagetool.layer.entry import Entry, Item, display, is_private, parents
from imagetool.layer.idmap import OwnerMap
from imagetool.layer.rootless import OWNER, parse_owner
from imagetool.layer.scan import KIND_OF_TYPE, check_name, file_content
from imagetool.layer.whiteout import PREFIX

_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NONE: Final[Mapping[bytes, bytes]] = {}


Digests = Callable[[Sequence[bytes]], Mapping[bytes, bytes]]
"""Tells the SHA-256 of what files held before, by path; those it does not know it leaves out."""


def diff_directory(
    root: Path,
    before: Scan,
    after: Scan,
    *,
    clamp: int | None,
    warn: Callable[[str], None],
    rootless: bool = False,
    owners: OwnerMap | None = None,
    digests: Digests | None = None,
) -> Iterator[Item]:
    """Yield the layer that turns the tree of `before` into that of `after`, which is below `root` now.

    Entries come in depth-first order, names sorted; a directory before what is in it, whiteouts
    before what is added beside them, and every directory above a change. What gave way to a
    directory, or a directory that gave way, is whited out first. Files with several names are
    in the layer with all of them or not at all. Sockets are left out with a warning.

    Args:
        clamp: the latest time, in nanoseconds, that an entry may have; None keeps all times.
        digests: asked at most once, and only for files that were touched and put back.
        rootless: owners are those that `layer.rootless` recorded, and root where there is none.
        owners: what the ids on the disk are in the image.

    Raises StorageError for what cannot be read or changed after the scan, InvalidArchive for
    what a layer cannot say.
    """
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"cannot read {root}: {error.strerror}") from error
    try:
        difference = _Difference(fd, before, after, clamp, warn, rootless, owners, digests)
        yield from difference.entries()
    except OSError as error:
        raise StorageError(f"cannot read the changes in {root}: {error.strerror}") from error
    finally:
        os.close(fd)


class _Difference:
    def __init__(
        self,
        fd: int,
        before: Scan,
        after: Scan,
        clamp: int | None,
        warn: Callable[[str], None],
        rootless: bool,
        owners: OwnerMap | None,
        digests: Digests | None,
    ) -> None:
        self._digests = digests
        self._fd = fd
        self._before = before
        self._after = after
        self._clamp = clamp
        self._warn = warn
        self._rootless = rootless
        self._owners = owners
        self._first_names: dict[int, bytes] = {}

    def entries(self) -> Iterator[Item]:
        changed = self._changed()
        hidden = list(self._hidden())
        for name in [*changed, *hidden]:
            changed.update(parents(name))
        order = [(name.split(b"/"), name) for name in changed if name != b"."]
        for name in hidden:  # the empty part sorts a directory's whiteouts before what is in it
            folder, slash, base = name.rpartition(b"/")
            order.append(([*(folder.split(b"/") if slash else []), b"", base], b""))
        for parts, name in sorted(order):
            if name:
                yield from self._entry(name)
            else:
                path = b"/".join([*parts[:-2], PREFIX + parts[-1]])
                yield Entry(path, "file", 0, mtime=self._clamp or 0), ()

    def _changed(self) -> set[bytes]:
        """Return the paths that a layer must say anew."""
        before, after = self._before.records, self._after.records
        touched = [name for name, record in after.items() if record != before.get(name)]
        changed: set[bytes] = set()
        unsure: list[bytes] = []
        for name in touched:
            if name not in before or not self._looks_same(name):
                changed.add(name)
            elif stat.S_ISREG(after[name].mode):
                unsure.append(name)
        known = self._digests(unsure) if unsure and self._digests is not None else {}
        changed.update(name for name in unsure if name not in known or known[name] != self._digest(name))
        groups = _groups(after)
        if groups or any(before[name].nlink > 1 for name in touched if name in before):
            old_first = _first_names(_groups(before), after)
            new_first = _first_names(groups, after)
            for name in touched:
                if old_first.get(name, name) != new_first.get(name, name):
                    changed.add(name)
        for names in groups.values():
            if not changed.isdisjoint(names):
                changed.update(names)
        return changed

    def _looks_same(self, name: bytes) -> bool:
        """Say whether all is equal but what a file holds."""
        old, new = self._before.records[name], self._after.records[name]
        if (old.mode, old.uid, old.gid, old.mtime, old.device) != (new.mode, new.uid, new.gid, new.mtime, new.device):
            return False
        if self._attributes(self._before, name) != self._attributes(self._after, name):
            return False
        if stat.S_ISLNK(new.mode):
            return self._before.targets.get(name) == self._after.targets.get(name)
        return not stat.S_ISREG(new.mode) or old.size == new.size

    def _digest(self, name: bytes) -> bytes:
        hasher = hashlib.sha256()
        with readable(self._fd, name, _FILE) as (fd, _):
            for chunk in file_content(os.dup(fd), os.fstat(fd).st_size):
                hasher.update(chunk)
        return hasher.digest()

    def _attributes(self, scan: Scan, name: bytes) -> Mapping[bytes, bytes]:
        found = scan.xattrs.get(name)
        if not found:
            return _NONE
        return {attribute: value for attribute, value in found.items() if not is_private(attribute)}

    def _hidden(self) -> Iterator[bytes]:
        """Yield what is gone from directories that are still there, and what turned from or into a directory."""
        before, after = self._before.records, self._after.records
        for name in before:
            now = after.get(name)
            if now is not None:
                if stat.S_ISDIR(now.mode) != stat.S_ISDIR(before[name].mode):
                    yield name
                continue
            folder = after.get(name.rpartition(b"/")[0] or b".")
            if folder is not None and stat.S_ISDIR(folder.mode):
                yield name

    def _entry(self, name: bytes) -> Iterator[Item]:
        record = self._after.records[name]
        kind = KIND_OF_TYPE.get(stat.S_IFMT(record.mode))
        check_name(name)
        if kind is None:
            self._warn(f"{display(name)} is a socket and is left out of the layer")
            return
        xattrs = dict(self._attributes(self._after, name))
        uid, gid = record.uid, record.gid
        if self._rootless:
            uid, gid = parse_owner(xattrs.pop(OWNER, b""), where=display(name))
        mtime = record.mtime if self._clamp is None else min(record.mtime, self._clamp)
        mode = stat.S_IMODE(record.mode)
        entry = Entry(name, kind, mode, uid, gid, 0, mtime, self._after.targets.get(name, b""), xattrs=xattrs)
        if self._owners is not None:
            entry = self._owners.stated(entry)
        if kind != "dir" and record.nlink > 1:
            first = self._first_names.setdefault(record.inode, name)
            if first != name:
                yield entry._replace(kind="link", linkname=first, xattrs={}), ()
                return
        if kind == "file":
            with readable(self._fd, name, _FILE) as (fd, _):
                status = os.fstat(fd)
                if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime):
                    raise StorageError(f"{display(name)} changed while it was read; try again")
                content = file_content(os.dup(fd), record.size)
            yield entry._replace(size=record.size), content
        elif kind in ("char", "block"):
            yield entry._replace(devmajor=os.major(record.device), devminor=os.minor(record.device)), ()
        else:
            yield entry, ()


def _groups(records: Mapping[bytes, Record]) -> dict[int, list[bytes]]:
    """Return the names of every file that has several."""
    groups: dict[int, list[bytes]] = {}
    for name, record in records.items():
        if record.nlink > 1 and not stat.S_ISDIR(record.mode):
            groups.setdefault(record.inode, []).append(name)
    return groups


def _first_names(groups: Mapping[int, Iterable[bytes]], there: Mapping[bytes, Record]) -> dict[bytes, bytes]:
    """Return for each name the first of its file's names that are still there."""
    firsts = {}
    for names in groups.values():
        left = [name for name in names if name in there]
        if left:
            firsts.update(dict.fromkeys(left, min(left)))
    return firsts
