"""Inside a new container: mount its root, shed every privilege, execute.

Runs as PID 1 of the new namespaces. Every path of the image is resolved inside its root
(`openat2` with RESOLVE_IN_ROOT): an image whose /dev or /proc is a symlink cannot lead a mount out.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from typing import Any

from imagetool.runtime import kernel
from imagetool.safefs.openat2 import open_in_root

_BIND_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_MOUNT_FLAGS = {"nosuid": 2, "nodev": 4, "noexec": 8, "strictatime": kernel.MS_STRICTATIME}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx"))


class SetupFailed(Exception):
    """The container could not be made; the text is for the user."""


def enter(request: dict[str, Any], output: list[int]) -> None:
    """Become the container's process; never returns. What goes wrong is raised before anything of the image runs."""
    spec = request["spec"]
    process = spec["process"]
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    _mount_root(request)
    _pivot(request["mountpoint"])
    if any(namespace["type"] == "uts" for namespace in spec["linux"]["namespaces"]):
        socket.sethostname(spec["hostname"])
    _redirect(output)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if process.get("noNewPrivileges"):
        kernel.prctl(38, 1)
    _start(process)


def _mount_root(request: dict[str, Any]) -> None:
    spec, root, target = request["spec"], request["root"], request["mountpoint"]
    if "lowers" in root:
        kernel.mount_overlay(target, root["lowers"], root["upper"], root["work"], userxattr=root["userxattr"])
    else:
        kernel.mount(root["path"], target, "none", kernel.MS_BIND | kernel.MS_REC)
    fd = os.open(target, os.O_PATH | os.O_DIRECTORY)
    private_network = any(namespace["type"] == "network" for namespace in spec["linux"]["namespaces"])
    try:
        for mount in spec["mounts"]:
            try:
                _mount(fd, mount, private_network=private_network)
            except OSError as error:
                text = f"cannot mount {mount['destination']} in the container: {error.strerror or error}"
                raise SetupFailed(text) from error
        for path in spec["linux"]["readonlyPaths"]:
            _make_readonly(fd, path)
        for path in spec["linux"]["maskedPaths"]:
            _mask(fd, path)
        if spec["root"].get("readonly"):
            kernel.set_mount_flags(fd, kernel.MS_RDONLY)
    finally:
        os.close(fd)


def _at(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _mount(root: int, mount: dict[str, Any], *, private_network: bool) -> None:
    options, kind, source = mount["options"], mount["type"], mount["source"]
    if kind == "sysfs" and not private_network:  # a new sysfs needs a network namespace of one's own
        kind, source, options = "bind", "/sys", ["rbind", *options]
    bind = kind == "bind"
    target = _mountpoint(root, mount["destination"], folder=not bind or os.path.isdir(source))
    try:
        if bind:
            recursive = "rbind" in options
            kernel.mount(source, _at(target), "none", kernel.MS_BIND | (kernel.MS_REC if recursive else 0))
        else:
            flags = sum(_MOUNT_FLAGS[option] for option in options if option in _MOUNT_FLAGS)
            known = {*_MOUNT_FLAGS, "ro", "rw"}
            data = ",".join(option for option in options if option not in known)
            kernel.mount(source, _at(target), kind, flags, data)
    finally:
        os.close(target)
    mounted = open_in_root(root, os.fsencode(mount["destination"]), os.O_PATH)
    try:
        wanted = sum(flag for option, flag in _BIND_FLAGS.items() if option in options and (bind or option == "ro"))
        if wanted:
            kernel.set_mount_flags(mounted, wanted, recursive="rbind" in options)
        if mount["destination"] == "/dev":
            _fill_dev(root, mounted)
    finally:
        os.close(mounted)


def _mountpoint(root: int, path: str, *, folder: bool) -> int:
    """Open a mount point, making what is missing; the caller of the executor removes it from the layer again."""
    parts = [part for part in path.split("/") if part]
    at = open_in_root(root, b".", os.O_PATH)
    for depth, part in enumerate(parts, 1):
        so_far = os.fsencode("/".join(parts[:depth]))
        try:
            below = open_in_root(root, so_far, os.O_PATH)
        except FileNotFoundError:
            if depth < len(parts) or folder:
                os.mkdir(part, 0o755, dir_fd=at)
            else:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=at))
            below = open_in_root(root, so_far, os.O_PATH)
        os.close(at)
        at = below
    return at


