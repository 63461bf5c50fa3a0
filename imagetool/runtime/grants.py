"""What one container gets beyond the usual: devices, or all that its user can do.

Source: Dockerfile reference, "RUN --device" and "RUN --security"; runtime-spec v1.2 config-linux.md "Devices".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from imagetool.errors import HostError
from imagetool.runtime.capabilities import held
from imagetool.runtime.cdi import DeviceNode, Edits
from imagetool.runtime.spec import Mount, RuntimeSpec, unmapped

#: What steps that may do everything do most: mount the image of a disk.
_LOOP_DEVICES: Final = ("/dev/loop-control", *(f"/dev/loop{number}" for number in range(16)))


def with_devices(spec: RuntimeSpec, edits: Edits) -> RuntimeSpec:
    """Return the description with what devices need; with device files it has no user namespace of its own.

    Device files are bound from the host: a container that may not make any gets them all the same.
    Raises HostError for one that the host does not have.
    """
    mounts = [_node_mount(node).tree() for node in edits.nodes] + [mount.tree() for mount in edits.mounts]
    process = spec.tree["process"]
    variables = dict(entry.split("=", 1) for entry in (*process["env"], *edits.env))
    user = {**process["user"], "additionalGids": sorted({*process["user"]["additionalGids"], *edits.gids})}
    hooks: dict[str, list[Any]] = {}
    for name, hook in edits.hooks:
        hooks.setdefault(name, []).append(hook)
    tree = {
        **spec.tree,
        "process": {**process, "env": [f"{name}={value}" for name, value in variables.items()], "user": user},
        "mounts": [*spec.tree["mounts"], *mounts],
        **({"hooks": hooks} if hooks else {}),
    }
    made = replace(spec, tree=tree, device_rules=(*spec.device_rules, *map(_rule, edits.nodes)))
    return unmapped(made) if edits.nodes else made


def without_sandbox(spec: RuntimeSpec) -> RuntimeSpec:
    """Return the description of a container whose root can do what the builder's user can.

    It has every capability that we have, no filter of system calls, /proc and /sys as they are, any
    device. Its files are still its own, and so are its processes and, unless it asks for the host's,
    its network.
    """
    process, linux = spec.tree["process"], unmapped(spec).tree["linux"]
    names = list(held())  # runtimes refuse to give what they lack
    mounts = [
        {**mount, "options": [option for option in mount["options"] if option != "ro"]}
        if mount["destination"] == "/sys"
        else mount
        for mount in spec.tree["mounts"]
    ]
    tree = {
        **spec.tree,
        "process": {
            **process,
            "capabilities": {"bounding": names, "effective": names, "permitted": names},
            "noNewPrivileges": False,
        },
        "mounts": [*mounts, *(_node_mount(node).tree() for node in _loop_devices())],
        "linux": {
            **{key: value for key, value in linux.items() if key != "seccomp"},
            "maskedPaths": [],
            "readonlyPaths": [],
        },
    }
    everything = {"allow": True, "access": "rwm"}
    return replace(spec, tree=tree, may_be_unmapped=False, device_rules=(everything,), sandboxed=False)


def _loop_devices() -> Iterator[DeviceNode]:
    for path in _LOOP_DEVICES:
        if os.path.exists(path):
            yield DeviceNode(path, path)


def _node_mount(node: DeviceNode) -> Mount:
    return Mount(node.path, "bind", node.host_path, ("bind", "rw"))


def _rule(node: DeviceNode) -> dict[str, Any]:
    """Return the rule for control groups that an OCI runtime makes."""
    try:
        status = os.stat(node.host_path)
    except OSError as error:
        raise HostError(f"the device {node.host_path}: {error.strerror}") from None
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise HostError(f"the device {node.host_path} is no device file")
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
    numbers = {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
    return {"allow": True, "type": kind, **numbers, "access": node.permissions}
