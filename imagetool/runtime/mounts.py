"""The mounts of a container: its root, those its description lists, devices, masked and read-only paths.

Everything is attached by descriptor: a path of the image is resolved by `mountpoints`, which cannot
leave the root, and never looked up again. Flags are on a mount before it is attached.

Source: runtime-spec v1.2 config.md "Mounts", config-linux.md "Default Devices", "Masked Paths".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any, Final

from imagetool.runtime import syscalls
from imagetool.runtime.mountpoints import Maker
from imagetool.runtime.syscalls import MOUNT_ATTR
from imagetool.safefs.openat2 import open_in_root

#: Options that are neither attributes of the mount nor the filesystem's business.
_PLAIN: Final = frozenset(
    ("bind", "rbind", "rw", "suid", "dev", "exec", "relatime", "defaults", "private", "rprivate", "newinstance")
)
_TAKES_DIRECTORIES_ONE_BY_ONE: Final = (6, 5)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "fd/0"),
    ("stdout", "fd/1"),
    ("stderr", "fd/2"),
    ("ptmx", "pts/ptmx"),
)


def attach_root(root: dict[str, Any], target: str) -> tuple[int, int]:
    """Mount a root filesystem on the host directory `target`, which this mount namespace alone will see.

    Returns descriptors of the mount and of the directory its changes go to.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if "directory" in root:
        changes = os.open(root["directory"], flags)
        mount = syscalls.clone_mount(b"", dir_fd=changes, recursive=True)
    else:
        changes = os.open(root["upper"], flags)
        fds = [os.open(path, flags) for path in (root["work"], *root["lowers"])]
        work, *lowers = [f"/proc/self/fd/{fd}" for fd in fds]
        rest: list[tuple[str, str | None]] = [("upperdir", f"/proc/self/fd/{changes}"), ("workdir", work)]
        mount = new_overlay(lowers, [*rest, *([("userxattr", None)] if root["userxattr"] else [])], target)
        for fd in fds:
            os.close(fd)
    place = os.open(target, flags)
    syscalls.attach_mount(mount, place)
    os.close(place)
    return mount, changes


