"""Become root of a user namespace, so that an ordinary user can build."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from imagetool.errors import HostError
from imagetool.runtime import kernel


def enter_user_namespace() -> Literal["root", "range", "single"]:
    """Move this process, which must have one thread only, into a user namespace where it is root.

    Returns "root" when it is root already and nothing was done; "range" when subordinate ids from
    /etc/subuid and /etc/subgid are mapped too; "single" when only the user's own id is.
    Raises HostError, with the way to mend it, where the kernel does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return "root"
    ranges = _ranges(uid)
    ready, done = os.pipe(), os.pipe()
    parent = os.getpid()
    mapper = os.fork()
    if mapper == 0:
        _map(parent, uid, gid, ranges, ready, done)
    os.close(ready[0])
    os.close(done[1])
    try:
        kernel.unshare(kernel.CLONE["user"])
    except OSError as error:
        os.close(ready[1])
        os.waitpid(mapper, 0)
        raise HostError(
            f"this user may not make user namespaces ({error.strerror}), which RUN needs without root: run as root, "
            "or set sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0 and, on Ubuntu, "
            "kernel.apparmor_restrict_unprivileged_userns=0"
        ) from None
    if ranges is None:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    os.write(ready[1], b"x")
    os.close(ready[1])
    _, status = os.waitpid(mapper, 0)
    os.close(done[0])
    if status != 0:
        raise HostError("newuidmap or newgidmap refused the ranges of /etc/subuid and /etc/subgid; see their man pages")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return "range" if ranges else "single"


def _map(
    pid: int,
    uid: int,
    gid: int,
    ranges: tuple[tuple[int, int], tuple[int, int]] | None,
    ready: tuple[int, int],
    done: tuple[int, int],
) -> None:
    """In a child, which is still outside: wait for the namespace, then map the ranges by the setuid tools."""
    os.close(ready[1])
    os.close(done[0])
    if not os.read(ready[0], 1) or ranges is None:
        os._exit(0)
    status = 0
    for tool, own, (first, count) in (("newuidmap", uid, ranges[0]), ("newgidmap", gid, ranges[1])):
        command = [tool, str(pid), "0", str(own), "1", "1", str(first), str(count)]
        status |= subprocess.run(command, check=False).returncode
    os._exit(1 if status else 0)


def _ranges(uid: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    users, groups = _range("/etc/subuid", uid), _range("/etc/subgid", uid)
    return (users, groups) if users and groups else None


def _range(path: str, uid: int) -> tuple[int, int] | None:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if owner in (name, str(uid)) and first.isdigit() and count.isdigit():
            return int(first), int(count)
    return None
