"""A container in a user namespace of its own, made by real root: its root is an ordinary user outside.

Ids are shifted by the mounts, not on disk: the layers below, the directory of changes and bound
directories are seen through mounts that are mapped as the namespace is, so that files get the
owners that they would have without it. What needs the host's root is made before it is given up.

Source: user_namespaces(7); mount_setattr(2) "ID-mapped mounts"; Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from imagetool.runtime import syscalls
from imagetool.runtime.mounts import bind_source, is_bind, new_overlay

#: Where the root is mounted first, in the container's own mount namespace; nothing is looked up there later.
TARGET = "/tmp"


class Refused(Exception):
    """There can be no user namespace for this container here; the text is for the user."""


class Outside(NamedTuple):
    """What was opened while still root of the host: the root, its directory of changes, binds by position."""

    root: int
    changes: int
    binds: dict[int, int]


def make_user_namespace(linux: Mapping[str, Any]) -> int:
    """Return a descriptor of a new user namespace with the mappings of `linux` of the OCI config.

    Raises Refused where none can be made, OSError.
    """
    made, mapped = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(mapped[1])
        try:
            syscalls.unshare(syscalls.CLONE["user"])
            os.write(made[1], b"x")
            os.read(mapped[0], 1)
        finally:
            os._exit(0)
    os.close(made[1])
    os.close(mapped[0])
    try:
        if not os.read(made[0], 1):
            raise Refused("no user namespace can be made: it is forbidden, or there are too many")
        for kind in ("uid", "gid"):
            rows = [f"{row['containerID']} {row['hostID']} {row['size']}\n" for row in linux[f"{kind}Mappings"]]
            with open(f"/proc/{pid}/{kind}_map", "w") as file:
                file.write("".join(rows))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(mapped[1])
        os.close(made[0])
        os.waitpid(pid, 0)


def open_outside(request: dict[str, Any], namespace: int, mounts: list[dict[str, Any]]) -> Outside:
    """Mount the root, mapped, and open what is to be bound. Raises OSError: EINVAL where a filesystem cannot be mapped.

    Args:
        mounts: those of the description, in the form that is allowed in the namespace.
    """
    root = request["root"]
    first = request["spec"]["linux"]["uidMappings"][0]["hostID"]
    if "directory" in root:
        tree = _mapped(root["directory"], namespace)
        changes = _mapped(root["directory"], namespace)  # another one: what is mounted on the first hides files
    else:
        tree, changes = _overlay(root, namespace, first)
    binds = {}
    for position, mount in enumerate(mounts):
        if is_bind(mount):
            fd, recursive = bind_source(mount)
            syscalls.make_mounts_private(fd)  # it was taken from the host, where nothing may come back to
            if mount["source"] != "/sys":  # belongs to nobody there, and is only read
                _map(fd, namespace, mount["source"], recursive=recursive)
            binds[position] = fd
    return Outside(tree, changes, binds)


def _mapped(path: str, namespace: int) -> int:
    fd = syscalls.clone_mount(os.fsencode(path), recursive=False)
    syscalls.make_mounts_private(fd)
    _map(fd, namespace, path, recursive=False)
    return fd


def _map(fd: int, namespace: int, path: str, *, recursive: bool) -> None:
    try:
        syscalls.map_mount(fd, namespace, recursive=recursive)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
            raise
        raise Refused(f"the filesystem of {path} cannot show its files with other owners: {error.strerror}") from None


def _overlay(root: dict[str, Any], namespace: int, first: int) -> tuple[int, int]:
    """Return a detached overlay whose layers are all mapped, and its directory of changes."""
    above = os.path.commonpath([root["upper"], root["work"]])
    both = _mapped(above, namespace)
    fds = [_mapped(lower, namespace) for lower in root["lowers"]]
    lowers = [f"/proc/self/fd/{fd}" for fd in fds]
    rest = [
        (key, f"/proc/self/fd/{both}/{os.path.relpath(path, above)}")
        for key, path in (("upperdir", root["upper"]), ("workdir", root["work"]))
    ]
    with _as_user(first):
        try:
            made = _stacked(lowers, rest, [both, *fds])
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EOVERFLOW):
                raise
            raise Refused(f"overlayfs takes no layers with other owners here: {error.strerror}") from None
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    changes = os.open(os.path.relpath(root["upper"], above), flags, dir_fd=both)
    for fd in (both, *fds):
        os.close(fd)
    return made, changes


def _stacked(lowers: list[str], rest: list[tuple[str, str]], layers: list[int]) -> int:
    """Return a detached overlay of detached mounts.

    Linux before 6.15 stacks only what is mounted in this mount namespace. So they are, in one that nobody else sees,
    until the overlay is there, which has clones of its own.
    """
    syscalls.unshare(syscalls.CLONE["mount"])
    syscalls.make_mounts_private()
    stage = syscalls.new_mount("tmpfs", [("mode", "0700")], 0)
    _attach(stage, TARGET)
    for number, layer in enumerate(layers):
        os.mkdir(str(number), dir_fd=stage)
        _attach(layer, str(number), dir_fd=stage)
    os.mkdir("overlay", dir_fd=stage)
    try:
        return new_overlay(lowers, rest, f"{TARGET}/overlay")
    finally:
        os.close(stage)
        syscalls.detach_mount(os.fsencode(TARGET))


def _attach(mount: int, path: str, *, dir_fd: int | None = None) -> None:
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    syscalls.attach_mount(mount, target)
    os.close(target)


@contextmanager
def _as_user(number: int) -> Iterator[None]:
    """Be another user for files, but with all capabilities: the overlay makes its own files as who mounted it."""
    held = syscalls.capget()
    syscalls.set_file_ids(number)
    syscalls.capset(held)
    try:
        yield
    finally:
        syscalls.set_file_ids(0)
        syscalls.capset(held)


def enter(namespace: int) -> None:
    """Become root of the user namespace. Raises OSError."""
    syscalls.setns(namespace, syscalls.CLONE["user"])
    os.close(namespace)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
