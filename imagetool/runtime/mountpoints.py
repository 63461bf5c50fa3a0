"""Mount points inside an untrusted root: found without leaving it, made when missing, taken away again.

A bind mount such as /etc/resolv.conf needs a file to be mounted on. One that is made for it
must not become part of the layer, nor may the directories above it that the overlay copied up,
nor their times. `Maker` works in the container's mount namespace, before anything of the image
runs, and notes what it did; `remove` works on the bare directory of changes when the
container is gone, and touches only what is exactly as it was left.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, Final

from imagetool.safefs.openat2 import open_beneath

_LINKS: Final = 40
#: Opening a path says so when the step has put something else in its place.
_REPLACED: Final = (errno.ELOOP, errno.ENOTDIR, errno.EXDEV, errno.ENOENT)
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY


def canonical(root: int, path: str) -> str:
    """Return where `path` leads inside the root: relative, "/"-separated, free of symlinks; "" is the root.

    What does not exist is named as it would be made. Raises OSError: ENOTDIR when something on the
    way is not a directory, ELOOP for too many links.
    """
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del done[-1:]
            continue
        status = _lstat(root, "/".join([*done, part]))
        if status is not None and stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = _readlink(root, "/".join([*done, part]))
            if target.startswith("/"):
                done.clear()
            waiting += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
            continue
        if status is not None and waiting and not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        done.append(part)
    return "/".join(done)


def _lstat(root: int, path: str) -> os.stat_result | None:
    try:
        fd = open_beneath(root, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _readlink(root: int, path: str) -> str:
    fd = open_beneath(root, os.fsencode(path), os.O_PATH | os.O_NOFOLLOW)
    try:
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


class Maker:
    """Makes mount points in a root and notes what the directory of changes has gained by it.

    Args:
        root: the container's root, mounted.
        changes: the directory where changes to it go: the overlay's upper directory or the root itself.
    """

    def __init__(self, root: int, changes: int) -> None:
        self._root = root
        self._changes = changes
        self._mounted: list[str] = []
        self._gained: dict[str, bool] = {}  # path -> whether a whiteout was there

    def mount(self, path: str, *, folder: bool, attach: Callable[[int], None] | None, mode: int | None = None) -> None:
        """Call `attach` with a descriptor of the mount point, which is made when missing; raises OSError.

        The descriptor comes from a path without symlinks, so nothing can lead it outside. `mode` is
        for a directory that is made, whatever the umask.
        """
        place = canonical(self._root, path)
        if not place:
            raise OSError(errno.EBUSY, "the root itself cannot be mounted over", path)
        if _lstat(self._root, place) is None:
            self._make(place, folder=folder)
            if mode is not None:
                self._set_mode(place, mode)
        target = open_beneath(self._root, os.fsencode(place), os.O_PATH | os.O_NOFOLLOW)
        try:
            if stat.S_ISDIR(os.fstat(target).st_mode) != folder:
                kind = "a directory" if folder else "a file"
                raise OSError(errno.ENOTDIR if folder else errno.EISDIR, f"the image has something else than {kind}")
            if attach is not None:
                attach(target)
        finally:
            os.close(target)
        self._mounted.append(place)

    def is_below_mount(self, place: str) -> bool:
        """Say whether a canonical path lies in something that was mounted before."""
        return any(place.startswith(f"{mounted}/") for mounted in self._mounted)

    def _make(self, place: str, *, folder: bool) -> None:
        inside = self.is_below_mount(place)
        parts = place.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if not inside:
                self._note(path)
            if _lstat(self._root, path) is not None:
                continue
            above = open_beneath(self._root, os.fsencode("/".join(parts[: depth - 1])), _FOLDER)
            try:
                _create(above, parts[depth - 1], folder=folder or depth < len(parts))
            finally:
                os.close(above)

    def _set_mode(self, place: str, mode: int) -> None:
        fd = open_beneath(self._root, os.fsencode(place), _FOLDER | os.O_NOFOLLOW)
        try:
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def _note(self, path: str) -> None:
        status = _lstat(self._changes, path)
        if status is None or _is_whiteout(status):
            self._gained.setdefault(path, status is not None)

    def gained(self) -> list[list[Any]]:
        """Return what `remove` needs: [path, was a whiteout, identity], a directory before what is in it."""
        found = [(path, whiteout, _lstat(self._changes, path)) for path, whiteout in self._gained.items()]
        return [[path, whiteout, _identity(status)] for path, whiteout, status in found if status is not None]


def _create(above: int, name: str, *, folder: bool) -> None:
    before = os.fstat(above)
    if folder:
        os.mkdir(name, 0o755, dir_fd=above)
    else:
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=above))
    os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _identity(status: os.stat_result) -> list[int]:
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return [status.st_ino, status.st_mode, status.st_uid, status.st_gid, *times]


def remove(changes: int, gained: Iterable[list[Any]]) -> None:
    """Take what `Maker.gained` lists out of the directory of changes again, as far as nothing touched it.

    Parents keep the modification time they have. Not for use while the container runs. Raises OSError.
    """
    untouched = []
    for path, whiteout, identity in gained:
        try:
            status = _lstat(changes, path)
        except OSError as error:
            if error.errno in _REPLACED:
                continue
            raise
        if status is not None and _identity(status) == identity:
            untouched.append((path, whiteout, stat.S_ISDIR(status.st_mode)))
    for path, whiteout, folder in reversed(untouched):
        above, _, name = path.rpartition("/")
        try:
            fd = open_beneath(changes, os.fsencode(above), _FOLDER)
        except OSError as error:
            if error.errno in _REPLACED:  # just now, by another container with the same root
                continue
            raise
        try:
            _take_away(fd, name, folder=folder, whiteout=whiteout)
        finally:
            os.close(fd)


def _take_away(above: int, name: str, *, folder: bool, whiteout: bool) -> None:
    before = os.fstat(above)
    try:
        if folder:
            os.rmdir(name, dir_fd=above)
        else:
            os.unlink(name, dir_fd=above)
    except OSError as error:
        # The step's own files are in it, or it is gone or of another kind now.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, *_REPLACED):
            return
        raise
    if whiteout:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=above)
    os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))
