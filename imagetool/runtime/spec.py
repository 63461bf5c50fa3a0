"""A container as an OCI runtime-spec config; every executor runs this one description.

Source: runtime-spec v1.2 config.md and config-linux.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from imagetool.errors import UsageError
from imagetool.runtime.ceilings import Ceilings
from imagetool.runtime.network import HOST, Network
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.users import User
from imagetool.values import dataclass, replace

#: What of /proc and /sys tells about, or reaches, the host.
MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def _refuse_nul(what: str, *texts: str) -> None:
    if any("\0" in text for text in texts):
        raise UsageError(f"{what} holds a NUL character, which no program can be given")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of the description.

    `source` is a host path for a bind, which "bind" or "rbind" among the options makes it; it
    is trusted and followed. `destination` is resolved inside the container's root. Raises
    UsageError for a destination that is not absolute, or text with NUL.
    """

    destination: str
    type: str
    source: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.destination.startswith("/"):
            raise UsageError(f"the mount point {self.destination[:80]!r} is not an absolute path")
        _refuse_nul("a mount", self.destination, self.source, *self.options)

    def tree(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "destination": self.destination,
            "type": self.type,
            "source": self.source,
            "options": list(self.options),
        }


DEFAULT_MOUNTS: Final = (
    Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
    Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
)


#: Ids of the host that belong to no user: above those of systemd's containers, below its other ranges.
_NOBODYS: Final = range(0x70000000, 0x71000000)
#: Low ids are moved there; high ones, which some sites give to people, are themselves, so that no id is missing.
_ROWS: Final = [
    {"containerID": 0, "hostID": _NOBODYS.start, "size": len(_NOBODYS)},
    {"containerID": len(_NOBODYS), "hostID": len(_NOBODYS), "size": _NOBODYS.start - len(_NOBODYS)},
    {"containerID": _NOBODYS.stop, "hostID": _NOBODYS.stop, "size": 0xFFFFFFFF - _NOBODYS.stop},
]
ID_MAPPINGS: Final = {"uidMappings": _ROWS, "gidMappings": _ROWS}


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """A runtime-spec config as its JSON tree, not to be changed; an executor adds where the root is.

    Trusted: it comes from `build_step_spec`, which checks what users and images put in.

    Args:
        timeout: seconds until the container is killed; None for never.
        measured: tell the peak of memory of all its processes together, where that is possible.
        may_be_unmapped: the user namespace may be left out where it cannot be had; see `unmapped`.
        helper: the command that connects its network namespace, for the embedded executor; see `connection`.
        device_rules: devices beyond the usual that its control group lets it use, as OCI rules; see `grants`.
        sandboxed: it has no more than the usual rights; see `grants.without_sandbox`.
    """

    tree: Mapping[str, Any]
    timeout: float | None = None
    measured: bool = False
    may_be_unmapped: bool = False
    helper: tuple[str, ...] = ()
    device_rules: tuple[Mapping[str, Any], ...] = ()
    sandboxed: bool = True

    def json(self) -> bytes:
        """Return config.json."""
        return json.dumps(self.tree, indent=1).encode()


def unmapped(spec: RuntimeSpec) -> RuntimeSpec:
    """Return the description without a user namespace."""
    linux = {key: value for key, value in spec.tree["linux"].items() if key not in ID_MAPPINGS}
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "user"]
    return replace(spec, tree={**spec.tree, "linux": linux}, may_be_unmapped=False)


def build_step_spec(
    *,
    args: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    user: User,
    hostname: str,
    mounts: Sequence[Mount] = (),
    network: Network = HOST,
    sandbox: Sandbox | None = None,
    readonly: bool = False,
    terminal: bool = False,
) -> RuntimeSpec:
    """Describe the container of one build step: fresh namespaces, few privileges, private /proc and /dev.

    Args:
        args: the program, looked up in the PATH of `env` inside the root, and its arguments.
        mounts: made after the default ones, in this order.
        network: the host's, or one of its own.
        sandbox: privileges and ceilings, `Sandbox()` when None.

    Raises UsageError for an empty command, a NUL anywhere, a relative `cwd`.
    """
    _check(args, env, cwd, hostname)
    sandbox = sandbox or Sandbox()
    ceilings = sandbox.ceilings
    return RuntimeSpec(
        {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": terminal,
                "user": _user(user),
                "args": list(args),
                "env": [f"{name}={value}" for name, value in env.items()],
                "cwd": cwd,
                **_privileges(sandbox),
            },
            "root": {"path": "rootfs", "readonly": readonly},
            "hostname": hostname,
            "mounts": [mount.tree() for mount in (*_default_mounts(ceilings), *mounts)],
            "linux": _linux(sandbox, network),
        },
        timeout=ceilings.timeout,
        measured=sandbox.measured,
        may_be_unmapped=sandbox.userns == "default",
        helper=network.helper,
    )


def _check(args: Sequence[str], env: Mapping[str, str], cwd: str, hostname: str) -> None:
    if not args or not args[0]:
        raise UsageError("the command to run is empty")
    if not cwd.startswith("/"):
        raise UsageError(f"the working directory {cwd[:80]!r} is not an absolute path")
    _refuse_nul("the command", *args)
    _refuse_nul("the environment", *env, *env.values())
    _refuse_nul("the container", cwd, hostname)


def _user(user: User) -> dict[str, Any]:
    return {"uid": user.uid, "gid": user.gid, "umask": 0o022, "additionalGids": list(user.additional_gids)}


def _privileges(sandbox: Sandbox) -> dict[str, Any]:
    """Return what the process may do, and how much."""
    names, ulimits = list(sandbox.security.capabilities), sandbox.ceilings.ulimits
    return {
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "noNewPrivileges": sandbox.security.no_new_privileges,
        **({"rlimits": [ulimit.tree() for ulimit in ulimits]} if ulimits else {}),
    }


def _linux(sandbox: Sandbox, network: Network) -> dict[str, Any]:
    """Return what keeps the container apart from the machine."""
    kinds = ["mount", "pid", "uts", "ipc", "cgroup", *(["network"] if network.own else [])]
    if sandbox.userns != "host":
        kinds.append("user")
    seccomp = sandbox.security.seccomp_tree()
    return {
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
        **({} if seccomp is None else {"seccomp": seccomp}),
        **(ID_MAPPINGS if sandbox.userns != "host" else {}),
        **({"resources": resources} if (resources := sandbox.ceilings.resources()) else {}),
    }


def _default_mounts(ceilings: Ceilings) -> Iterator[Mount]:
    for mount in DEFAULT_MOUNTS:
        if mount.destination == "/dev/shm" and ceilings.shm_size is not None:
            options = [option for option in mount.options if not option.startswith("size=")]
            yield replace(mount, options=(*options, f"size={ceilings.shm_size}"))
        else:
            yield mount
