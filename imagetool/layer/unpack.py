"""Apply a layer to a directory, as it is or as one layer of an overlay.

Everything goes through `safefs.Root`: no entry can reach outside the target. Times of
directories are set last, because what is put into them changes those.

Source: image-spec v1.1 layer.md, "Applying Changesets".
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from imagetool.errors import ImagetoolError, InvalidArchive, StorageError
from imagetool.layer import whiteout
from imagetool.layer.entry import Entry, Item, display
from imagetool.safefs.root import Root, set_xattrs

Warn = Callable[[str], None]
Whiteouts = Literal["apply", "overlay", "overlay-user"]
_NODE_TYPE: Final = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
_REFUSED: Final = (errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Ownership:
    """What may be set on unpacked files.

    owners: whether entries get the owner they state; without it everything stays the caller's.
    lenient: whether what the kernel refuses (an owner outside the user namespace, a device, an
        attribute) is left out with one warning for each kind instead of an error.
    """

    owners: bool = True
    lenient: bool = False


def unpack(
    items: Iterable[Item],
    target: Path,
    *,
    where: str,
    whiteouts: Whiteouts = "apply",
    ownership: Ownership = Ownership(),
    warn: Warn,
) -> bool:
    """Apply the entries of one layer to a directory that exists.

    Args:
        items: the layer, in archive order (`tarreader.read`).
        where: the layer's name for errors.
        whiteouts: "apply" removes what is hidden from `target`; "overlay" writes the kernel's
            whiteouts and opaque markers, for a directory that will be a lower layer ("overlay-user"
            with the user.* attribute of mounts inside a user namespace).

    Returns whether the layer hides everything below it (an opaque marker at its root), which no
    mark on an overlay's root directory could say.

    Raises InvalidArchive or StorageError, naming the layer and the entry; the target is then
    partly written and must be thrown away.
    """
    with Root(target) as root:
        unpacking = _Unpacking(root, whiteouts, ownership, warn, where)
        for entry, content in items:
            try:
                unpacking.apply(entry, content)
            except OSError as error:
                raise _explained(error, f"{where}: cannot unpack {display(entry.name)}") from error
        unpacking.finish()
        return unpacking.hides_all


def _explained(error: OSError, what: str) -> ImagetoolError:
    """Tell an archive that cannot be unpacked anywhere from a disk that refuses."""
    hostile = (errno.ELOOP, errno.ENOTDIR, errno.EXDEV, errno.ENOENT, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST)
    if error.errno in hostile:
        return InvalidArchive(f"{what}: {error.strerror}")
    return StorageError(f"{what}: {error.strerror}")


class _Unpacking:
    def __init__(self, root: Root, whiteouts: Whiteouts, ownership: Ownership, warn: Warn, where: str) -> None:
        self._root = root
        self._overlay = whiteouts != "apply"
        self._opaque = b"user.overlay.opaque" if whiteouts == "overlay-user" else b"trusted.overlay.opaque"
        self._ownership = ownership
        self._warn = warn
        self._where = where
        self._folders: dict[bytes, int] = {}
        self._made: set[bytes] = set()  # by this layer: a whiteout of the same layer does not hide them
        self._hidden: set[bytes] = set()  # whited out by this layer, so a new directory there starts empty
        self._warned: set[str] = set()
        self.hides_all = False

    def apply(self, entry: Entry, content: Iterable[bytes]) -> None:
        hidden = whiteout.hidden(entry.name, where=self._where)
        if hidden is not None:
            if hidden.endswith(b"/") or not hidden:
                self._make_opaque(hidden.rstrip(b"/") or b".")
            else:
                self._hide(hidden)
            return
        if entry.name == b".":
            if entry.kind != "dir":
                raise InvalidArchive(f"{self._where}: the root is a {entry.kind}, not a directory")
            self._dress(self._root.open(b"."), entry)
            self._folders[b"."] = entry.mtime
            return
        self._create(entry, content)
        name = entry.name
        while name and name not in self._made:
            self._made.add(name)
            name = name.rpartition(b"/")[0]

    def _create(self, entry: Entry, content: Iterable[bytes]) -> None:
        root, name = self._root, entry.name
        if entry.kind != "dir" and name in self._folders:
            self._forget_folders(name)
        if entry.kind == "file":
            self._dress(root.write_file(name, content), entry)
        elif entry.kind == "dir":
            made = root.make_folder(name)
            if made and self._overlay and name in self._hidden:
                self._mark_opaque(name)
            self._dress(root.open(name), entry)
            self._folders[name] = entry.mtime
        elif entry.kind == "symlink":
            root.symlink(name, entry.linkname)
            self._own(entry)
            root.set_times(name, entry.mtime)
        elif entry.kind == "link":
            self._link(entry)
        else:
            self._node(entry)

    def _link(self, entry: Entry) -> None:
        try:
            self._root.link(entry.name, entry.linkname)
        except FileNotFoundError:
            raise InvalidArchive(
                f"{self._where}: {display(entry.name)} is a hard link to {display(entry.linkname)}, which is not there"
            ) from None

    def _node(self, entry: Entry) -> None:
        kind = _NODE_TYPE[entry.kind]
        if entry.kind == "char" and (entry.devmajor, entry.devminor) == (0, 0):
            raise InvalidArchive(f"{self._where}: {display(entry.name)} is a device 0:0, the kernel's own whiteout")
        try:
            self._root.device(entry.name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor))
        except PermissionError:
            self._refused("a device node", entry)
            return
        self._own(entry)
        self._root.set_node_mode(entry.name, entry.mode)
        self._root.set_times(entry.name, entry.mtime)

    def _dress(self, fd: int, entry: Entry) -> None:
        """Set owner, mode, attributes and time of an open file, in the order that keeps setuid and capabilities."""
        try:
            if self._ownership.owners:
                try:
                    os.fchown(fd, entry.uid, entry.gid)
                except OSError as error:
                    self._check_refused(error, f"owner {entry.uid}:{entry.gid}", "an owner", entry)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                try:
                    set_xattrs(fd, entry.xattrs)
                except OSError as error:
                    self._check_refused(error, "an extended attribute", "an extended attribute", entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _own(self, entry: Entry) -> None:
        if not self._ownership.owners:
            return
        try:
            self._root.set_owner(entry.name, entry.uid, entry.gid)
        except OSError as error:
            self._check_refused(error, f"owner {entry.uid}:{entry.gid}", "an owner", entry)

    def _check_refused(self, error: OSError, what: str, kind: str, entry: Entry) -> None:
        if error.errno not in _REFUSED:
            raise error
        self._refused(kind, entry, detail=what)

    def _refused(self, kind: str, entry: Entry, *, detail: str = "") -> None:
        """Note something the kernel does not let us set; an error unless it may be left out."""
        text = f"{self._where}: {display(entry.name)}: this user may not set {detail or kind}"
        if not self._ownership.lenient:
            raise StorageError(f"{text}; run as root or with a range of subordinate ids")
        if kind not in self._warned:
            self._warned.add(kind)
            self._warn(f"{text}; it is left out, here and wherever else it occurs")

    def _hide(self, name: bytes) -> None:
        if name in self._made:
            # Made again by this very layer: only what older layers have below it is hidden.
            status = self._root.lstat(name)
            if status and stat.S_ISDIR(status.st_mode):
                self._make_opaque(name)
        elif self._overlay:
            self._hidden.add(name)
            self._root.device(name, stat.S_IFCHR, 0)
        else:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._root.remove(name)

    def _make_opaque(self, name: bytes) -> None:
        if self._overlay:
            if name == b".":
                self.hides_all = True
            else:
                self._root.make_folder(name)
                self._mark_opaque(name)
            return
        try:
            fd = self._root.open(name)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            children = [os.fsencode(child) for child in os.listdir(fd)]
        finally:
            os.close(fd)
        for child in children:
            path = child if name == b"." else name + b"/" + child
            self._hide(path)

    def _mark_opaque(self, name: bytes) -> None:
        fd = self._root.open(name)
        try:
            os.setxattr(fd, self._opaque, b"y")
        finally:
            os.close(fd)

    def _forget_folders(self, name: bytes) -> None:
        for folder in [path for path in self._folders if path == name or path.startswith(name + b"/")]:
            del self._folders[folder]

    def finish(self) -> None:
        """Set the times of directories, innermost first."""
        for name in sorted(self._folders, reverse=True):
            try:
                self._root.set_times(name, self._folders[name])
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced by a later entry of the same layer
            except OSError as error:
                raise _explained(error, f"{self._where}: cannot set the time of {display(name)}") from error