def _fill_dev(root: int, dev: int) -> None:
    """Bind the harmless devices of the host: mknod would need a privilege that rootless builds do not have."""
    for name in _DEVICES:
        target = _mountpoint(root, f"/dev/{name}", folder=False)
        try:
            kernel.mount(f"/dev/{name}", _at(target), "none", kernel.MS_BIND)
        finally:
            os.close(target)
    for name, link in _LINKS:
        os.symlink(link, name, dir_fd=dev)


def _make_readonly(root: int, path: str) -> None:
    try:
        fd = open_in_root(root, os.fsencode(path), os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    kernel.mount(_at(fd), _at(fd), "none", kernel.MS_BIND | kernel.MS_REC)
    os.close(fd)
    fd = open_in_root(root, os.fsencode(path), os.O_PATH)
    kernel.set_mount_flags(fd, kernel.MS_RDONLY, recursive=True)
    os.close(fd)


def _mask(root: int, path: str) -> None:
    try:
        fd = open_in_root(root, os.fsencode(path), os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            kernel.mount("tmpfs", _at(fd), "tmpfs", kernel.MS_RDONLY, "size=0k")
            return
        null = os.stat("/dev/null")
        if not stat.S_ISCHR(null.st_mode) or null.st_rdev != os.makedev(1, 3):  # CVE-2025-31133
            raise SetupFailed("the host's /dev/null is not the null device")
        kernel.mount("/dev/null", _at(fd), "none", kernel.MS_BIND)
    finally:
        os.close(fd)


def _pivot(target: str) -> None:
    os.chdir(target)
    kernel.call("pivot_root", b".", b".")
    kernel.unmount(".", kernel.MNT_DETACH)
    os.chdir("/")


def _redirect(output: list[int]) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (output[0], 1), (output[1], 2)):
        os.dup2(source, target)
    kernel.call("close_range", 3, 0xFFFFFFFF, 4)  # CLOSE_RANGE_CLOEXEC: nothing of the host gets through


def _start(process: dict[str, Any]) -> None:
    """Take on the user, enter the working directory and execute; 127 and 126 as a shell would have it."""
    environment = dict(entry.split("=", 1) for entry in process["env"] if "=" in entry)
    user = process["user"]
    try:
        os.chdir(process["cwd"])
        if not os.getcwd().startswith("/"):  # CVE-2024-21626
            raise OSError(errno.EPERM, "it is outside the container")
    except OSError as error:
        _give_up(126, f"cannot enter the working directory {process['cwd']!r}: {error.strerror}")
    os.umask(user.get("umask", 0o022))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    kernel.set_capabilities(process["capabilities"]["bounding"], user["uid"], user["gid"], user["additionalGids"])
    _execute(process["args"], environment)


def _execute(args: list[str], environment: dict[str, str]) -> None:
    name = args[0]
    folders = [""] if "/" in name else environment.get("PATH", "/bin:/usr/bin").split(":")
    denied = ""
    for folder in folders:
        path = os.path.join(folder, name) if folder else name
        try:
            fd = open_in_root(os.open("/", os.O_PATH), os.fsencode(os.path.join(os.getcwd(), path)), os.O_PATH)
            os.close(fd)  # only to refuse magic links such as /proc/self/exe (CVE-2019-5736)
            os.execve(path, args, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            denied = f"{path}: {error.strerror}"
    if denied:
        _give_up(126, denied)
    _give_up(127, f"{name}: not found in the image")


def _give_up(status: int, text: str) -> None:
    os.write(2, f"imagetool: {text}\n".encode("utf-8", "backslashreplace"))
    os._exit(status)
