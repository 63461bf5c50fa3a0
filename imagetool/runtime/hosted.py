"""A container that another program makes, inside mount and PID namespaces of ours.

The overlay is mounted where the host does not see it, and the runtime's container dies with our
init, however the builder ends. The runtime is handed a root in which no mount point is a
symlink: runc 1.1 and crun 1.8 can be led out of the root by an image's /dev.

Source: runtime-spec v1.2 bundle.md; CVE-2021-30465 and its successors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, Final, NoReturn

from imagetool.runtime import syscalls
from imagetool.runtime.mountpoints import Maker, canonical
from imagetool.runtime.mounts import as_mountable, attach_root, is_bind
from imagetool.runtime.process import DEFAULT_PATH, ImageFault, connect
from imagetool.runtime.translate import LXC_INIT, OWN_MOUNTS, TRANSLATIONS
from imagetool.safefs.openat2 import open_in_root

#: Where runtimes make files of their own after mounting.
_SYSTEM: Final = ("/dev", "/proc", "/sys")
#: The mode of a tmpfs that has none of its own.
_OPEN_TO_ALL: Final = 0o1777
_NSPAWN: Final = "/run/systemd/nspawn"
_UNIFIED: Final = "/sys/fs/cgroup/unified"
#: systemd-nspawn leaves the image's /tmp alone.
_QUIET: Final = {"SYSTEMD_NSPAWN_TMPFS_TMP": "0"}


class ProgramMissing(Exception):
    """The container's program is not there; with the status that says so."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def prepare(request: dict[str, Any]) -> tuple[list[list[Any]], list[str]]:
    """Mount the bundle's root, check and make its mount points, tell the program in its words.

    Returns what `Maker.gained` says, and the command. Raises `ProgramMissing`, for the programs
    that would not tell that from a failure of their own.
    """
    syscalls.unshare(syscalls.CLONE["mount"])
    syscalls.make_mounts_private()
    bundle, kind = request["bundle"], request.get("kind", "oci")
    root, changes = attach_root(request["root"], os.path.join(bundle, "rootfs"))
    spec = request["spec"]
    own_network = any(namespace["type"] == "network" for namespace in spec["linux"]["namespaces"])
    if kind != "oci":
        _find_program(root, spec)
    maker = Maker(root, changes)
    allowed = [as_mountable(mount, own_network=own_network, mapped=False) for mount in spec["mounts"]]
    mounts = [_prepared(root, maker, mount) for mount in allowed]
    for path in OWN_MOUNTS[kind]:
        _require_plain(root, maker, path)
    if kind == "lxc":
        maker.mount(LXC_INIT, folder=False, attach=None)
    program = TRANSLATIONS[kind](request["program"], {**spec, "mounts": mounts}, bundle)
    gained = maker.gained()
    os.close(root)
    os.close(changes)
    _mount_new("proc", "/proc")
    if kind == "nspawn":  # what it makes there would stay
        os.makedirs(_NSPAWN, exist_ok=True)
        _mount_new("tmpfs", _NSPAWN)
    if request.get("hide_unified") and os.path.ismount(_UNIFIED):
        _hide_unified()
    return gained, program


def _hide_unified() -> None:
    """Leave one kind of control groups in sight: crun refuses to work with both.

    In a user namespace what the host mounted cannot be taken away, but it can be covered.
    """
    try:
        syscalls.detach_mount(_UNIFIED.encode())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        copy = syscalls.clone_mount(_UNIFIED.encode(), recursive=False)
        target = os.open(os.path.dirname(_UNIFIED), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        syscalls.attach_mount(copy, target)
        os.close(copy)
        os.close(target)


def _mount_new(filesystem: str, path: str) -> None:
    mount = syscalls.new_mount(filesystem, [], 0)
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.attach_mount(mount, target)
    os.close(mount)
    os.close(target)


def _require_plain(root: int, maker: Maker, path: str) -> None:
    if _canonical(root, path) != path.strip("/"):
        raise ImageFault(f"{path} is a symbolic link in the image, which may lead a runtime to the host")
    maker.mount(path, folder=True, attach=None)


def _find_program(root: int, spec: dict[str, Any]) -> None:
    """Raise `ProgramMissing` when the program is not in the image (127) or cannot be executed (126).

    One that comes from a mount is not looked for.
    """
    process, mounted = spec["process"], tuple(mount["destination"].rstrip("/") + "/" for mount in spec["mounts"])
    name = process["args"][0]
    environment = dict(entry.split("=", 1) for entry in process["env"] if "=" in entry)
    folders = environment.get("PATH", DEFAULT_PATH).split(":")
    places = [name] if "/" in name else [f"{folder}/{name}" for folder in folders]
    problem = ""
    for place in places:
        path = os.path.join(process["cwd"], place)
        if f"{path}/".startswith(mounted):
            return
        try:
            fd = open_in_root(root, os.fsencode(path), os.O_PATH)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                problem = problem or f"{place}: {error.strerror}"
            continue
        mode = os.fstat(fd).st_mode
        os.close(fd)
        if stat.S_ISREG(mode) and mode & 0o111:
            return
        problem = problem or f"{place}: is not a file that may be executed"
    if problem:
        raise ProgramMissing(126, problem)
    raise ProgramMissing(127, f"{name}: not found in the image")


def _canonical(root: int, path: str) -> str:
    try:
        return canonical(root, path)
    except OSError as error:
        raise ImageFault(f"{path} of the image cannot be mounted over: {error.strerror}") from None


def _prepared(root: int, maker: Maker, mount: dict[str, Any]) -> dict[str, Any]:
    """Return the mount with a destination free of symlinks, which exists."""
    destination = mount["destination"]
    if maker.is_below_mount(destination.strip("/")):
        return mount
    place = "/" + _canonical(root, destination)
    if destination in _SYSTEM and place != destination:
        raise ImageFault(f"{destination} is a symbolic link in the image, which may lead an OCI runtime to the host")
    folder = not is_bind(mount) or os.path.isdir(mount["source"])
    maker.mount(place, folder=folder, attach=None, mode=_mode_of_memory(mount) if folder else None)
    return {**mount, "destination": place}


def _mode_of_memory(mount: dict[str, Any]) -> int | None:
    """Return the mode of a tmpfs, which runc takes from the mount point; None for what is no tmpfs."""
    if mount.get("type") != "tmpfs":
        return None
    modes = [option.removeprefix("mode=") for option in mount.get("options", ()) if option.startswith("mode=")]
    return int(modes[-1], 8) if modes else _OPEN_TO_ALL


def execute(program: list[str], streams: list[int], *, process: dict[str, Any], bundle: str) -> NoReturn:
    """Become the program; see `process.connect`. It finds a seccomp filter of the bundle at its descriptor."""
    connect(streams, terminal=process.get("terminal", False))
    syscalls.close_range(3)
    with contextlib.suppress(FileNotFoundError):
        os.set_inheritable(os.open(os.path.join(bundle, "seccomp"), os.O_RDONLY), True)  # the lowest that is free
    os.umask(process["user"].get("umask", 0o022))
    os.execve(program[0], program, {"PATH": DEFAULT_PATH, **_QUIET})
