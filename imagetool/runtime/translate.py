"""The one description in the words of other programs: bubblewrap, systemd-nspawn, LXC. Run inside the helper process.

Each function gets the program, the description with every mount's destination free of symlinks, and
the bundle's directory, writes what it needs there, and returns the command.

Source: bwrap(1); systemd-nspawn(1) `--oci-bundle`; lxc-execute(1), lxc.container.conf(5).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from imagetool.runtime.ceilings import parse_size
from imagetool.runtime.mounts import is_bind

#: Where a seccomp program is handed to a command that takes one.
FILTER_DESCRIPTOR: Final = 3
#: What LXC puts into the root filesystem to start by; an empty file there is taken away again.
LXC_INIT: Final = "/init.lxc.static"
_DEV: Final = ("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
_PROGRAMS_OWN: Final = ("/dev", "/dev/pts", "/dev/mqueue")  # of these, what bwrap and nspawn mount as they like


def oci(program: list[str], spec: dict[str, Any], bundle: str) -> list[str]:
    """Write config.json for an OCI runtime."""
    with open(os.path.join(bundle, "config.json"), "w") as file:
        json.dump(spec, file)
    return program


def nspawn(program: list[str], spec: dict[str, Any], bundle: str) -> list[str]:
    """Write config.json as systemd-nspawn 252 takes it: version 1.0.0, no resources, its own filter."""
    linux = {key: value for key, value in spec["linux"].items() if key not in ("resources", "seccomp")}
    process = {**spec["process"], "user": {k: v for k, v in spec["process"]["user"].items() if k != "umask"}}
    adapted = {
        **spec,
        "ociVersion": "1.0.0",
        "process": process,
        "linux": linux,
        "mounts": [],
    }
    for mount in spec["mounts"]:
        program = [*program, *_nspawn_mount(mount)]
    if process.get("noNewPrivileges"):  # it reads that from the command line only
        program = [*program, "--no-new-privileges=yes"]
    if spec["root"].get("readonly"):  # as well
        program = [*program, "--read-only"]
    return oci([*program, f"--oci-bundle={bundle}"], adapted, bundle)


def _nspawn_mount(mount: dict[str, Any]) -> list[str]:
    """Return the option for a mount; what every container has is its own business."""
    place, options = mount["destination"], mount["options"]
    if is_bind(mount) and mount["type"] != "sysfs" and place != "/sys":
        word = "--bind-ro" if "ro" in options else "--bind"
        return [f"{word}={_coloned(mount['source'])}:{_coloned(place)}"]
    if mount["type"] == "tmpfs" and place not in _PROGRAMS_OWN:
        return [":".join([f"--tmpfs={_coloned(place)}", *([",".join(options)] if options else [])])]
    return []


def _coloned(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:")


def bwrap(program: list[str], spec: dict[str, Any], bundle: str) -> list[str]:
    """Return bubblewrap's command line: root only, without rlimits of its own, always without new privileges."""
    process, linux = spec["process"], spec["linux"]
    words = [*program, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if any(namespace["type"] == "network" for namespace in linux["namespaces"]):
        words.append("--unshare-net")
    words += ["--hostname", spec["hostname"], "--bind", os.path.join(bundle, "rootfs"), "/"]
    for mount in spec["mounts"]:
        words += _bwrap_mount(mount)
    words += [word for path in linux.get("readonlyPaths", ()) if os.path.exists(path) for word in _again(path)]
    for path in linux.get("maskedPaths", ()):
        if os.path.isdir(path):
            words += ["--tmpfs", path, "--remount-ro", path]
        elif os.path.exists(path):
            words += ["--ro-bind", "/dev/null", path]
    if spec["root"].get("readonly"):
        words += ["--remount-ro", "/"]
    words += ["--chdir", process["cwd"], "--clearenv"]
    for entry in process["env"]:
        words += ["--setenv", *entry.split("=", 1)]
    words += ["--cap-drop", "ALL"]
    words += [word for name in process["capabilities"]["bounding"] for word in ("--cap-add", name)]
    if os.path.exists(os.path.join(bundle, "seccomp")):
        words += ["--seccomp", str(FILTER_DESCRIPTOR)]
    return [*words, "--", *process["args"]]


def _again(path: str) -> tuple[str, str, str]:
    return "--ro-bind", path, path


def _bwrap_mount(mount: dict[str, Any]) -> list[str]:
    destination, options = mount["destination"], mount["options"]
    if is_bind(mount):
        return ["--ro-bind" if "ro" in options else "--bind", mount["source"], destination]
    if destination == "/dev":
        return ["--dev", "/dev"]
    if mount["type"] == "proc":
        return ["--proc", destination]
    if mount["type"] == "mqueue":
        return ["--mqueue", destination]
    if mount["type"] == "tmpfs" and destination not in _PROGRAMS_OWN:
        said = dict(option.split("=", 1) for option in options if "=" in option)
        mode = ["--perms", said["mode"]] if "mode" in said else []
        size = ["--size", _bytes(said["size"])] if "size" in said else []
        readonly = ["--remount-ro", destination] if "ro" in options else []
        return [*mode, *size, "--tmpfs", destination, *readonly]  # it has no word for noexec
    return [*_again("/sys")] if mount["type"] == "sysfs" else []  # devpts is part of its /dev


def _bytes(size: str) -> str:
    """Return the size of a tmpfs, of which the kernel takes a percentage too, as bytes."""
    if size.endswith("%"):
        return str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * int(size[:-1]) // 100)
    return str(parse_size("size", size))


def lxc(program: list[str], spec: dict[str, Any], bundle: str) -> list[str]:
    """Write LXC's configuration: limits and filter are ours or its own, the rest is the description's."""
    path = os.path.join(bundle, "config")
    if "seccomp" in spec["linux"]:
        with open(os.path.join(bundle, "filter"), "w") as file:
            file.writelines(f"{line}\n" for line in _lxc_filter(spec["linux"]["seccomp"]))
    with open(path, "w") as file:
        file.writelines(f"{key} = {value}\n" for key, value in _lxc_pairs(spec, bundle))
    return [*program, "-f", path, "--", *spec["process"]["args"]]


def _lxc_pairs(spec: dict[str, Any], bundle: str) -> Iterator[tuple[str, str]]:
    process, linux = spec["process"], spec["linux"]
    kinds = {namespace["type"] for namespace in linux["namespaces"]}
    yield "lxc.uts.name", spec["hostname"]
    yield "lxc.rootfs.path", f'"dir:{bundle}/rootfs"'
    if spec["root"].get("readonly"):
        yield "lxc.rootfs.options", "ro"
    yield "lxc.net.0.type", "empty" if "network" in kinds else "none"
    if "network" in kinds:
        yield "lxc.net.0.flags", "up"
    if "seccomp" in linux:
        yield "lxc.seccomp.profile", f"{bundle}/filter"
    yield "lxc.mount.auto", "proc:mixed sys:ro"
    yield "lxc.cgroup.relative", "1"  # below the group that has our limits
    yield "lxc.autodev", "1"
    yield "lxc.pty.max", "64"
    yield "lxc.tty.max", "0"
    yield "lxc.apparmor.profile", "unconfined"
    kept = [name.removeprefix("CAP_").lower() for name in process["capabilities"]["bounding"]]
    yield "lxc.cap.keep", " ".join(kept) or "none"  # nothing at all would keep all of them
    yield "lxc.no_new_privs", "1" if process.get("noNewPrivileges") else "0"
    yield "lxc.init.cwd", f'"{process["cwd"]}"'
    user = process["user"]
    yield "lxc.init.uid", str(user["uid"])
    yield "lxc.init.gid", str(user["gid"])
    if user["additionalGids"]:
        yield "lxc.init.groups", ",".join(map(str, user["additionalGids"]))
    for entry in process["env"]:
        yield "lxc.environment", f'"{entry}"'
    for mount in spec["mounts"]:
        place = mount["destination"].lstrip("/")
        if is_bind(mount):
            options = "rbind,ro" if "ro" in mount["options"] else "rbind,rw"
            yield "lxc.mount.entry", f"{_escaped(mount['source'])} {_escaped(place)} none {options} 0 0"
        elif mount["type"] == "tmpfs" and mount["destination"] != "/dev":
            options = ",".join(mount["options"])
            create = ",create=dir" if mount["destination"] in _DEV else ""
            yield "lxc.mount.entry", f"tmpfs {_escaped(place)} tmpfs {options}{create} 0 0"


def _lxc_filter(seccomp: dict[str, Any]) -> Iterator[str]:
    """Yield a filter in LXC's second format; a rule's conditions must all hold."""
    default = _lxc_action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet", errno.EPERM))
    yield "2"
    yield f"allowlist {default}"
    yield "[all]"
    for rule in seccomp.get("syscalls", ()):
        action = _lxc_action(rule["action"], rule.get("errnoRet", errno.EPERM))
        conditions = []
        for one in rule.get("args", ()):
            value, mask = one["value"], ""
            if one["op"] == "SCMP_CMP_MASKED_EQ":  # the mask comes last here, and first in the description
                value, mask = one.get("valueTwo", 0), f",{one['value']:#x}"
            conditions.append(f" [{one['index']},{value:#x},{one['op']}{mask}]")
        for name in rule["names"]:
            yield f"{name} {action}{''.join(conditions)}"


def _lxc_action(action: str, number: int) -> str:
    known = {"SCMP_ACT_ALLOW": "allow", "SCMP_ACT_TRAP": "trap", "SCMP_ACT_ERRNO": f"errno {number}"}
    return known.get(action, "kill")


def _escaped(path: str) -> str:
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in path)


#: Kind of program -> how it is told.
TRANSLATIONS: Final[dict[str, Callable[[list[str], dict[str, Any], str], list[str]]]] = {
    "oci": oci,
    "nspawn": nspawn,
    "bwrap": bwrap,
    "lxc": lxc,
}
#: Directories that a program mounts over whatever the description says, which must then be real ones.
OWN_MOUNTS: Final = {"oci": (), "nspawn": ("/run", "/tmp", "/usr", "/root", "/var", "/etc"), "bwrap": (), "lxc": ()}
