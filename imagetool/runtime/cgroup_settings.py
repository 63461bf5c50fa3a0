"""What `linux.resources` of the OCI config is in the files of control groups, of version 1 and of version 2.

Source: runtime-spec v1.2 config-linux.md "Control groups"; Linux Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """A file of a controller and what to write there; `optional` when it may be missing."""

    controller: str
    file: str
    value: str
    optional: bool = False


def settings(resources: Mapping[str, Any], version: int) -> tuple[Setting, ...]:
    """Return what `linux.resources` means in one version, in the order of writing."""
    found = []
    memory, cpu, pids = (resources.get(key, {}) for key in ("memory", "cpu", "pids"))
    if "limit" in memory:
        limit, swap = memory["limit"], memory.get("swap", memory["limit"])
        # A kernel without accounting of swap has no file for it: then there is no swap to speak of.
        if version == 1:
            found.append(Setting("memory", "memory.limit_in_bytes", str(limit)))
            found.append(Setting("memory", "memory.memsw.limit_in_bytes", str(swap), optional=swap == limit))
        else:
            rest = "max" if swap < 0 else str(swap - limit)
            found.append(Setting("memory", "memory.max", str(limit)))
            found.append(Setting("memory", "memory.swap.max", rest, optional=swap == limit))
            # A step is killed whole: what goes on without a process that it started may come to a wrong end.
            found.append(Setting("memory", "memory.oom.group", "1", optional=True))
    if "quota" in cpu:
        if version == 1:
            found.append(Setting("cpu", "cpu.cfs_period_us", str(cpu["period"])))
            found.append(Setting("cpu", "cpu.cfs_quota_us", str(cpu["quota"])))
        else:
            found.append(Setting("cpu", "cpu.max", f"{cpu['quota']} {cpu['period']}"))
    if "shares" in cpu:
        weight = 1 + (cpu["shares"] - 2) * 9999 // 262142
        found.append(
            Setting("cpu", *(("cpu.shares", str(cpu["shares"])) if version == 1 else ("cpu.weight", str(weight))))
        )
    if "cpus" in cpu:
        found.append(Setting("cpuset", "cpuset.cpus", cpu["cpus"]))
    if "limit" in pids:
        found.append(Setting("pids", "pids.max", "max" if pids["limit"] < 0 else str(pids["limit"])))
    return tuple(found)