def new_overlay(lowers: Sequence[str], rest: Sequence[tuple[str, str | None]], target: str) -> int:
    """Return a detached overlay. Older kernels need a directory for it, `target`, which is left as it was.

    Args:
        lowers: the directories below, topmost first. They and those of `rest` are named by descriptor: the value of an
            option has at most 255 bytes.
        rest: the other options.
    """
    try:
        if syscalls.kernel() >= _TAKES_DIRECTORIES_ONE_BY_ONE:
            return syscalls.new_mount("overlay", [*(("lowerdir+", lower) for lower in lowers), *rest], 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # Tried before Linux 6.5, lowerdir+ would be refused, with a line on the console; and all directories in one string
    # are taken only the old way.
    options = [("lowerdir", ":".join(lowers)), *rest]
    text = ",".join(key if value is None else f"{key}={value}" for key, value in options)
    syscalls.mount_by_options("overlay", os.fsencode(target), text)
    mount = syscalls.clone_mount(os.fsencode(target), recursive=False)
    syscalls.detach_mount(os.fsencode(target))
    return mount


#: What is told when a container gets no /proc of its own.
SHARED_PROCESSES: Final = (
    "the kernel allows no new /proc here, as inside another container: steps see all its processes, read-only"
)


def mount_listed(maker: Maker, mount: dict[str, Any], source: int | None) -> str:
    """Make one mount of the description, in its allowed form; `source` is what is bound when it is open already.

    Returns what the user should know, "" for nothing. Raises OSError.
    """
    if mount["type"] == "cgroup":
        return ""
    warning = ""
    if mount["type"] in _OUTER and (source := _outer(mount)) is not None:
        warning = _OUTER[mount["type"]][1]
    made, folder = _detached(mount, source)
    try:
        maker.mount(mount["destination"], folder=folder, attach=lambda target: syscalls.attach_mount(made, target))
        if mount["destination"] == "/dev" and mount["type"] == "tmpfs":
            _fill_dev(made)
    finally:
        os.close(made)
    return warning


#: Filesystems that a user namespace may not make where a part of the one outside is hidden, as in a container:
#: where that is, and what is told when it is shown instead. Of /sys little more is seen than the names of interfaces.
_OUTER: Final = {"proc": (b"/proc", SHARED_PROCESSES), "sysfs": (b"/sys", "")}


def _outer(mount: dict[str, Any]) -> int | None:
    """Return a read-only copy of the /proc or /sys outside when there may be no new one; None when there may."""
    try:
        os.close(_filesystem(mount["type"], mount.get("options", [])))
    except OSError as error:
        if error.errno != errno.EPERM or initial_user_namespace():
            raise
    else:
        return None
    fd = syscalls.clone_mount(_OUTER[mount["type"]][0], recursive=True)
    syscalls.set_mount_attributes(fd, MOUNT_ATTR["ro"], recursive=True)
    return fd


def is_bind(mount: dict[str, Any]) -> bool:
    """Say whether a mount of the description shows files of the host."""
    return mount["type"] == "bind" or not {"bind", "rbind"}.isdisjoint(mount.get("options", ()))


def as_mountable(mount: dict[str, Any], *, own_network: bool, mapped: bool) -> dict[str, Any]:
    """Return a mount in the form that is allowed here, or in the container's own user namespace if it is `mapped`.

    A new sysfs belongs to a network namespace of one's own; without one, root of a user namespace
    can only show the host's, read-only.
    """
    if mount["type"] != "sysfs" or own_network or (not mapped and initial_user_namespace()):
        return mount
    return {**mount, "type": "bind", "source": "/sys", "options": ["rbind", "ro", *mount.get("options", ())]}


def _detached(mount: dict[str, Any], source: int | None) -> tuple[int, bool]:
    """Return a mount that is nowhere yet, and whether it is a directory."""
    if not is_bind(mount) and source is None:
        return _filesystem(mount["type"], mount.get("options", [])), True
    fd = bind_source(mount)[0] if source is None else source
    return fd, stat.S_ISDIR(os.fstat(fd).st_mode)


def bind_source(mount: dict[str, Any]) -> tuple[int, bool]:
    """Return a detached copy of what a mount binds, with its attributes, and whether it has what is mounted below."""
    options = mount.get("options", [])
    recursive = "rbind" in options
    fd = syscalls.clone_mount(os.fsencode(mount["source"]), recursive=recursive)
    if attributes := _attributes(options):
        syscalls.set_mount_attributes(fd, attributes, recursive=recursive)
    return fd, recursive


def _filesystem(kind: str, options: list[str]) -> int:
    """Return a new filesystem, detached."""
    settings = [option.partition("=") for option in options if option not in MOUNT_ATTR and option not in _PLAIN]
    pairs: list[tuple[str, str | None]] = [(key, value if equals else None) for key, equals, value in settings]
    return syscalls.new_mount(kind, pairs, _attributes(options))


def _attributes(options: list[str]) -> int:
    return sum(MOUNT_ATTR[option] for option in {*options} if option in MOUNT_ATTR)


def initial_user_namespace() -> bool:
    """Say whether there are no user namespaces above that of this process."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() == [b"0", b"0", b"4294967295"]


def _fill_dev(dev: int) -> None:
    """Bind the harmless devices of the host: making nodes is a privilege that rootless builds do not have."""
    for name in _DEVICES:
        device = syscalls.clone_mount(os.fsencode(f"/dev/{name}"), recursive=False)
        target = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=dev)
        if not stat.S_ISCHR(os.fstat(device).st_mode):
            raise OSError(errno.ENODEV, "not a device on the host", f"/dev/{name}")
        syscalls.attach_mount(device, target)
        os.close(target)
        os.close(device)
    for name, link in _LINKS:
        os.symlink(link, name, dir_fd=dev)


def make_readonly(root: int, path: str) -> None:
    """Put a read-only copy of what is at `path` over it; nothing there is fine."""
    target = _open(root, path)
    if target is None:
        return
    try:
        copy = syscalls.clone_mount(b"", dir_fd=target, recursive=True)
        syscalls.set_mount_attributes(copy, MOUNT_ATTR["ro"], recursive=True)
        syscalls.attach_mount(copy, target)
        os.close(copy)
    finally:
        os.close(target)


def mask(root: int, path: str) -> None:
    """Hide what is at `path` behind an empty directory or the null device; nothing there is fine."""
    target = _open(root, path)
    if target is None:
        return
    try:
        if stat.S_ISDIR(os.fstat(target).st_mode):
            cover = syscalls.new_mount("tmpfs", [("size", "0k"), ("mode", "0555")], MOUNT_ATTR["ro"])
        else:
            cover = syscalls.clone_mount(b"/dev/null", recursive=False)
            status = os.fstat(cover)
            if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):  # CVE-2025-31133
                raise OSError(errno.ENODEV, "the host's /dev/null is not the null device", path)
        syscalls.attach_mount(cover, target)
        os.close(cover)
    finally:
        os.close(target)


def _open(root: int, path: str) -> int | None:
    try:
        return open_in_root(root, os.fsencode(path), os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
