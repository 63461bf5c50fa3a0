"""Where COPY takes files from: a directory on disk, or the merged layers of another image."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from imagetool.content.store import Fetcher
from imagetool.dockerfile.ignore import IgnoreMatch, IgnoreRules
from imagetool.errors import InvalidArchive, NotFound, StorageError
from imagetool.image.image import Layer, opener
from imagetool.layer.entry import Entry, Item, Kind, display
from imagetool.layer.merge import Opener, Tree, merge
from imagetool.layer.scan import file_content, read_xattrs
from imagetool.layer.tarreader import read
from imagetool.oci.digest import Digest, new_hasher
from imagetool.safefs.openat2 import open_beneath, open_in_root
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.build.filedigests import FileDigests
    from imagetool.build.worker import Witness

_KIND: Final[dict[int, Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}
_KEPT_TREES: Final = 4
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Taken:
    """One path that is copied: the name it has at the source, and the entry it becomes.

    `entry` has the source's attributes and the destination's name. `inode` tells which taken
    paths are one file.
    """

    source: bytes
    entry: Entry
    inode: object = None


class Child(NamedTuple):
    """What is in a directory.

    inode: equal for the names of one file, None for a file with one name.
    excluded: a directory that is ignored itself but may hold files that are not.
    """

    base: bytes
    entry: Entry
    inode: object = None
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A directory that COPY may take files from by a name, and what of it is not there."""

    folder: Path
    ignore: IgnoreRules


class Files(Protocol):
    """A tree of files. Names are as in `Entry.name`; symlinks are resolved inside the tree."""

    def lookup(self, path: bytes, *, follow: bool = True) -> tuple[bytes, Entry | None]:
        """Resolve a path; return the name it comes down to and the entry there, or None."""
        ...

    def children(self, folder: bytes) -> list[Child]:
        """Return all that is in a directory and not ignored, sorted by name."""
        ...

    def stream(self, taken: Sequence[Taken]) -> Iterator[Item]:
        """Yield the entries with their content: directories and links in place, an order of the source's choice."""
        ...


