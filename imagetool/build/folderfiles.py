"""A directory on disk that COPY takes files from: the build context, most of all.

This is the hottest path of a build, so a file costs five system calls and a few objects that do not last: it is
opened once, by its name in its directory, and what `stat` says of it is asked then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isal.isal_zlib import crc32

from imagetool.build.files import Child, Taken, TakenFiles
from imagetool.build.unchanged import state_of
from imagetool.dockerfile.ignore import IgnoreMatch, IgnoreRules
from imagetool.errors import NotFound, StorageError
from imagetool.layer.acl import ACCESS, ATTRIBUTE_OF
from imagetool.layer.entry import Entry, Item, display
from imagetool.layer.scan import KIND_OF_TYPE, file_content, read_xattrs
from imagetool.limits import CHUNK, MIB
from imagetool.safefs.openat2 import open_beneath, open_in_root

if TYPE_CHECKING:
    from imagetool.build.filestates import FileStates, Fingerprint
    from imagetool.build.worker import Witness

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT: Final = (0, 0)
_ACCESS: Final = ATTRIBUTE_OF[ACCESS]
_PORTABLE: Final = frozenset({b"security.capability", *ATTRIBUTE_OF.values()})  # and all of user.*
#: How many bytes of changed files are read to find one whose content is new.
_LOOKED_INTO: Final = 64 * MIB


class FolderFiles:
    """A directory on disk, such as the build context; a context manager that holds it open.

    known: what its files were like in the last build; what they are like now is noted there.
    warn: told once of every socket.

    Files belong to 0:0 whoever owns them on disk. What `ignore` excludes is not there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ignore: IgnoreRules,
        times: Callable[[int], int],
        witness: Witness | None = None,
        known: FileStates | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = folder
        self._warn = warn
        self._warned: set[bytes] = set()
        self._witness = witness
        self._ignore = ignore
        self._times = times
        self.known = known
        self._changed: list[bytes] = []  # files, since the last build
        self._judged: dict[bytes, IgnoreMatch] = {b"": IgnoreMatch()}  # directories only

    def __enter__(self) -> FolderFiles:
        try:
            self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"build context {self._folder}: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def times_given(self) -> tuple[int, int]:
        """What entries get as the times 0 and 1: one time for all of them, or their own."""
        return self._times(0), self._times(1)

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
        if name != b"." and self.is_ignored(name) and not (stat.S_ISDIR(status.st_mode) and self._holds_kept(name)):
            return name, None
        return name, self._entry(name, status, linkname)

    def _holds_kept(self, folder: bytes) -> bool:
        """Say whether anything below a directory that is ignored is not: then it is there, for that."""
        waiting = [folder]
        while waiting:
            at = waiting.pop()
            if self._ignore.prunes(os.fsdecode(at), self._judge(at)):
                continue
            for child in self.children(at):
                if not child.excluded:
                    return True
                waiting.append(at + b"/" + child.base)
        return False

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
            witness.saw(name, state_of(status))

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
                self._witness.saw(folder, state_of(os.fstat(fd)))
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
            self._leave_out(name)
            return None
        if self._witness and entry.kind != "dir":  # those are told of when they are listed
            self._witness.saw(name, state_of(status))
        inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        return Child(base, entry.kind, entry, inode, excluded)

    def _leave_out(self, name: bytes) -> None:
        if self._warn and name not in self._warned:
            self._warned.add(name)
            self._warn(f"build context: {display(name)} is a socket, which no layer can hold; it is left out")

    def _entry(self, name: bytes, status: os.stat_result, linkname: bytes) -> Entry | None:
        kind = KIND_OF_TYPE.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket
            return None
        size = status.st_size if kind == "file" else 0
        device = status.st_rdev if kind in ("char", "block") else 0
        mode = stat.S_IMODE(status.st_mode)
        mtime = self._times(status.st_mtime_ns)
        return Entry(name, kind, mode, 0, 0, size, mtime, linkname, os.major(device), os.minor(device))

    def stream(self, taken: Sequence[Taken | TakenFiles], seen: Fingerprint | None = None) -> Iterator[Item]:
        """Yield the entries in the order given; see `Files`. `seen` learns of what `fingerprint` tells."""
        links: dict[object, bytes] = {}
        for item in taken:
            if isinstance(item, TakenFiles):
                yield from self._stream_files(item, links, seen)
            elif item.entry.kind in ("file", "dir"):
                yield self._stream_one(item, seen)
            else:
                if seen:
                    seen.entry(item.entry)
                yield item.entry, ()

    def fingerprint(self, taken: Sequence[Taken | TakenFiles], seen: Fingerprint) -> None:
        """Add to `seen` what tells all that these paths become; no file is opened."""
        for item in taken:
            if isinstance(item, TakenFiles):
                seen.files(item, self._states(item))
            elif item.entry.kind == "dir":
                self._stream_one(item, seen)
            else:
                seen.entry(item.entry)
                if item.entry.kind == "file":
                    seen.state(self._state(item.source, item.source, self._fd))

    def has_news(self) -> bool:
        """Say whether, for all that `fingerprint` has seen, there is content that the last build did not have.

        Only some of the files are looked into: False does not mean that there is none.
        """
        known = self.known
        if known is None or known.is_empty:
            return False
        left = _LOOKED_INTO
        for name in self._changed:
            before = known.crc(name)
            if before is None:
                return True
            entry = self.lookup(name, follow=False)[1]
            left -= entry.size if entry else 0
            if left < 0:
                return False
            if entry is not None and entry.kind == "file":
                crc = 0
                for _, content in self.stream([Taken(name, entry)]):
                    for chunk in content:
                        crc = crc32(chunk, crc)
                if crc != before:
                    return True
        return False

    def _states(self, files: TakenFiles) -> list[bytes]:
        with self._listed(files) as folder:
            names = zip(files.bases, files.names(), strict=True)
            return [self._state(source, base, folder) for base, (source, _) in names]

    def _state(self, source: bytes, base: bytes, folder: int) -> bytes:
        try:
            state = state_of(os.stat(base, dir_fd=folder, follow_symlinks=False))
        except OSError as error:
            raise self._unreadable(source, error) from error
        if self._witness:
            self._witness.saw(source, state)
        if self.known and not self.known.holds(source, state):
            self._changed.append(source)
        return state

    @contextmanager
    def _listed(self, files: TakenFiles) -> Iterator[int]:
        folder = self._opened(files.folder, _FOLDER)
        try:
            yield folder
        finally:
            os.close(folder)

    def _stream_files(self, files: TakenFiles, links: dict[object, bytes], seen: Fingerprint | None) -> Iterator[Item]:
        """Open files by their names in their directory, and yield them."""
        witness, states = self._witness, []
        with self._listed(files) as folder:
            for base, (source, name) in zip(files.bases, files.names(), strict=True):
                try:
                    fd = os.open(base, _READ, dir_fd=folder)
                except OSError as error:
                    raise self._unreadable(source, error) from error
                status = os.fstat(fd)
                state = state_of(status)
                states.append(state)
                if witness:
                    witness.saw(source, state)
                entry = self._file(files, name, status, links)
                if entry.kind == "file" and stat.S_ISREG(status.st_mode):
                    yield self._content(fd, source, state, entry)
                    continue
                os.close(fd)
                if entry.kind == "file":
                    raise StorageError(f"{display(source)} in {self._folder} changed while it was read; try again")
                yield entry, ()
        if seen:
            seen.files(files, states)

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

    def _stream_one(self, item: Taken, seen: Fingerprint | None) -> Item:
        """Open a file or directory that was taken by itself."""
        fd = self._opened(item.source, _READ)
        status = os.fstat(fd)
        state = state_of(status)
        if self._witness:
            self._witness.saw(item.source, state)
        if item.entry.kind == "dir":
            try:
                entry = _with_xattrs(item.entry, fd)
            except OSError as error:
                raise self._unreadable(item.source, error) from error
            finally:
                os.close(fd)
            if seen:
                seen.entry(item.entry, repr(sorted(entry.xattrs.items())).encode())
            return entry, ()
        if seen:
            seen.entry(item.entry)
            seen.state(state)
        entry = item.entry
        if stat.S_ISREG(status.st_mode):
            entry = entry._replace(size=status.st_size)  # it may have changed since it was looked up
        return self._content(fd, item.source, state, entry)

    def _content(self, fd: int, source: bytes, state: bytes, entry: Entry) -> Item:
        """Return an entry with its attributes, and its content, of which a CRC is noted; closes `fd`."""
        size = entry.size
        try:
            entry = _with_xattrs(entry, fd)
            if size > CHUNK:
                return entry, self._noted(file_content(os.dup(fd), size), source, state)
            data = os.read(fd, size + 1) if size else b""
        except OSError as error:
            raise self._unreadable(source, error) from error
        finally:
            os.close(fd)
        if self.known:
            self.known.note(source, state, crc32(data))
        return entry, (data,)

    def _noted(self, content: Iterable[bytes], source: bytes, state: bytes) -> Iterator[bytes]:
        crc = 0
        for chunk in content:
            crc = crc32(chunk, crc)
            yield chunk
        if self.known:
            self.known.note(source, state, crc)

    def _opened(self, name: bytes, flags: int) -> int:
        try:
            return open_beneath(self._fd, name, flags)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: bytes, error: OSError) -> StorageError:
        return StorageError(f"cannot read {display(name)} in {self._folder}: {error.strerror}")


def _with_xattrs(entry: Entry, fd: int) -> Entry:
    """Return an entry with those attributes of an open file that belong in an image, whoever's host it was made on.

    A list of who has access goes with the mode that it states, so there is none where `--chmod` states another.
    """
    xattrs = read_xattrs(fd)
    if not xattrs:
        return entry
    kept = {name: value for name, value in xattrs.items() if name in _PORTABLE or name.startswith(b"user.")}
    if _ACCESS in kept and stat.S_IMODE(os.fstat(fd).st_mode) != entry.mode:
        del kept[_ACCESS]
    return entry._replace(xattrs=kept)
