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
import itertools
import os
import secrets
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from imagetool.errors import HostError
from imagetool.runtime.ceilings import DEFAULT_PIDS
from imagetool.runtime.cgroup_settings import Setting, settings
from imagetool.values import dataclass, field

_PREFIX: Final = "imagetool-"
#: What needs each controller.
_OPTIONS: Final = {
    "memory": "--memory",
    "cpu": "--cpus and --cpu-shares",
    "cpuset": "--cpuset-cpus",
    "pids": "--pids-limit",
}
_CANNOT: Final = (
    "{what} cannot be put into force: {why}. It needs root, or a part of the control groups that was "
    "delegated: systemd-run --user --scope -p Delegate=yes imagetool …; inside a container, limit that one"
)
_PATIENCE: Final = 5.0  # seconds that killed processes get to leave a group


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One cgroup mount: version 1 with its controllers, or version 2; `folder` is this process's group there."""

    version: int
    controllers: frozenset[str]
    folder: str
    mount_point: str = field(default="", compare=False)


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
                version = 1 if controllers else 2
                found.setdefault(controllers, Hierarchy(version, controllers, folder, _unescaped(point)))
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

    Leftovers of dead builders are swept first. `name` is a path relative to the builder's own groups,
    or in version 2 to those above: there a group has processes or controlled groups below it, never both, except
    that at the top. Containers with limits of their own get a `Group` in the tree, all others share the one named
    "shared", which bounds the number of their processes. Of version 2 only those controllers are turned on that
    something needs, in all groups from the top on; they stay so, because others may use them by then.
    """

    def __init__(self, places: Iterable[Hierarchy] | None = None) -> None:
        self._places = places

    def __enter__(self) -> GroupTree:
        self.name = f"{_PREFIX}{secrets.token_hex(8)}"
        self.folders: list[str] = []
        self._locks: list[int] = []
        self._planted: list[tuple[Hierarchy, str]] = []
        self._by_controller: dict[str, tuple[int, str]] = {}
        for place in reachable() if self._places is None else self._places:
            for parent in _parents(place):
                sweep(parent)
                if self._plant(place, parent):
                    break
        self._numbers = itertools.count(1)
        self.shared = self._shared()
        return self

    def path(self, group: str, name: str) -> str:
        """Return `linux.cgroupsPath` for a runtime that makes a group of its own in one of ours.

        In version 1 it is relative to the caller's own groups, which differ from hierarchy to hierarchy.
        """
        if len(self._planted) == 1 and self._planted[0][0].version == 2:
            place, folder = self._planted[0]
            return f"{folder.removeprefix(place.mount_point)}/{group}/{name}"
        return f"{self.name}/{group}/{name}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in self.folders:
            remove_group(folder)
        while self._locks:
            os.close(self._locks.pop())

    def _plant(self, place: Hierarchy, parent: str) -> bool:
        """Make the tree's directory in a hierarchy; False when that is not allowed or the parent is in use."""
        if place.version == 2 and _has_processes(parent):
            return False
        folder = f"{parent}/{self.name}"
        lock = _make_locked(folder)
        if lock is None:
            return False
        self._locks.append(lock)
        self.folders.append(folder)
        self._planted.append((place, folder))
        for controller in place.controllers:
            self._by_controller.setdefault(controller, (place.version, folder))
        if "cpuset" in place.controllers:
            _inherit_cpuset(folder)
        return True

    def _shared(self) -> tuple[str, ...]:
        with contextlib.suppress(OSError, HostError):
            made = self._group("shared", {"pids": {"limit": DEFAULT_PIDS}}, known=("pids",))
            return made.folders
        return ()

    def group(self, resources: Mapping[str, Any]) -> Group:
        """Make a group with the limits of `linux.resources`. Raises HostError where one cannot be set."""
        return self._group(str(next(self._numbers)), resources, known=("memory", "pids"))

    def _group(self, name: str, resources: Mapping[str, Any], *, known: tuple[str, ...]) -> Group:
        controllers = {setting.controller for setting in settings(resources, 2)}
        folders = {}
        for controller in (*sorted(controllers), *known):
            found = self._controlled(controller)
            if found is not None:
                folders[controller] = (found[0], f"{found[1]}/{name}")
            elif controller in controllers:
                raise HostError(_CANNOT.format(what=_OPTIONS[controller], why=f"no control group for {controller}"))
        group = Group(name, folders)
        try:
            group.make()
            for controller in controllers:
                group.set(resources, controller)
        except BaseException:
            group.close()
            raise
        return group

    def _controlled(self, controller: str) -> tuple[int, str] | None:
        """Return the version and the directory in which groups have a controller; None where none have it."""
        if controller not in self._by_controller and controller in _OPTIONS:
            for place, folder in self._planted:
                if place.version == 2 and all(_turn_on(above, controller) for above in _down_to(folder, place)):
                    self._by_controller[controller] = (2, folder)
        return self._by_controller.get(controller)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a group saw: the most bytes of memory and processes (0: not known), kills and refused forks.

    Version 1 counts kills and refusals only in the very group of the process, peaks in those above too.
    """

    peak_memory: int = 0
    peak_processes: int = 0
    killed: int = 0
    refused: int = 0


class Group:
    """Owns the directories of one container's control group; `close` kills what is in them and removes them."""

    def __init__(self, name: str, folders: Mapping[str, tuple[int, str]]) -> None:
        self.name = name
        self._by_controller = folders

    @property
    def folders(self) -> tuple[str, ...]:
        """The directories, one a hierarchy; a process joins by writing 0 to `cgroup.procs` in each."""
        return tuple(dict.fromkeys(folder for _, folder in self._by_controller.values()))

    def make(self) -> None:
        """Make the directories. Raises OSError."""
        for folder in self.folders:
            os.mkdir(folder)
        if "cpuset" in self._by_controller and self._by_controller["cpuset"][0] == 1:
            _inherit_cpuset(self._by_controller["cpuset"][1])

    def set(self, resources: Mapping[str, Any], controller: str) -> None:
        """Set the limits of one controller. Raises HostError."""
        version, folder = self._by_controller[controller]
        for setting in settings(resources, version):
            if setting.controller != controller:
                continue
            try:
                _write(f"{folder}/{setting.file}", setting.value)
            except FileNotFoundError as error:
                if not setting.optional:
                    raise self._refusal(controller, setting, error) from None
            except OSError as error:
                raise self._refusal(controller, setting, error) from None

    def _refusal(self, controller: str, setting: Setting, error: OSError) -> HostError:
        why = f"{setting.file} does not take {setting.value}: {error.strerror}"
        return HostError(_CANNOT.format(what=_OPTIONS[controller], why=why))

    def outcome(self) -> Outcome:
        """Return what the group has seen so far."""
        version, memory = self._by_controller.get("memory", (2, ""))
        _, pids = self._by_controller.get("pids", (2, ""))
        peak = _read(f"{memory}/{'memory.max_usage_in_bytes' if version == 1 else 'memory.peak'}")
        kills = _read(f"{memory}/{'memory.oom_control' if version == 1 else 'memory.events'}")
        return Outcome(
            _number(peak),
            _number(_read(f"{pids}/pids.peak")),
            _counted(kills, "oom_kill"),
            _counted(_read(f"{pids}/pids.events"), "max"),
        )

    def close(self) -> None:
        """Kill what is left and remove the group."""
        for folder in self.folders:
            remove_group(folder)


