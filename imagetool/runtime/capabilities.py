"""Linux capabilities: their names, and how a process sheds all but a few.

Source: capabilities(7); include/uapi/linux/capability.h.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

from imagetool.runtime import syscalls

#: In the kernel's order: the position is the number.
NAMES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)


def mask(names: Iterable[str]) -> int:
    """Return the bit mask of capabilities named as in the OCI config. Raises KeyError for a name unknown here."""
    numbers = {name: number for number, name in enumerate(NAMES)}
    return sum(1 << numbers[name] for name in set(names))


def limit_bounding_set(keep: int) -> None:
    """Drop all other capabilities from the bounding set: no setuid file can ever give them back."""
    ambient_clear_all = 4
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, ambient_clear_all)
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL:  # past the last one this kernel knows
                return
            raise


def hold(keep: int) -> None:
    """Keep of the capabilities held now those in `keep`; what is not held cannot be asked for."""
    syscalls.capset(keep & syscalls.capget())


def raise_effective() -> None:
    """Put in force all that is held: a change of the user id keeps it but no longer in force."""
    syscalls.capset(syscalls.capget())


def held() -> tuple[str, ...]:
    """Return the names of the capabilities that this process may put in force."""
    mask = syscalls.capget()
    return tuple(name for number, name in enumerate(NAMES) if mask >> number & 1)


def holds(name: str) -> bool:
    """Say whether this process has a capability in force."""
    with open("/proc/self/status") as file:
        mask = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    return bool(int(mask, 16) >> NAMES.index(name) & 1)
