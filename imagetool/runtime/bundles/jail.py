"""A bundle for FreeBSD: config.json for an OCI runtime there, and jail.conf for jail(8) itself.

The shipping runtime (ocijail) reads annotations and versions up to 1.2; the specification has a
section since 1.3. Both are written, and they say the same.

Source: runtime-spec v1.3 config-freebsd.md; jail.conf(5), jail(8).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from imagetool.errors import InvalidDocument, Unsupported
from imagetool.runtime.bundles import shape
from imagetool.runtime.bundles.oci import plain_config, write_config
from imagetool.runtime.bundles.parts import BundleSource, require_os, require_plain, write_rootfs, write_text
from imagetool.runtime.imageprocess import ImageProcess, annotations_of

_VERSION: Final = "1.2.1"
_DEVFS_RULESET: Final = 4
_MODE: Final = shape.one_of("new", "inherit", "disable")
_SWITCH: Final = shape.one_of("")
_KNOWN: Final[dict[str, shape.Shape]] = {
    "path": shape.absolute,
    "host.hostname": shape.matching("[a-z][a-z0-9-]{0,62}", "a host name"),
    "vnet": _SWITCH,
    "persist": _SWITCH,
    "mount.devfs": _SWITCH,
    "exec.clean": _SWITCH,
    "allow.noset_hostname": _SWITCH,
    "allow.raw_sockets": _SWITCH,
    "allow.reserved_ports": _SWITCH,
    "devfs_ruleset": shape.matching("[0-9]+", "the number of a ruleset"),
    "enforce_statfs": shape.one_of("0", "1", "2"),
    "sysvmsg": _MODE,
    "sysvsem": _MODE,
    "sysvshm": _MODE,
    "mount": shape.matching(r"[^ ]+ [^ ]+ [a-z0-9]+ [^ ]+ \d \d", "a line of fstab(5)"),
    "exec.start": shape.text,
    "exec.stop": shape.text,
    "exec.jail_user": shape.matching("[A-Za-z_][A-Za-z0-9_.-]*", "a user's name"),
}


def write_jail(source: BundleSource, folder: Path) -> None:
    """Write config.json, jail.conf and rootfs; a Linux image gets what FreeBSD's Linux emulation needs."""
    require_os(source, "freebsd", "linux", target="FreeBSD")
    rootfs = folder / "rootfs"
    write_rootfs(source, rootfs)
    linux = source.image.config.platform.os == "linux"
    require_plain(rootfs, ("/dev", "/proc", "/sys") if linux else ("/dev",))
    process = source.process(rootfs)
    write_config(folder, _config(source, process, linux=linux))
    write_text(folder / "jail.conf", _jail_conf(source, process, linux=linux))


def _config(source: BundleSource, process: ImageProcess, *, linux: bool) -> dict[str, Any]:
    mounts = [("/dev", "devfs", "devfs", [f"ruleset={_DEVFS_RULESET}"])]
    if linux:
        mounts += [("/proc", "linprocfs", "linprocfs", []), ("/sys", "linsysfs", "linsysfs", [])]
    jail = {
        "host": "new",
        "vnet": "new",
        "sysvmsg": "new",
        "sysvsem": "new",
        "sysvshm": "new",
        "enforceStatfs": 1 if linux else 2,
        "allow": {"setHostname": False, "rawSockets": True, "reservedPorts": True},
    }
    annotations = {
        "org.freebsd.jail.vnet": "new",
        "org.freebsd.jail.sysvmsg": "new",
        "org.freebsd.jail.sysvsem": "new",
        "org.freebsd.jail.sysvshm": "new",
        "org.freebsd.jail.allow.raw_sockets": "true",
        "org.freebsd.jail.allow.reserved_ports": "true",
    }
    return {
        **plain_config(source, process, version=_VERSION),
        "mounts": [
            {"destination": place, "type": kind, "source": device, "options": options}
            for place, kind, device, options in mounts
        ],
        "annotations": annotations_of(source.image.config) | annotations,
        "freebsd": {"jail": jail},
    }


def _jail_conf(source: BundleSource, process: ImageProcess, *, linux: bool) -> str:
    root = f"{source.place}/rootfs"
    environment = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in process.env.items())])
    command = f"cd {shlex.quote(process.cwd)} && exec {environment} {shlex.join(process.args)}"
    parameters: list[tuple[str, str]] = [
        ("path", root),
        ("host.hostname", source.label),
        ("vnet", ""),
        ("exec.clean", ""),
        ("mount.devfs", ""),
        ("devfs_ruleset", str(_DEVFS_RULESET)),
        ("enforce_statfs", "1" if linux else "2"),
        ("allow.noset_hostname", ""),
        ("allow.raw_sockets", ""),
        ("allow.reserved_ports", ""),
        ("sysvmsg", "new"),
        ("sysvsem", "new"),
        ("sysvshm", "new"),
    ]
    if linux:
        for kind, name in (("linprocfs", "proc"), ("linsysfs", "sys")):
            parameters.append(("mount", f"{kind} {_fstab(root)}/{name} {kind} rw 0 0"))
    if process.user.uid:
        user = (source.wishes.user or source.image.config.run.user).partition(":")[0]
        if user.isdigit():
            raise Unsupported(f"jail.conf names users, and user {user} of the image has no name; give one with --user")
        parameters.append(("exec.jail_user", user))
    parameters.append(("exec.start", command))
    return jail_conf(source.label, parameters)


def jail_conf(name: str, parameters: Sequence[tuple[str, str]]) -> str:
    """Return a jail.conf with one jail; a parameter without a value is a switch, one that comes again is added to.

    Raises InvalidDocument for a parameter that jail(8) does not know.
    """
    if not re.fullmatch("[a-z][a-z0-9-]*", name):
        raise InvalidDocument(f"jail.conf: {name!r} cannot be a jail's name")
    lines = [f"{name} {{"]
    seen = set()
    for key, value in parameters:
        if key not in _KNOWN:
            raise InvalidDocument(f"jail.conf: {key} is not a parameter of jail(8)")
        _KNOWN[key](value, f"jail.conf: {key}")
        operator = "+=" if key in seen else "="
        seen.add(key)
        lines.append(f"  {key} {operator} {quoted(value)};" if value else f"  {key};")
    return "\n".join([*lines, "}", ""])


def quoted(value: str) -> str:
    """Return a string for jail.conf: in double quotes $ would begin a variable, so then in single ones."""
    mark = "'" if "$" in value else '"'
    escaped = value.replace("\\", "\\\\").replace(mark, "\\" + mark).replace("\n", "\\n").replace("\r", "\\r")
    return f"{mark}{escaped}{mark}"


def _fstab(path: str) -> str:
    return path.replace(" ", "\\040").replace("\t", "\\011")
