"""What a container's processes may do: capabilities, system calls, and whether setuid programs give more.

Source: runtime-spec v1.2 config.md "Linux Process", config-linux.md "Seccomp"; the options of docker run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from imagetool.errors import UsageError
from imagetool.runtime.capabilities import NAMES
from imagetool.runtime.seccomp.profile import default_profile, read_profile, resolve
from imagetool.values import dataclass, field

#: What a build step may do: buildah's set, which is Docker's without MKNOD, NET_RAW and AUDIT_WRITE.
DEFAULT_CAPABILITIES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
#: What docker, podman and containerd give a container.
CONTAINER_CAPABILITIES: Final = tuple(sorted({*DEFAULT_CAPABILITIES, "CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW"}))


@dataclass(frozen=True, slots=True)
class Security:
    """The privileges of a container's root.

    Args:
        capabilities: all that any process in the container can ever have. Raises UsageError for an unknown one.
        seccomp: a checked profile; None for no filter at all.
        no_new_privileges: setuid programs and file capabilities give nothing; off as elsewhere, for steps use sudo;
            see `sandbox.parse_sandbox` for when not.
    """

    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    seccomp: Mapping[str, Any] | None = field(default_factory=default_profile)
    no_new_privileges: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted({*self.capabilities}.difference(NAMES)):
            raise UsageError(f"unknown capabilities: {', '.join(unknown)}")

    def seccomp_tree(self) -> dict[str, Any] | None:
        """Return `linux.seccomp` for this machine."""
        if self.seccomp is None:
            return None
        host = os.uname()
        return resolve(self.seccomp, capabilities=self.capabilities, machine=host.machine, kernel=host.release)


def security_of(
    *, cap_add: Iterable[str] = (), cap_drop: Iterable[str] = (), security_opt: Iterable[str] = ()
) -> Security:
    """Return what options in the manner of docker run ask for.

    Args:
        cap_add, cap_drop: names in any case, with or without "CAP_"; "ALL". What is dropped by name is
            dropped whatever is added; ALL added and a name dropped is all but that.
        security_opt: seccomp=FILE, seccomp=unconfined, seccomp=default, no-new-privileges[=true|false].

    Raises UsageError for what is none of these; what `read_profile` raises.
    """
    added = [_capability("--cap-add", name) for name in cap_add]
    dropped = [_capability("--cap-drop", name) for name in cap_drop]
    kept = NAMES if "ALL" in added else () if "ALL" in dropped else DEFAULT_CAPABILITIES
    wanted = {*kept, *added} - {*dropped, "ALL"}
    profile: Mapping[str, Any] | None = default_profile()
    no_new_privileges = False
    for option in security_opt:
        name, equals, value = option.partition("=")
        if name == "seccomp" and value:
            profile = (
                None
                if value == "unconfined"
                else default_profile()
                if value == "default"
                else read_profile(Path(value))
            )
        elif name == "no-new-privileges" and (not equals or value in ("true", "false")):
            no_new_privileges = value != "false"
        else:
            raise UsageError(
                f"--security-opt {option[:80]!r}: there are seccomp=FILE, seccomp=unconfined and no-new-privileges"
            )
    return Security(tuple(sorted(wanted)), profile, no_new_privileges)


def _capability(option: str, text: str) -> str:
    name = text.upper()
    if name == "ALL":
        return name
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in NAMES:
        raise UsageError(f"{option} {text[:80]!r} is not a capability; see capabilities(7)")
    return name
