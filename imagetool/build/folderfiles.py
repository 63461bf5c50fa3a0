"""A directory on disk that COPY takes files from: the build context, most of all.

This is the hottest path of a build, so a file costs five system calls and a few objects that do not last: it is
opened once, by its name in its directory, and what `stat` says of it is asked then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2s, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagetool.build.files import Child, Taken, TakenFiles
from imagetool.dockerfile.ignore import IgnoreMatch, IgnoreRules
from imagetool.errors import NotFound, StorageError
from imagetool.layer.entry import Entry, Item, display
from imagetool.layer.scan import KIND_OF_TYPE, file_content, read_xattrs
from imagetool.limits import CHUNK
from imagetool.safefs.openat2 import open_beneath, open_in_root

if TYPE_CHECKING:
    from imagetool.build.filedigests import FileDigests
    from imagetool.build.worker import Witness

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT: Final = (0, 0)


Told = tuple[Entry, Iterable[bytes], Callable[[], bytes]]
"""An entry, its content, and what returns its token once the content has been read to its end."""


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
        fd = self._opened(folder, _FOLDER)
        try:
            if self._witness:
                self._witness.saw(folder, os.fstat(fd))
            with os.scandir(fd) as entries:
                listed = sorted((os.fsencode(entry.name), entry) for entry in entries)
            prefix = b"" if folder == b"." else folder + b"/"
            return [child for base, item in listed if (child := self._child(fd, prefix + base, base, item)) is not None]
        except OSError as error:
            raise self._unreadable(folder, error) from error
        finally:
            os.close(fd)

    def _child(self, folder: int, name: bytes, base: bytes, item: os.DirEntry[str]) -> Child | None:
        """Return what COPY needs to know of a path by now; None for what is ignored, and for sockets."""
        excluded = False
        if self._ignore.rules:
            judged = self._judge(name)
            is_folder = item.is_dir(follow_symlinks=False)
            if judged.excluded and (not is_folder or self._ignore.prunes(os.fsdecode(name), judged)):
                return None
            excluded = judged.excluded
            if is_folder:
                self._judged[name] = judged
        if item.is_file(follow_symlinks=False):
            return Child(base, "file")
        status = item.stat(follow_symlinks=False)
        linkname = os.readlink(base, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else b""
        entry = self._entry(name, status, linkname)
        if entry is None:
            return None
        if self._witness and entry.kind != "dir":  # those are told of when they are listed
            self._witness.saw(name, status)
        inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        return Child(base, entry.kind, entry, inode, excluded)

    def _entry(self, name: bytes, status: os.stat_result, linkname: bytes) -> Entry | None:
        kind = KIND_OF_TYPE.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket
            return None
        size = status.st_size if kind == "file" else 0
        device = status.st_rdev if kind in ("char", "block") else 0
        mode = stat.S_IMODE(status.st_mode)
        mtime = self._times(status.st_mtime_ns)
        return Entry(name, kind, mode, 0, 0, size, mtime, linkname, os.major(device), os.minor(device))

    def stream(self, taken: Sequence[Taken | TakenFiles]) -> Iterator[Item]:
        """Yield the entries in the order given; see `Files`."""
        return ((entry, content) for entry, content, _ in self.told(taken))

    def told(self, taken: Sequence[Taken | TakenFiles]) -> Iterator[Told]:
        """Yield the entries in the order given, with their content and what tells their tokens; see `digests`."""
        links: dict[object, bytes] = {}
        for item in taken:
            if isinstance(item, TakenFiles):
                with self._listed(item) as folder:
                    for base, (source, name) in zip(item.bases, item.names(), strict=True):
                        yield self._read(folder, base, source, name, item, links)
            elif item.entry.kind in ("file", "dir"):
                yield self._told(item)
            else:
                yield item.entry, (), bytes

    def digests(self, taken: Sequence[Taken | TakenFiles]) -> Iterator[tuple[Entry, bytes]]:
        """Yield the entries in the order given, with a token: equal when content and attributes are.

        It has 32 bytes, or none for what has neither. With `known`, a file whose status is as it
        was is not opened.
        """
        links: dict[object, bytes] = {}
        for item in taken:
            if isinstance(item, TakenFiles):
                with self._listed(item) as folder:
                    for base, (source, name) in zip(item.bases, item.names(), strict=True):
                        status = self._status(base, folder)
                        token = self._find(source, status)
                        if token is None or status is None:
                            yield _read_through(self._read(folder, base, source, name, item, links))
                        else:
                            yield self._file(item, name, status, links), token
            elif item.entry.kind in ("file", "dir"):
                status = self._status(item.source, self._fd)
                token = self._find(item.source, status)
                yield _read_through(self._told(item)) if token is None else (item.entry, token)
            else:
                yield item.entry, b""

    @contextmanager
    def _listed(self, files: TakenFiles) -> Iterator[int]:
        folder = self._opened(files.folder, _FOLDER)
        try:
            yield folder
        finally:
            os.close(folder)

    def _status(self, name: bytes, folder: int) -> os.stat_result | None:
        """Look again: to keep what was seen before would take a kilobyte a file."""
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False) if self._known else None
        except OSError:  # gone; the reading tells of it
            return None

    def _find(self, source: bytes, status: os.stat_result | None) -> bytes | None:
        found = self._known.find(source, status) if self._known and status else None
        if found is not None and status is not None and self._witness:
            self._witness.saw(source, status)
        return found

    def _read(
        self, folder: int, base: bytes, source: bytes, name: bytes, files: TakenFiles, links: dict[object, bytes]
    ) -> Told:
        """Open a file by its name in its directory."""
        try:
            fd = os.open(base, _READ, dir_fd=folder)
        except OSError as error:
            raise self._unreadable(source, error) from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise StorageError(f"{display(source)} in {self._folder} changed while it was read; try again")
        if self._witness:
            self._witness.saw(source, status)
        entry = self._file(files, name, status, links)
        if entry.kind == "link":
            os.close(fd)
            return entry, (), bytes
        return self._content(fd, source, status, entry)

    def _file(self, files: TakenFiles, name: bytes, status: os.stat_result, links: dict[object, bytes]) -> Entry:
        """Return a regular file's entry: a hard link for every name of a file but the first."""
        mode = stat.S_IMODE(status.st_mode)
        if files.chmod:
            mode = files.chmod.apply(mode, is_folder=False)
        uid, gid = files.owner or _ROOT
        mtime = self._times(status.st_mtime_ns)
        if status.st_nlink > 1:
            first = links.setdefault((files.tree, status.st_dev, status.st_ino), name)
            if first != name:
                return Entry(name, "link", mode, uid, gid, 0, mtime, first)
        return Entry(name, "file", mode, uid, gid, status.st_size, mtime)

    def _told(self, item: Taken) -> Told:
        """Open a file or directory that was taken by itself."""
        fd = self._opened(item.source, _READ)
        status = os.fstat(fd)
        if self._witness:
            self._witness.saw(item.source, status)
        entry = item.entry
        if entry.kind == "file" and stat.S_ISREG(status.st_mode):
            entry = entry._replace(size=status.st_size)  # it may have changed since it was looked up
        return self._content(fd, item.source, status, entry)

    def _content(self, fd: int, source: bytes, status: os.stat_result, entry: Entry) -> Told:
        """Return an entry with its attributes, and its content, which is noted when it has been read; closes `fd`."""
        known, size = self._known, entry.size
        try:
            xattrs = _portable(read_xattrs(fd))
            if xattrs:
                entry = entry._replace(xattrs=xattrs)
            if size > CHUNK:
                return self._large(os.dup(fd), source, status, entry)
            data = os.read(fd, size + 1) if size else b""
        except OSError as error:
            raise self._unreadable(source, error) from error
        finally:
            os.close(fd)
        token = sha256(data).digest()
        if xattrs:
            token = _with_attributes(token, xattrs)
        if known:
            known.note(source, status, token)
        return entry, (data,) if entry.kind == "file" else (), lambda: token

    def _large(self, fd: int, source: bytes, status: os.stat_result, entry: Entry) -> Told:
        hasher = sha256()
        content = file_content(fd, entry.size)

        def token() -> bytes:
            return _with_attributes(hasher.digest(), entry.xattrs) if entry.xattrs else hasher.digest()

        def noted() -> Iterator[bytes]:
            for chunk in content:
                hasher.update(chunk)
                yield chunk
            if self._known:
                self._known.note(source, status, token())

        return entry, noted(), token

    def _opened(self, name: bytes, flags: int) -> int:
        try:
            return open_beneath(self._fd, name, flags)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: bytes, error: OSError) -> StorageError:
        return StorageError(f"cannot read {display(name)} in {self._folder}: {error.strerror}")


def _read_through(told: Told) -> tuple[Entry, bytes]:
    entry, content, token = told
    for _ in content:
        pass
    return entry, token()


def _with_attributes(token: bytes, xattrs: Mapping[bytes, bytes]) -> bytes:
    """Return the token of a file with attributes: of another hash, so that no content can pass for both."""
    return blake2s(token + repr(sorted(xattrs.items())).encode()).digest()


def _portable(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Keep what belongs in an image: the user's own attributes and file capabilities."""
    return {
        name: value for name, value in xattrs.items() if name.startswith(b"user.") or name == b"security.capability"
    }
