"""A container that another OCI runtime makes, inside mount and PID namespaces of ours.

The overlay is mounted where the host does not see it, and the runtime's container dies with our
init, however the builder ends. The runtime is handed a root in which no mount point is a
symlink: runc 1.1 and crun 1.8 can be led out of the root by an image's /dev.

Source: runtime-spec v1.2 bundle.md; CVE-2021-30465 and its successors.
"""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

from imagetool.runtime import syscalls
from imagetool.runtime.mountpoints import Maker, canonical
from imagetool.runtime.mounts import as_mountable, attach_root, is_bind
from imagetool.runtime.process import ImageFault, connect

#: Where runtimes make files of their own after mounting.
_SYSTEM = ("/dev", "/proc", "/sys")


def prepare(request: dict[str, Any]) -> list[list[Any]]:
    """Mount the bundle's root, check and make its mount points, write config.json; return what `Maker.gained` says."""
    syscalls.unshare(syscalls.CLONE["mount"])
    syscalls.make_mounts_private()
    bundle = request["bundle"]
    root, changes = attach_root(request["root"], os.path.join(bundle, "rootfs"))
    spec = request["spec"]
    own_network = any(namespace["type"] == "network" for namespace in spec["linux"]["namespaces"])
    maker = Maker(root, changes)
    mounts = [_prepared(root, maker, as_mountable(mount, own_network=own_network)) for mount in spec["mounts"]]
    with open(os.path.join(bundle, "config.json"), "w") as file:
        json.dump({**spec, "mounts": mounts}, file)
    gained = maker.gained()
    os.close(root)
    os.close(changes)
    processes = syscalls.new_mount("proc", [], 0)
    target = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.attach_mount(processes, target)
    os.close(processes)
    os.close(target)
    return gained


def _prepared(root: int, maker: Maker, mount: dict[str, Any]) -> dict[str, Any]:
    """Return the mount with a destination free of symlinks, which exists."""
    destination = mount["destination"]
    if maker.is_below_mount(destination.strip("/")):
        return mount
    place = "/" + canonical(root, destination)
    if destination in _SYSTEM and place != destination:
        raise ImageFault(f"{destination} is a symbolic link in the image, which may lead an OCI runtime to the host")
    folder = not is_bind(mount) or os.path.isdir(mount["source"])
    maker.mount(place, folder=folder, attach=None)
    return {**mount, "destination": place}


def execute(program: list[str], streams: list[int], *, terminal: bool) -> NoReturn:
    """Become the runtime; see `process.connect`."""
    connect(streams, terminal=terminal)
    syscalls.close_range(3)
    os.execve(program[0], program, {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
