"""A container's own control group, and what it says about how the container ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from imagetool.errors import Unsupported
from imagetool.runtime.cgroups import Group, GroupTree, Outcome
from imagetool.runtime.executors.launcher import Launcher
from imagetool.runtime.executors.protocol import ExitStatus
from imagetool.runtime.spec import RuntimeSpec, unmapped
from imagetool.values import replace


@contextmanager
def launching(*, warn: Callable[[str], None] | None = None) -> Iterator[tuple[GroupTree, Launcher]]:
    """Yield the control groups for an executor's containers, and what launches them; both end with the context.

    With `warn`, the launcher and what it starts join the shared group; see `Launcher`.
    """
    with GroupTree() as groups, Launcher() if warn is None else Launcher(groups.shared, warn=warn) as launcher:
        yield groups, launcher


@contextmanager
def limited(tree: GroupTree, spec: RuntimeSpec) -> Iterator[Group | None]:
    """Yield the group for a container that has limits, of time too, or is measured, None for others.

    Raises HostError where a limit cannot be set.
    """
    resources = spec.tree["linux"].get("resources", {})
    if not resources and not spec.measured and spec.timeout is None:
        yield None
        return
    group = tree.group(resources)
    try:
        yield group
    finally:
        group.close()


def without_user_namespace(spec: RuntimeSpec, name: str) -> RuntimeSpec:
    """Return the description for an executor that makes no user namespace; raise Unsupported when there must be one."""
    if "uidMappings" not in spec.tree["linux"]:
        return spec
    if not spec.may_be_unmapped:
        raise Unsupported(f"--userns auto needs the embedded executor; {name} runs with --userns host")
    return unmapped(spec)


def refuse_hooks(spec: RuntimeSpec, name: str) -> None:
    """Raise Unsupported for a description with hooks, which are programs that an OCI runtime runs."""
    if hooks := spec.tree.get("hooks"):
        raise Unsupported(f"{name} runs no hooks, and a device has one at {min(hooks)}: use --isolation oci")


def judged(status: ExitStatus, spec: RuntimeSpec, group: Group | None) -> ExitStatus:
    """Return the status with what the container's group knows: its peak of memory, and the limit that it met."""
    if group is None:
        return status
    outcome = group.outcome()
    usage = replace(status.usage, peak_memory=outcome.peak_memory or status.usage.peak_memory)
    limit = status.limit  # of time: its group cannot know
    if limit and outcome.peak_memory:
        limit += f", using {_mebibytes(outcome.peak_memory)} of memory at most"
    elif status.code and not limit:
        limit = _met(outcome, spec.tree["linux"].get("resources", {}), killed=status.code == 128 + signal.SIGKILL)
    return replace(status, usage=usage, limit=limit)


def _met(outcome: Outcome, resources: Mapping[str, Any], *, killed: bool) -> str:
    memory, pids = (resources.get(key, {}).get("limit") for key in ("memory", "pids"))
    if memory is not None and (outcome.killed or (killed and outcome.peak_memory >= memory)):
        used = f", using {_mebibytes(outcome.peak_memory)}" if outcome.peak_memory else ""  # known from Linux 5.19 on
        return f"its memory limit of {_mebibytes(memory)}{used}"
    if pids is not None and (outcome.refused or outcome.peak_processes >= pids > 0):
        return f"its limit of {pids} processes"
    return ""


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
