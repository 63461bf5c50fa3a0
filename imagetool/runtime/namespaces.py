"""Become root of a user namespace, so that an ordinary user can build.

Source: user_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal, NoReturn

from imagetool.errors import HostError
from imagetool.runtime import syscalls
from imagetool.runtime.capabilities import holds
from imagetool.values import dataclass

_TOOLS: Final = ("newuidmap", "newgidmap")
_ALL_IDS: Final = 2**32 - 1
#: Settings that forbid user namespaces to ordinary users, with the value that does.
_SWITCHES: Final = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


@dataclass(frozen=True, slots=True)
class IdRange:
    """`count` subordinate ids from `first` on."""

    first: int
    count: int


def subordinate_ids(text: str, name: str, uid: int) -> tuple[IdRange, ...]:
    """Return the ranges that a subuid or subgid file gives a user, by name or number, in the file's order."""
    found = []
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if owner in (name, str(uid)) and first.isdecimal() and count.isdecimal() and int(count):
            found.append(IdRange(int(first), int(count)))
    return tuple(found)


def map_arguments(own: int, ranges: tuple[IdRange, ...]) -> list[str]:
    """Return what newuidmap is told: `own` is 0 inside, the ranges follow from 1 on."""
    arguments = ["0", str(own), "1"]
    inside = 1
    for span in ranges:
        arguments += [str(inside), str(span.first), str(span.count)]
        inside += span.count
    return arguments


def has_single_id() -> bool:
    """Say whether this process lives in a user namespace that knows one user id only."""
    rows = Path("/proc/self/uid_map").read_text().split("\n")
    return [row.split()[2] for row in rows if row] == ["1"]


def has_range() -> bool:
    """Say whether this user has subordinate ids, and the programs that map them are there."""
    return _ranges(os.geteuid()) is not None


def own_ids() -> str:
    """Return in one line which ids of the namespace above are those of this process's user namespace."""
    return " / ".join(" ".join(Path(f"/proc/self/{name}").read_text().split()) for name in ("uid_map", "gid_map"))


def is_host_root() -> bool:
    """Say whether this process is root, and not of a user namespace only."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def enter_user_namespace() -> Literal["root", "range", "single"]:
    """Move this process, which must still have one thread only, into a user namespace where it is root.

    Returns "root" when it is root already, with CAP_SYS_ADMIN, and nothing was done; "range" when
    subordinate ids of /etc/subuid and /etc/subgid are mapped too, or all ids of a container whose root
    has not that capability; "single" when only the user's own id is.
    Raises HostError, with the setting to change, where the host does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and holds("CAP_SYS_ADMIN"):
        return "root"
    ranges = _ranges(uid) if uid else None
    mapping: Callable[[int], str] | None = None
    if uid == 0:
        mapping = _map_same
    elif ranges:
        mapping = partial(_map_by_tools, uid, gid, ranges)
    ready, done = os.pipe(), os.pipe()
    parent = os.getpid()
    mapper = os.fork()
    if mapper == 0:
        os.close(ready[1])
        _map(parent, mapping, ready[0], done[1])
    os.close(ready[0])
    os.close(done[1])
    try:
        syscalls.unshare(syscalls.CLONE["user"])
    except OSError as error:
        raise HostError(refusal(error, root=uid == 0)) from None
    else:
        os.write(ready[1], b"x")
    finally:
        os.close(ready[1])
        problem = _read_all(done[0])
        os.waitpid(mapper, 0)
    if problem:
        raise HostError(f"the {'' if uid == 0 else 'subordinate '}ids of this user cannot be mapped: {problem}")
    if mapping is None:
        map_own(uid, gid)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return "single" if mapping is None or has_single_id() else "range"


def refusal(error: OSError, *, root: bool = False) -> str:
    """Return one line on why this user, or a container's root, got no user namespace, and what changes it."""
    if root:
        return (
            "RUN needs CAP_SYS_ADMIN, which root of this container has not, or a user namespace, which it may not "
            f"make ({error.strerror}); start the container with {outer_options()}"
        )
    text = "RUN without root needs user namespaces, and this user may not make one"
    for path, forbidding, remedy in _SWITCHES:
        file = Path(path)
        if file.is_file() and file.read_text().strip() == forbidding:
            return f"{text}: {path} is {forbidding}; as root: {remedy}, or run imagetool as root"
    return f"{text} ({error.strerror}): inside a container, a seccomp profile may forbid it; or run imagetool as root"


def outer_options(confinement: Path = Path("/proc/self/attr/current")) -> str:
    """Return the options of docker with which a container of it can have containers.

    Where AppArmor confines this one, as docker's own profile does, it forbids mounts whatever seccomp allows.
    """
    try:
        confined = confinement.read_text().strip().endswith("(enforce)")
    except OSError:  # no AppArmor
        confined = False
    return "--security-opt seccomp=unconfined" + (" --security-opt apparmor=unconfined" if confined else "")


def map_own(uid: int, gid: int) -> None:
    """Map this process's former ids, and no others, to 0 of its new user namespace."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _read_all(fd: int) -> str:
    with open(fd, "rb") as pipe:
        return pipe.read(4096).decode("utf-8", "replace").strip()


def _map(pid: int, mapping: Callable[[int], str] | None, ready: int, problem: int) -> NoReturn:
    """In a child, which stays outside: wait for the namespace, then map ids in it, or say why not."""
    try:
        if os.read(ready, 1) and mapping is not None:
            os.write(problem, mapping(pid).encode()[:4096])
    finally:
        os._exit(0)


def _map_by_tools(uid: int, gid: int, ranges: _Ranges, pid: int) -> str:
    import subprocess

    for tool, own, spans in zip(_TOOLS, (uid, gid), (ranges.users, ranges.groups), strict=True):
        command = [tool, str(pid), *map_arguments(own, spans)]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        if result.returncode != 0:
            return result.stderr.strip() or f"{tool} failed"
    return ""


def same_ids(text: str) -> str:
    """Return the map that leaves all ids of a user namespace, given its own map, what they are.

    One id fewer than there can be, so that the namespace is never taken for the host's.
    """
    rows = [row.split() for row in text.splitlines()]
    return "".join(f"{first} {first} {min(int(count), _ALL_IDS - 1)}\n" for first, _, count in rows)


def _map_same(pid: int) -> str:
    for name in ("uid_map", "gid_map"):
        try:
            Path(f"/proc/{pid}/{name}").write_text(same_ids(Path(f"/proc/self/{name}").read_text()))
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


@dataclass(frozen=True, slots=True)
class _Ranges:
    users: tuple[IdRange, ...]
    groups: tuple[IdRange, ...]


def _ranges(uid: int) -> _Ranges | None:
    if not all(map(shutil.which, _TOOLS)):
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    try:
        users = subordinate_ids(Path("/etc/subuid").read_text(), name, uid)
        groups = subordinate_ids(Path("/etc/subgid").read_text(), name, uid)
    except OSError:  # no such file: no ranges
        return None
    return _Ranges(users, groups) if users and groups else None
