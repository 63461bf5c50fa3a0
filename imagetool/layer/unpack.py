"""Apply a layer to a directory, as it is or as one layer of an overlay.

Everything goes through `safefs.root.Root`: no entry can reach outside the target. Times of
directories are set last, because what is put into them changes those.

Source: image-spec v1.1 layer.md, "Applying Changesets".
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

from imagetool.errors import ImagetoolError, InvalidArchive, StorageError
from imagetool.layer import whiteout
from imagetool.layer.dressing import Dressing, Warn
from imagetool.layer.dressing import Ownership as Ownership
from imagetool.layer.entry import Entry, Item, display, is_private, parents
from imagetool.safefs.holes import SHORTEST_HOLE
from imagetool.safefs.root import Root
from imagetool.values import dataclass

Whiteouts = Literal["apply", "overlay", "overlay-user"]
_AS_STATED: Final = Ownership()
_NODE_TYPE: Final = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}


class MissingLink(NamedTuple):
    """A hard link, and the inode and ctime of the empty file that is in its place, unless something came later."""

    name: bytes
    target: bytes
    file: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What unpacking for an overlay leaves to be done by who stacks the layers.

    hides_all: the layer hides everything below it (an opaque marker at its root), which no mark
        on an overlay's root directory could say.
    implied: directories that only the names of other entries speak of, made as root's with mode
        0755; in a merged root an older layer may say what they are. Parents first.
    hidden: paths with the kernel's whiteouts, but for those where something came later.
    links: hard links to what the layer itself does not have, in order.
    """

    hides_all: bool
    implied: tuple[bytes, ...]
    hidden: tuple[bytes, ...]
    links: tuple[MissingLink, ...]


def unpack(
    items: Iterable[Item],
    target: Path,
    *,
    where: str,
    whiteouts: Whiteouts = "apply",
    ownership: Ownership = _AS_STATED,
    attributed: set[int] | None = None,
    warn: Warn,
) -> Unpacked:
    """Apply the entries of one layer to a directory that exists.

    Args:
        items: the layer, in archive order (`tarreader.read`).
        where: the layer's name for errors.
        whiteouts: "apply" removes what is hidden from `target`; "overlay" writes the kernel's
            whiteouts and opaque markers, for a directory that will be a lower layer ("overlay-user"
            with the user.* attribute of mounts inside a user namespace).
        attributed: gets the inodes of the files and directories that are given extended attributes,
            for a scan of the same tree.

    Raises InvalidArchive or StorageError, naming the layer and the entry; the target is then
    partly written and must be thrown away.
    """
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(Root(target))
        except OSError as error:
            raise StorageError(f"{where}: cannot unpack into {target}: {error.strerror}") from error
        unpacking = _Unpacking(root, whiteouts, ownership, attributed, warn, where)
        for entry, content in items:
            try:
                unpacking.apply(entry, content)
            except OSError as error:
                raise _explained(error, f"{where}: cannot unpack {display(entry.name)}") from error
        unpacking.finish()
        return Unpacked(unpacking.hides_all, unpacking.implied(), tuple(unpacking.hidden), tuple(unpacking.links))


def _explained(error: OSError, what: str) -> ImagetoolError:
    """Tell an archive that cannot be unpacked anywhere from a disk that refuses."""
    hostile = (errno.ELOOP, errno.ENOTDIR, errno.EXDEV, errno.ENOENT, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST)
    if error.errno in hostile:
        return InvalidArchive(f"{what}: {error.strerror}")
    return StorageError(f"{what}: {error.strerror}")