def _number(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0


def _counted(text: str, key: str) -> int:
    rows = (line.split() for line in text.splitlines())
    return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == key and row[1].isdecimal()), 0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # not on this kernel, or not in this hierarchy
        return ""


def _has_processes(folder: str) -> bool:
    """Say whether a version 2 group has processes, and so can have no controlled groups below; the topmost can.

    The kernel refuses that for some controllers only: others, pids among them, make it one of threads, in which
    nobody can put processes into the groups below.
    """
    return bool(_read(f"{folder}/cgroup.type") and _read(f"{folder}/cgroup.procs"))


def _turn_on(folder: str, controller: str) -> bool:
    """Have the groups below a version 2 group controlled; say whether they are."""
    file = f"{folder}/cgroup.subtree_control"
    if controller not in _read(file).split() and not _has_processes(folder):
        with contextlib.suppress(OSError):  # not there, not ours, or in use since
            _write(file, f"+{controller}")
    return controller in _read(file).split()


def _down_to(folder: str, place: Hierarchy) -> Iterator[str]:
    """Yield the groups from the topmost that can be seen to `folder`."""
    if folder != place.mount_point and place.mount_point:
        yield from _down_to(os.path.dirname(folder), place)
    yield folder


def _inherit_cpuset(folder: str) -> None:
    """Give a version 1 cpuset what its parent has: an empty one takes no processes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(OSError):
            _write(f"{folder}/{name}", Path(os.path.dirname(folder), name).read_text())


def _parents(place: Hierarchy) -> Iterator[str]:
    """Yield where a tree may be: in this process's group, in version 2 also in the one above."""
    yield place.folder
    above = os.path.dirname(place.folder)
    if place.version == 2 and place.mount_point and f"{above}/".startswith(f"{place.mount_point}/"):
        yield above


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
