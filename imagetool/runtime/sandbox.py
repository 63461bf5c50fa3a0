"""What holds for every container of a build: privileges, ceilings, names of the network; from options to a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from imagetool.runtime.ceilings import Ceilings, parse_ceilings
from imagetool.runtime.names import Names, parse_names
from imagetool.runtime.security import Security, security_of
from imagetool.values import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The settings; `measured` asks for the peak of memory of all processes together.

    userns: "auto" for a user namespace whose root is nobody on the host; "host" for the builder's own;
    "default" for auto where it can be had.
    """

    security: Security = field(default_factory=Security)
    ceilings: Ceilings = field(default_factory=Ceilings)
    names: Names = field(default_factory=Names)
    measured: bool = False
    userns: Literal["auto", "default", "host"] = "host"


def parse_sandbox(
    *,
    security_opt: Sequence[str] = (),
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    add_host: Sequence[str] = (),
    dns: Sequence[str] = (),
    stats: bool = False,
    userns: str | None = None,
    **ceilings: Any,
) -> Sandbox:
    """Return what options in the manner of docker run ask for, for the steps of a build.

    Who asks for the host's user namespace gets steps in which setuid programs give nothing: there
    they would give what root of the host has. --security-opt no-new-privileges=false keeps them.
    `ceilings` are the options of `parse_ceilings`. Raises UsageError, and what a profile's reader does.
    """
    security = security_of(cap_add=cap_add, cap_drop=cap_drop, security_opt=security_opt)
    if userns == "host" and not any(option.startswith("no-new-privileges") for option in security_opt):
        security = replace(security, no_new_privileges=True)
    return Sandbox(
        security,
        parse_ceilings(**ceilings),
        parse_names(add_host, dns),
        stats,
        _user_namespace(userns, cap_add),
    )


def _user_namespace(asked: str | None, cap_add: Sequence[str]) -> Literal["auto", "default", "host"]:
    """Return the choice; who adds capabilities means them to count on the host."""
    if asked == "auto":
        return "auto"
    return "host" if asked == "host" or cap_add else "default"