class _Unpacking:
    """The state of one layer being applied.

    Paths mean what they would mean if the layer were unpacked on its own, as it is for an
    overlay: symlinks that the layer itself made are followed, inside the root; whatever else
    an older layer has where an entry needs a directory gives way to one.
    """

    def __init__(
        self,
        root: Root,
        whiteouts: Whiteouts,
        ownership: Ownership,
        attributed: set[int] | None,
        warn: Warn,
        where: str,
    ) -> None:
        self._root = root
        self._overlay = whiteouts != "apply"
        self._dressing = Dressing(root, ownership, attributed, warn, where)
        self._opaque = b"user.overlay.opaque" if whiteouts == "overlay-user" else b"trusted.overlay.opaque"
        self._where = where
        self._owner = ownership.root
        self._clear: bytes | None = None  # the directory of the last entry, where nothing is in the way
        self._folders: dict[bytes, Entry] = {}  # dressed at the end
        self._touched: dict[bytes, int] = {}  # directories no entry describes, and the time they keep
        self._made: set[bytes] = set()  # by this layer: a whiteout of the same layer does not hide them
        self.hidden: set[bytes] = set()  # whited out by this layer, so a new directory there starts empty
        self._implied: dict[bytes, Entry] = {}  # directories that no entry describes, or none did before
        self.links: list[MissingLink] = []  # to what older layers may have
        self._waiting: dict[bytes, int] = {}  # the names of these, and what stands in for them
        self.hides_all = False

    def apply(self, entry: Entry, content: Iterable[bytes]) -> None:
        name, kind, mode, _, _, size, mtime, _, _, _, xattrs = entry
        hidden = whiteout.hidden(name, where=self._where) if name.find(whiteout.PREFIX) >= 0 else None
        if hidden is not None:
            if hidden.endswith(b"/") or not hidden:
                self._make_opaque(hidden.rstrip(b"/") or b".")
            else:
                self._hide(hidden)
            return
        if name == b".":
            if kind != "dir":
                raise InvalidArchive(f"{self._where}: the root is a {kind}, not a directory")
            self._folders[b"."] = entry
            return
        above = name.rpartition(b"/")[0]
        if above != self._clear:
            if above not in self._made:
                self._clear_way(name)
            self._clear = above
            self._dressing.enter(above)
        if kind != "file":
            self._create(entry)
        elif size < SHORTEST_HOLE and not xattrs and entry[2:5] in self._dressing.proven:
            self._root.write_whole(name, b"".join(content), mode & 0o777, mtime)
        else:
            self._file(entry, content)
        self._made.add(name)

    def _clear_way(self, name: bytes) -> None:
        """Make what is above an entry directories, unless this layer has said already what they are."""
        for folder in parents(name):
            if folder in self._made:
                continue
            status = self._root.lstat(folder)
            if status is not None and stat.S_ISDIR(status.st_mode):
                self._touched.setdefault(folder, status.st_mtime_ns)  # a whiteout in it came before
            else:
                if self._root.make_folder(folder):
                    self._dressing.made_folder(folder)
                self._folders[folder] = self._implied[folder] = Entry(folder, "dir", 0o755, *self._owner)
                if folder in self.hidden:
                    self._mark_opaque(folder)
            self._made.add(folder)

    def _file(self, entry: Entry, content: Iterable[bytes]) -> None:
        fd = self._root.write_file(entry.name, content, entry.mode & 0o777)
        try:
            self._dressing.dress_new(fd, entry)
        finally:
            os.close(fd)

    def _create(self, entry: Entry) -> None:
        root, name = self._root, entry.name
        if entry.kind == "dir":
            if root.make_folder(name):
                self._dressing.made_folder(name)
                if name in self.hidden or name in self._made:  # something else of this layer was in its place
                    self._mark_opaque(name)
            elif name not in self._made:
                self._undress(name)
                self._dressing.forget()
                self._clear = None
            self._folders[name] = entry
        elif entry.kind == "symlink":
            if root.symlink(name, entry.linkname):
                self._dressing.forget()  # it may stand in for a directory
                self._clear = None
            self._dressing.own(entry)
            self._dressing.set_xattrs(entry, partial(root.set_node_xattr, name))
            root.set_times(name, entry.mtime)
        elif entry.kind == "link":
            self._link(entry)
        else:
            self._node(entry)

    def _link(self, entry: Entry) -> None:
        what = f"{self._where}: {display(entry.name)} is a hard link to {display(entry.linkname)}"
        try:
            status = self._root.lstat(entry.linkname)
        except NotADirectoryError:
            status = None
        if self._overlay and (status is None or status.st_ino == self._waiting.get(entry.linkname)):
            self._wait_for_link(entry)
            return
        if status is None or (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):  # or one of our whiteouts
            raise InvalidArchive(f"{what}, which is not there")
        if stat.S_ISDIR(status.st_mode):
            raise InvalidArchive(f"{what}, which is a directory")
        self._root.link(entry.name, entry.linkname)

    def _wait_for_link(self, entry: Entry) -> None:
        """Leave a file in the place of a link to what only a layer below can have."""
        fd = self._root.write_file(entry.name, ())
        try:
            os.utime(fd, ns=(0, 0))
            status = os.fstat(fd)
        finally:
            os.close(fd)
        self._waiting[entry.name] = status.st_ino
        self.links.append(MissingLink(entry.name, entry.linkname, (status.st_ino, status.st_ctime_ns)))

    def _node(self, entry: Entry) -> None:
        kind = _NODE_TYPE[entry.kind]
        if entry.kind == "char" and (entry.devmajor, entry.devminor) == (0, 0):
            raise InvalidArchive(f"{self._where}: {display(entry.name)} is a device 0:0, the kernel's own whiteout")
        try:
            self._root.device(entry.name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor))
        except PermissionError:
            self._dressing.refused("a device node", entry)
            self._root.remove(entry.name)
            return
        self._dressing.own(entry)
        self._dressing.set_xattrs(entry, partial(self._root.set_node_xattr, entry.name))
        self._root.set_node_mode(entry.name, entry.mode)
        self._root.set_times(entry.name, entry.mtime)

    def _undress(self, name: bytes) -> None:
        """Take from an older layer's directory the attributes that this layer may not say it has."""
        fd = self._root.open(name)
        try:
            if os.fstat(fd).st_mode & 0o700 != 0o700:
                os.fchmod(fd, 0o700)
            for attribute in map(os.fsencode, os.listxattr(fd)):
                if not is_private(attribute):
                    os.removexattr(fd, attribute)
        finally:
            os.close(fd)

    def _hide(self, name: bytes) -> None:
        if name in self._made and not (self._overlay and self._take_back(name)):
            # Made again by this very layer: only what older layers have below it is hidden.
            self._make_opaque(name)
            return
        folder = name.rpartition(b"/")[0]
        plain = self._root.is_plain(folder)
        if plain is False or (plain is None and not self._overlay):
            return  # nothing of an older layer can be there
        self._touch(folder)
        if self._overlay:
            self._clear_way(name)
            self.hidden.add(name)
            self._root.device(name, stat.S_IFCHR, 0)
        else:
            self._root.remove(name)

    def _take_back(self, name: bytes) -> bool:
        """Remove a directory of an overlay that only holds marks of this layer: all is hidden now. Say whether so."""
        found, waiting = [], [name]
        while waiting:
            path = waiting.pop()
            entry = self._implied.get(path)
            status = self._root.lstat(path)
            found.append(path)
            if status is not None and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                continue
            if status is None or not stat.S_ISDIR(status.st_mode) or entry is None or self._folders[path] is not entry:
                return False
            fd = self._root.open(path)
            try:
                waiting += (path + b"/" + os.fsencode(child) for child in os.listdir(fd))
            finally:
                os.close(fd)
        self._root.remove(name)
        self._dressing.forget()
        self._clear = None
        for path in found:
            self._made.discard(path)
            self.hidden.discard(path)
            self._folders.pop(path, None)
            self._implied.pop(path, None)
            self._touched.pop(path, None)
        return True

    def _touch(self, folder: bytes) -> None:
        """Remember the time of a directory that no entry may describe."""
        if folder and folder not in self._made and folder not in self._touched:
            status = self._root.lstat(folder)
            self._touched[folder] = status.st_mtime_ns if status else 0

    def _make_opaque(self, name: bytes) -> None:
        plain = self._root.is_plain(name)
        if self._overlay:
            if name == b".":
                self.hides_all = True
            elif plain is not False:
                self._clear_way(name + b"/" + whiteout.OPAQUE)
                self._mark_opaque(name)
        elif plain:
            self._empty(name)

    def _empty(self, name: bytes) -> None:
        """Remove what older layers have below a directory."""
        waiting = [name]
        while waiting:
            folder = waiting.pop()
            self._touch(b"" if folder == b"." else folder)
            fd = self._root.open(folder)
            try:
                children = [os.fsencode(child) for child in os.listdir(fd)]
            finally:
                os.close(fd)
            for child in children:
                path = child if folder == b"." else folder + b"/" + child
                if path not in self._made:
                    self._root.remove(path)
                elif self._root.is_plain(path):
                    waiting.append(path)

    def _mark_opaque(self, name: bytes) -> None:
        if not self._overlay:
            return
        fd = self._root.open(name)
        try:
            os.setxattr(fd, self._opaque, b"y")
        finally:
            os.close(fd)

    def implied(self) -> tuple[bytes, ...]:
        """Return the directories that no entry described, later ones neither."""
        return tuple(name for name, entry in self._implied.items() if self._folders[name] is entry)

    def finish(self) -> None:
        """Dress the directories, innermost first: only now does nothing more change their times."""
        for name, mtime in self._touched.items():
            if name not in self._folders:
                self._finish(name, partial(os.utime, ns=(mtime, mtime)))
        for name in sorted(self._folders, reverse=True):
            self._finish(name, partial(self._dressing.dress_folder, entry=self._folders[name]))

    def _finish(self, name: bytes, dress: Callable[[int], None]) -> None:
        try:
            fd = self._root.open(name)
            try:
                if stat.S_ISDIR(os.fstat(fd).st_mode):  # not replaced by a later entry of the same layer
                    dress(fd)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise _explained(error, f"{self._where}: cannot finish {display(name)}") from error