class FolderFiles:
    """A directory on disk, such as the build context; a context manager that holds it open.

    known: digests of its files, which are looked up and noted there.

    Files belong to 0:0 whoever owns them on disk. What `ignore` excludes is not there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ignore: IgnoreRules,
        times: Callable[[int], int],
        witness: Witness | None = None,
        known: FileDigests | None = None,
    ) -> None:
        self._folder = folder
        self._witness = witness
        self._ignore = ignore
        self._times = times
        self._known = known
        self._passed: dict[bytes, tuple[int, str]] = {}
        self._judged: dict[bytes, IgnoreMatch] = {b"": IgnoreMatch()}  # directories only

    def __enter__(self) -> FolderFiles:
        try:
            self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"build context {self._folder}: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def is_ignored(self, name: bytes) -> bool:
        """Say whether .dockerignore keeps a path out of the build."""
        return self._judge(name).excluded

    def _judge(self, name: bytes) -> IgnoreMatch:
        folder = name.rpartition(b"/")[0]
        above = self._judged.get(folder)
        if above is None:
            above = self._judged[folder] = self._judge(folder)
        return self._ignore.match(os.fsdecode(name), above)

    def lookup(self, path: bytes, *, follow: bool = True) -> tuple[bytes, Entry | None]:
        """Resolve a path inside the directory; see `Files`."""
        try:
            fd = open_in_root(self._fd, path, os.O_PATH if follow else _LOOK)
        except (FileNotFoundError, NotADirectoryError):
            if self._witness:
                self._witness.opaque()
            return path, None
        except OSError as error:
            raise StorageError(f"cannot read {display(path)} in {self._folder}: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            name = self._name_of(fd)
            linkname = os.readlink(b"", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
        finally:
            os.close(fd)
        if self._witness:
            self._tell(self._witness, path, name, status)
        if name != b"." and self.is_ignored(name):
            return name, None
        return name, self._entry(name, status, linkname)

    @staticmethod
    def _tell(witness: Witness, path: bytes, name: bytes, status: os.stat_result) -> None:
        """Tell of a path that was resolved; one that symlinks led elsewhere cannot be told by `stat`."""
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if (b"/".join(parts) or b".") != name:
            witness.opaque()
            return
        for depth in range(1, len(parts)):
            witness.passed(b"/".join(parts[:depth]))
        if stat.S_ISDIR(status.st_mode):
            witness.passed(name)
        else:
            witness.saw(name, status)

    def _name_of(self, fd: int) -> bytes:
        """Return where the kernel has resolved a path to, relative to this directory."""
        root = os.readlink(f"/proc/self/fd/{self._fd}".encode())
        found = os.readlink(f"/proc/self/fd/{fd}".encode())
        return b"." if found == root else found[len(root.rstrip(b"/")) + 1 :]

    def children(self, folder: bytes) -> list[Child]:
        """List a directory; see `Files`."""
        try:
            fd = open_beneath(self._fd, folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StorageError(f"cannot read {display(folder)} in {self._folder}: {error.strerror}") from error
        prefix = b"" if folder == b"." else folder + b"/"
        found: list[Child] = []
        try:
            if self._witness:
                self._witness.saw(folder, os.fstat(fd))
            with os.scandir(fd) as entries:
                listed = sorted((os.fsencode(entry.name), entry) for entry in entries)
            for base, item in listed:
                name = prefix + base
                excluded = False
                if self._ignore.rules:
                    judged = self._judge(name)
                    is_folder = item.is_dir(follow_symlinks=False)
                    if judged.excluded and (not is_folder or self._ignore.prunes(os.fsdecode(name), judged)):
                        continue
                    excluded = judged.excluded
                    if is_folder:
                        self._judged[name] = judged
                status = item.stat(follow_symlinks=False)
                linkname = os.readlink(base, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
                inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
                entry = self._entry(name, status, linkname)
                if entry is not None:
                    if self._witness and entry.kind not in ("file", "dir"):  # those are told of when they are read
                        self._witness.saw(name, status)
                    found.append(Child(base, entry, inode, excluded))
        finally:
            os.close(fd)
        return found

    def _entry(self, name: bytes, status: os.stat_result, linkname: bytes) -> Entry | None:
        kind = _KIND.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket
            return None
        size = status.st_size if kind == "file" else 0
        device = status.st_rdev if kind in ("char", "block") else 0
        mode = stat.S_IMODE(status.st_mode)
        mtime = self._times(status.st_mtime_ns)
        return Entry(name, kind, mode, 0, 0, size, mtime, linkname, os.major(device), os.minor(device))

    def stream(self, taken: Sequence[Taken]) -> Iterator[Item]:
        """Yield the entries in the order given; see `Files`."""
        for item in taken:
            entry = item.entry
            if entry.kind not in ("file", "dir"):
                yield entry, ()
                continue
            fd, status, entry = self._opened(item)
            if entry.kind == "dir":
                os.close(fd)
                yield entry, ()
            else:
                yield entry, self._noted(item.source, status, entry, fd)

    def _opened(self, item: Taken) -> tuple[int, os.stat_result, Entry]:
        """Open a file or directory; return its descriptor, its status, and the entry with attributes."""
        try:
            fd = open_beneath(self._fd, item.source, _READ)
        except OSError as error:
            raise StorageError(f"cannot read {display(item.source)} in {self._folder}: {error.strerror}") from error
        status = os.fstat(fd)
        if self._witness:
            self._witness.saw(item.source, status)
        entry = item.entry
        if entry.kind == "file" and stat.S_ISREG(status.st_mode):
            entry = entry._replace(size=status.st_size)  # it may have changed since it was looked up
        xattrs = read_xattrs(fd)
        return fd, status, entry._replace(xattrs=_portable(xattrs)) if xattrs else entry

    def _noted(self, name: bytes, status: os.stat_result, entry: Entry, fd: int) -> Iterator[bytes]:
        """Yield a file's content; when it has all passed, its digest is noted."""
        hasher = new_hasher()
        for chunk in file_content(fd, entry.size):
            hasher.update(chunk)
            yield chunk
        digest = hasher.hexdigest() + _attributes(entry)
        self._passed[name] = entry.size, digest
        if self._known:
            self._known.note(name, status, digest)

    def digests(self, taken: Sequence[Taken]) -> Iterator[tuple[Entry, str]]:
        """Yield the entries in the order given, with what tells their content and attributes.

        Of a file that `stream` has yielded that is what it was then. With `known`, a file whose
        status is as it was is not opened.
        """
        for item in taken:
            if item.entry.kind not in ("file", "dir"):
                yield item.entry, ""
                continue
            if item.source in self._passed:
                size, digest = self._passed[item.source]
                yield item.entry._replace(size=size), digest
                continue
            status = self._status(item.source) if self._known else None
            found = self._known.find(item.source, status) if self._known and status else None
            if found is None or status is None:
                found = self._digest(item)
            elif self._witness:
                self._witness.saw(item.source, status)
            yield item.entry, found

    def _status(self, name: bytes) -> os.stat_result | None:
        """Look again: to keep what was seen before would take a kilobyte a file."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:  # gone; the reading tells of it
            return None

    def _digest(self, item: Taken) -> str:
        fd, status, entry = self._opened(item)
        hasher = new_hasher()
        if entry.kind == "dir":
            os.close(fd)
        else:
            for chunk in file_content(fd, entry.size):
                hasher.update(chunk)
        digest = hasher.hexdigest() + _attributes(entry)
        if self._known:
            self._known.note(item.source, status, digest)
        return digest


def _attributes(entry: Entry) -> str:
    """Return what tells extended attributes; "" for none."""
    return f" {Digest.of(repr(sorted(entry.xattrs.items())).encode()).hex}" if entry.xattrs else ""


def _portable(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Keep what belongs in an image: the user's own attributes and file capabilities."""
    return {
        name: value for name, value in xattrs.items() if name.startswith(b"user.") or name == b"security.capability"
    }


