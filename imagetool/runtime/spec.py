"""A container as an OCI runtime-spec config; every executor runs this one description.

Source: runtime-spec v1.2 config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from imagetool.runtime.users import User

#: What a build step may do: buildah's set, which is Docker's without MKNOD, NET_RAW and AUDIT_WRITE.
DEFAULT_CAPABILITIES: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)
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


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: where, of which type, from what, and how."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...] = ()

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


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """A runtime-spec config; `tree` is its JSON form, apart from `root`, which the executor adds."""

    tree: Mapping[str, Any]


def build_step_spec(
    *,
    args: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    user: User,
    hostname: str,
    mounts: Sequence[Mount] = (),
    network: Literal["host", "none"] = "host",
    capabilities: Sequence[str] = DEFAULT_CAPABILITIES,
    readonly: bool = False,
) -> RuntimeSpec:
    """Describe the container of one build step: fresh namespaces, few capabilities, private /proc and /dev."""
    kinds = ["mount", "pid", "uts", "ipc", *(["network"] if network == "none" else [])]
    names = list(capabilities)
    return RuntimeSpec(
        {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {
                    "uid": user.uid,
                    "gid": user.gid,
                    "umask": 0o022,
                    "additionalGids": list(user.additional_gids),
                },
                "args": list(args),
                "env": [f"{name}={value}" for name, value in env.items()],
                "cwd": cwd,
                "capabilities": {"bounding": names, "effective": names, "permitted": names},
                "noNewPrivileges": False,
            },
            "root": {"path": "rootfs", "readonly": readonly},
            "hostname": hostname,
            "mounts": [mount.tree() for mount in (*DEFAULT_MOUNTS, *mounts)],
            "linux": {
                "namespaces": [{"type": kind} for kind in kinds],
                "maskedPaths": list(MASKED_PATHS),
                "readonlyPaths": list(READONLY_PATHS),
            },
        }
    )


def resolv_conf_text(host: str) -> str:
    """Return the resolv.conf of a container on the host's network: what matters of the host's."""
    kept = ("nameserver", "search", "domain", "options")
    lines = [line.strip() for line in host.splitlines() if line.split()[:1] and line.split()[0] in kept]
    return "".join(f"{line}\n" for line in lines)
