"""Mount points that had to be made for a container are taken out of its layer again.

Source: what BuildKit does for /etc/resolv.conf, /proc and the like: they are mounted, never committed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from imagetool.runtime.rootfs import Overlay, Rootfs


class Stubs:
    """Around one container run: remembers what the upper directory lacks, and cleans it up after.

    A mount point, or a directory above one, that was neither in the upper directory nor in a lower
    one before is removed when it is still empty. One that only came up from a lower directory, because
    something was made in it, goes too when nothing of it differs from the lower one.
    """

    def __init__(self, root: Rootfs, destinations: Sequence[str]) -> None:
        self._overlay = root if isinstance(root, Overlay) else None
        paths = {
            os.path.join(*parts[:depth])
            for parts in (destination.strip("/").split("/") for destination in destinations)
            for depth in range(1, len(parts) + 1)
        }
        self._paths = sorted(paths, key=lambda path: path.count("/"), reverse=True)

    def __enter__(self) -> Stubs:
        if self._overlay is not None:
            upper = self._overlay.upper
            self._before = {path for path in self._paths if os.path.lexists(upper / path)}
            self._root_time = os.stat(upper).st_mtime_ns
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._overlay is None:
            return
        for path in self._paths:
            if path not in self._before:
                self._clean(self._overlay, path)

    def _clean(self, overlay: Overlay, path: str) -> None:
        found = overlay.upper / path
        if _through_symlink(overlay.upper, path):
            return
        try:
            status = os.lstat(found)
        except (FileNotFoundError, NotADirectoryError):
            return
        lower = _lower(overlay, path)
        if stat.S_ISREG(status.st_mode) and lower is None and status.st_size == 0:
            found.unlink()
        elif stat.S_ISDIR(status.st_mode) and not os.listdir(found) and (lower is None or _same(status, lower)):
            if not any("opaque" in name for name in os.listxattr(found)):
                found.rmdir()
        elif stat.S_ISDIR(status.st_mode) and lower is not None and _same(status, lower):
            os.utime(found, ns=(lower.st_mtime_ns, lower.st_mtime_ns))


def _lower(overlay: Overlay, path: str) -> os.stat_result | None:
    for folder in overlay.lowers:
        if _through_symlink(folder, path):
            return None
        try:
            status = os.lstat(folder / path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        hidden = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        return None if hidden else status
    return None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def _through_symlink(folder: Path, path: str) -> bool:
    parts = path.split("/")
    return any(os.path.islink(folder / "/".join(parts[:depth])) for depth in range(1, len(parts)))
