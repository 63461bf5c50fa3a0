"""Control groups: where this process is in each hierarchy, a tree of our own below, what dead builders left.

A tree is a directory `imagetool-…` in every hierarchy, beside the builder's own processes. Its maker
holds a lock on it, which the kernel drops when the maker dies, however it does; a tree without
a lock is a leftover, and the next builder sweeps it away.

Source: cgroups(7); Linux Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst; flock(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

_PREFIX: Final = "imagetool-"
_PATIENCE: Final = 5.0  # seconds that killed processes get to leave a group


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One cgroup mount: version 1 with its controllers, or version 2; `folder` is this process's group there."""

    version: int
    controllers: frozenset[str]
    folder: str


def hierarchies(groups: str, mounts: str) -> tuple[Hierarchy, ...]:
    """Return the hierarchies that this process can reach, in the order of their mounts.

    Args:
        groups: the text of /proc/self/cgroup.
        mounts: the text of /proc/self/mountinfo.
    """
    own = {}
    for line in groups.splitlines():
        _, names, path = line.split(":", 2)
        own[frozenset(names.removeprefix("name=").split(",")) - {""}] = path
    found: dict[frozenset[str], Hierarchy] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        _, _, _, root, point, *_ = before.split(" ")
        having = {option.removeprefix("name=") for option in options.split(",")}
        for controllers, path in own.items():
            mounted = kind == "cgroup2" if not controllers else kind == "cgroup" and controllers <= having
            if mounted and (folder := _below(_unescaped(point), _unescaped(root), path)):
                found.setdefault(controllers, Hierarchy(1 if controllers else 2, controllers, folder))
    return tuple(found.values())


def _unescaped(field: str) -> str:
    return field.encode("latin-1", "replace").decode("unicode_escape") if "\\" in field else field


def _below(point: str, root: str, path: str) -> str:
    """Return where `path` of a hierarchy is when its group `root` is mounted on `point`; "" for nowhere."""
    if root == "/":
        root = ""
    inside = path == root or path.startswith(f"{root}/")
    return (point + path[len(root) :]).rstrip("/") if inside and "/.." not in path else ""


def reachable() -> tuple[Hierarchy, ...]:
    """Return the hierarchies of this process. An unusual /proc has none."""
    try:
        return hierarchies(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except (OSError, ValueError):
        return ()


class GroupTree:
    """Owns a directory of one name in every hierarchy where this process may make one; a context manager.

    Leftovers of dead builders are swept first. `name` is a path relative to the builder's own groups.
    """

    def __init__(self, places: Iterable[Hierarchy] | None = None) -> None:
        self._places = places

    def __enter__(self) -> GroupTree:
        self.name = f"{_PREFIX}{secrets.token_hex(8)}"
        self._locks: list[int] = []
        self.folders: dict[Hierarchy, str] = {}
        for place in reachable() if self._places is None else self._places:
            sweep(place.folder)
            folder = f"{place.folder}/{self.name}"
            if (lock := _make_locked(folder)) is not None:
                self._locks.append(lock)
                self.folders[place] = folder
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in self.folders.values():
            remove_group(folder)
        while self._locks:
            os.close(self._locks.pop())


def _make_locked(folder: str) -> int | None:
    """Make a directory and return a lock on it; None where that is not allowed."""
    while True:
        try:
            os.mkdir(folder)
        except OSError:
            return None
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # a sweeper came before the lock
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(folder):
            return lock
        os.close(lock)


def sweep(parent: str) -> None:
    """Remove the trees of dead builders: those below `parent` that nobody has a lock on."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(_PREFIX)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):  # held by a living builder, gone meanwhile, or another user's
            lock = os.open(f"{parent}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_group(f"{parent}/{name}")
            finally:
                os.close(lock)


def remove_group(folder: str) -> None:
    """Kill what is in a group and below it, and remove it; what does not die in time keeps its group."""
    end = time.monotonic() + _PATIENCE
    for below in _deepest_first(folder):
        while True:
            kill_group(below)
            try:
                os.rmdir(below)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > end:
                    return
                time.sleep(0.002)
            else:
                break


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _deepest_first(folder: str) -> Iterator[str]:
    for path, _, _ in os.walk(folder, topdown=False):
        yield path


def kill_group(folder: str) -> None:
    """Send SIGKILL to every process of one group, in version 2 also to those of the groups below."""
    with contextlib.suppress(OSError):
        _write(f"{folder}/cgroup.kill", "1")
        return
    with contextlib.suppress(OSError):
        for line in Path(folder, "cgroup.procs").read_text().split():
            if int(line) > 1:  # 0 is a process of another PID namespace
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)
