"""An untrusted root filesystem that can be changed without ever touching anything outside it.

This is the only code that creates, removes or changes files below a root whose contents come
from a layer. A path's parent is resolved inside the root; the last component is never
followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from imagetool.safefs.holes import write_with_holes
from imagetool.safefs.openat2 import open_beneath, open_in_root

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WAY: Final = 16  # directories held open
_Make = Callable[[int, bytes], None]
_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ITSELF: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Root:
    """A directory as the root of all paths; a context manager that holds it open.

    Paths are bytes, relative, without ".." (as `layer.entry.Entry.name`). Methods raise OSError.
    Not for several threads at once: it remembers the last parent directory, and those above it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parent = -1
        self._parent_name: bytes | None = None
        self._way: list[tuple[bytes, int]] = []  # open directories, each below the one before it; the parent is last

    def __enter__(self) -> Root:
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        os.close(self._fd)

    def fileno(self) -> int:
        """Return the root directory's descriptor."""
        return self._fd

    def parent(self, name: bytes) -> tuple[int, bytes]:
        """Return a descriptor of the directory that holds `name`, and its last component.

        Missing parents are made, mode 0755. The descriptor is valid until the next call.
        """
        try:
            return self.find(name)
        except FileNotFoundError:
            folder, _, base = name.rpartition(b"/")
            self._remember(folder, self._make_folders(folder))
            return self._parent, base

    def find(self, name: bytes) -> tuple[int, bytes]:
        """Return the same without making anything; raises FileNotFoundError for a missing parent."""
        folder, _, base = name.rpartition(b"/")
        if folder != self._parent_name:
            self._enter(folder)
        return self._parent, base

    def _enter(self, folder: bytes) -> None:
        """Open a directory, in one step from the one above it where that is open."""
        way = self._way
        self._parent, self._parent_name = -1, None
        while way and way[-1][0] and way[-1][0] != folder and not folder.startswith(way[-1][0] + b"/"):
            os.close(way.pop()[1])
        if way and way[-1][0] == folder:
            self._parent, self._parent_name = way[-1][1], folder
            return
        above, _, base = folder.rpartition(b"/")
        if base and way and way[-1][0] == above:
            # a symlink, and whatever else is the matter, is for the kernel to resolve inside the root
            with contextlib.suppress(OSError):
                self._remember(folder, os.open(base, _PLACE, dir_fd=way[-1][1]))
                return
        self._remember(folder, open_in_root(self._fd, folder, os.O_PATH | os.O_DIRECTORY))

    def _remember(self, folder: bytes, fd: int) -> None:
        if len(self._way) == _WAY:
            os.close(self._way.pop(0)[1])
        self._way.append((folder, fd))
        self._parent, self._parent_name = fd, folder

    def _forget(self) -> None:
        while self._way:
            os.close(self._way.pop()[1])
        self._parent, self._parent_name = -1, None

    def _make_folders(self, path: bytes) -> int:
        missing: list[bytes] = []
        fd = -1
        while fd < 0:
            path, _, base = path.rpartition(b"/")
            missing.append(base)
            with contextlib.suppress(FileNotFoundError):
                fd = open_in_root(self._fd, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            while missing:
                base = missing.pop()
                os.mkdir(base, 0o755, dir_fd=fd)  # a dangling symlink ends here: FileExistsError
                made = os.open(base, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = made
                os.fchmod(fd, 0o755)  # whatever the umask
        except OSError:
            os.close(fd)
            raise
        return fd

    def lstat(self, name: bytes) -> os.stat_result | None:
        """Return what is at a path, or None."""
        try:
            folder, base = self.find(name)
            return os.stat(base or b".", dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_plain(self, folder: bytes) -> bool | None:
        """Say whether a path is a directory that no symlink leads to; None when nothing is there."""
        try:
            os.close(open_beneath(self._fd, folder, os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                return False
            raise
        return True

    def remove(self, name: bytes) -> None:
        """Remove whatever is at a path, a directory with all that is in it; nothing there is fine."""
        try:
            folder, base = self.find(name)
            os.unlink(base, dir_fd=folder)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            remove_tree(folder, base)
        self._forget()

    def make_folder(self, name: bytes) -> bool:
        """Make a directory where none is; whatever else is there is replaced. Say whether it was made (0700)."""
        folder, base = self.parent(name)
        try:
            os.mkdir(base, 0o700, dir_fd=folder)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode):
                return False
            self.remove(name)
            folder, base = self.parent(name)
            os.mkdir(base, 0o700, dir_fd=folder)
        return True

    def write_file(self, name: bytes, content: Iterable[bytes], mode: int = 0o600) -> int:
        """Make a regular file in place of whatever is there; return a descriptor of it. Close it.

        Long runs of zeros become holes: they read the same and take no space. Of the mode the
        umask is taken away.
        """
        fd = self._new_file(name, mode)
        try:
            write_with_holes(fd, content)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def write_whole(self, name: bytes, content: bytes, mode: int, mtime: int) -> None:
        """Make a regular file of which the kernel sets all right but the time; nanoseconds. No holes."""
        folder, _, base = name.rpartition(b"/")
        try:
            # What `_new_file` does, without the calls: most of a layer is such files.
            at = self._parent if folder == self._parent_name else self.parent(name)[0]
            fd = os.open(base, _NEW_FILE, mode, dir_fd=at)
        except FileExistsError:
            fd = self._new_file(name, mode)
        try:
            if content and (written := os.write(fd, content)) < len(content):
                write_with_holes(fd, (content[written:],))
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)

    def _new_file(self, name: bytes, mode: int) -> int:
        folder, _, base = name.rpartition(b"/")
        try:
            at = self._parent if folder == self._parent_name else self.parent(name)[0]
            return os.open(base, _NEW_FILE, mode, dir_fd=at)
        except FileExistsError:
            self.remove(name)
            return os.open(base, _NEW_FILE, mode, dir_fd=self.parent(name)[0])

    def symlink(self, name: bytes, target: bytes) -> bool:
        """Make a symlink in place of whatever is there; say whether anything was."""
        return self._replacing(name, lambda folder, base: os.symlink(target, base, dir_fd=folder))

    def device(self, name: bytes, mode: int, device: int) -> None:
        """Make a device node or FIFO (by the type bits of `mode`) in place of whatever is there."""
        self._replacing(name, lambda folder, base: os.mknod(base, mode, device, dir_fd=folder))

    def link(self, name: bytes, target: bytes) -> None:
        """Make a hard link to another path of the root, which is not followed when it is a symlink.

        Raises FileNotFoundError when there is no such file.
        """
        above, _, last = target.rpartition(b"/")
        source = open_in_root(self._fd, above, os.O_PATH | os.O_DIRECTORY)
        try:
            if target == name:
                return
            self._replacing(
                name,
                lambda folder, base: os.link(last, base, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False),
            )
        finally:
            os.close(source)

    def _replacing(self, name: bytes, make: _Make) -> bool:
        folder, base = self.parent(name)
        try:
            make(folder, base)
        except FileExistsError:
            self.remove(name)
            folder, base = self.parent(name)
            make(folder, base)
            return True
        return False

    def open(self, name: bytes) -> int:
        """Open a file or directory itself, never through a symlink."""
        folder, base = self.find(name)
        return os.open(base or b".", _ITSELF, dir_fd=folder)

    def set_times(self, name: bytes, mtime: int) -> None:
        """Set access and modification time of what is at a path, not of what it points at."""
        folder, base = self.find(name)
        os.utime(base or b".", ns=(mtime, mtime), dir_fd=folder, follow_symlinks=False)

    def set_owner(self, name: bytes, uid: int, gid: int) -> None:
        """Set the owner of what is at a path, not of what it points at."""
        folder, base = self.find(name)
        os.chown(base, uid, gid, dir_fd=folder, follow_symlinks=False)

    def set_node_mode(self, name: bytes, mode: int) -> None:
        """Set the mode of a device or FIFO that was just made, without opening it."""
        folder, base = self.find(name)
        fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    def set_node_xattr(self, name: bytes, attribute: bytes, value: bytes) -> None:
        """Set an extended attribute of what is at a path, not of what it points at, without opening it."""
        folder, base = self.find(name)
        os.setxattr(b"/proc/self/fd/%d/%b" % (folder, base), attribute, value, follow_symlinks=False)


def remove_tree(folder: int, name: bytes) -> None:
    """Remove a directory and all below it, by descriptors, never following a link.

    However deep it is, one descriptor is open: the way back up is "..", which must be the
    directory that was come from. Directories their owner may not change are made changeable.
    """
    at = os.dup(folder)
    waiting = [[name]]
    way = [_identity(at)]
    try:
        while waiting:
            names = waiting[-1]
            if not names:
                waiting.pop()
                way.pop()
                if waiting:
                    at = _ascend(at, way[-1])
                continue
            try:
                os.rmdir(names[-1], dir_fd=at)
            except FileNotFoundError:
                pass
            except NotADirectoryError:
                os.unlink(names[-1], dir_fd=at)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                at = _descend(at, names[-1])
                way.append(_identity(at))
                waiting.append(list(_empty(at)))
                continue
            names.pop()
    finally:
        os.close(at)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _ascend(at: int, expected: tuple[int, int]) -> int:
    """Return the directory above in place of `at`, which is closed; raises OSError when it is another one."""
    above = os.open(b"..", _FOLDER, dir_fd=at)
    if _identity(above) != expected:
        os.close(above)
        raise OSError(errno.ESTALE, "a directory was moved while it was removed")
    os.close(at)
    return above


def _descend(at: int, name: bytes) -> int:
    """Return the directory `name`, made changeable, in place of `at`, which is closed."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=at)
    except PermissionError:
        path = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
        try:
            os.chmod(f"/proc/self/fd/{path}", 0o700)
        finally:
            os.close(path)
        fd = os.open(name, _FOLDER, dir_fd=at)
    try:
        if os.fstat(fd).st_mode & 0o300 != 0o300:
            os.fchmod(fd, 0o700)
    except OSError:
        os.close(fd)
        raise
    os.close(at)
    return fd


def _empty(fd: int) -> Iterator[bytes]:
    """Unlink everything but directories; yield those."""
    for child in os.listdir(fd):
        raw = os.fsencode(child)
        try:
            os.unlink(raw, dir_fd=fd)
        except (IsADirectoryError, PermissionError):
            yield raw