class LayerFiles:
    """The merged root filesystem of layers, read straight from their tars."""

    def __init__(self, layers: Sequence[tuple[Opener, str]], load: Callable[[], Tree] | None = None) -> None:
        self.layers = layers
        self._load = load or (lambda: merge(layers))
        self._tree: Tree | None = None

    @property
    def tree(self) -> Tree:
        """The merged tree; the layers' headers are read when it is first asked for."""
        if self._tree is None:
            self._tree = self._load()
        return self._tree

    def lookup(self, path: bytes, *, follow: bool = True) -> tuple[bytes, Entry | None]:
        """Resolve a path; see `Files`."""
        return self.tree.lookup(path, follow=follow)

    def children(self, folder: bytes) -> list[Child]:
        """List a directory; see `Files`."""
        found: list[Child] = []
        prefix = b"" if folder == b"." else folder + b"/"
        for base in sorted(self.tree.children.get(folder, ())):
            name = prefix + base
            inode = self.tree.inodes.get(name)
            entry = inode.entry._replace(name=name) if inode else Entry(name, "dir", 0o755)
            found.append(Child(base, entry, inode if inode and len(inode.names) > 1 else None))
        return found

    def stream(self, taken: Sequence[Taken]) -> Iterator[Item]:
        """Yield what has no content first, in the order given, then files as the layers have them; see `Files`."""
        wanted: dict[int, dict[int, list[Entry]]] = {}
        for item in taken:
            inode = self.tree.inodes.get(item.source)
            if item.entry.kind == "file" and inode is not None:
                wanted.setdefault(inode.layer, {}).setdefault(inode.position, []).append(item.entry)
            elif item.entry.kind != "link":
                yield item.entry, ()
        for number, (open_layer, where) in enumerate(self.layers):
            positions = wanted.get(number)
            if positions:
                with open_layer() as chunks:
                    yield from _pick(read(chunks, where=where), positions)
        for item in taken:
            if item.entry.kind == "link":
                yield item.entry, ()

    def read(self, path: bytes, limit: int) -> bytes | None:
        """Return the content of a small regular file, or None when there is none.

        Raises InvalidArchive when it has more than `limit` bytes.
        """
        name, entry = self.lookup(path)
        if entry is None or entry.kind != "file":
            return None
        if entry.size > limit:
            raise InvalidArchive(f"{display(path)} in the image has {entry.size} bytes, more than the {limit} allowed")
        for _, content in self.stream([Taken(name, entry)]):
            return b"".join(content)
        return None


def _pick(items: Iterator[Item], positions: Mapping[int, list[Entry]]) -> Iterator[Item]:
    """Yield the entries at the wanted positions of one layer; one file wanted twice is held in memory once."""
    for position, (_, content) in enumerate(items):
        entries = positions.get(position)
        if not entries:
            continue
        if len(entries) == 1:
            yield entries[0], content
            continue
        data = list(content)
        for entry in entries:
            yield entry, data


class Trees:
    """The merged trees of stacks of layers, remembered: a step that continues a stack reads its new layers only.

    The last few are kept. For several threads, of which one reads at a time.
    """

    def __init__(self, store: Fetcher) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[tuple[Digest, ...], Tree] = {}

    def files(self, layers: Sequence[Layer]) -> LayerFiles:
        """Return the files of a stack; it is read when they are first asked for."""
        openers = [(opener(self._store, layer), f"layer {layer.descriptor.digest}") for layer in layers]
        stack = tuple(layer.diff_id for layer in layers)
        return LayerFiles(openers, lambda: self._tree(stack, openers))

    def _tree(self, stack: tuple[Digest, ...], openers: Sequence[tuple[Opener, str]]) -> Tree:
        with self._lock:
            return self._merged(stack, openers)

    def _merged(self, stack: tuple[Digest, ...], openers: Sequence[tuple[Opener, str]]) -> Tree:
        prefixes = [known for known in self._known if stack[: len(known)] == known]
        nearest = max(prefixes, key=len, default=())
        tree = self._known.pop(nearest, None)
        if tree is not None:
            self._known[nearest] = tree  # used last
        if tree is None or nearest != stack:
            tree = self._known[stack] = merge(openers, tree, count=len(nearest))
        for oldest in list(self._known)[:-_KEPT_TREES]:
            del self._known[oldest]
        return tree
