"""What `from` and `config` said of every command that is run in a working container, as options of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from imagetool.runtime.sandbox import Sandbox, parse_sandbox
from imagetool.runtime.security import CONTAINER_CAPABILITIES, security_of
from imagetool.values import replace
from imagetool.verbs.run import RunOptions
from imagetool.verbs.volumes import Volume

_PLAIN: Final = ("network", "isolation", "runtime", "hostname")
_PARTS: Final = ("security", "ceilings", "names", "measured", "userns")


def container_sandbox(*, cap_add: Sequence[str] = (), cap_drop: Sequence[str] = (), **given: Any) -> Sandbox:
    """Return what options ask for as `parse_sandbox` does, for containers that have what docker's have.

    That is a little more than build steps have.
    """
    sandbox = parse_sandbox(cap_add=cap_add, cap_drop=cap_drop, **given)
    everything = any(name.upper() == "ALL" for name in cap_drop)
    names = [*(() if everything else CONTAINER_CAPABILITIES), *cap_add]
    security = security_of(cap_add=names, cap_drop=cap_drop, security_opt=given.get("security_opt", ()))
    return replace(sandbox, security=security)


def with_kept(options: RunOptions, runs: Mapping[str, Any]) -> RunOptions:
    """Return options that begin with those that a container keeps, `runs` of its record.

    Volumes go on from those that are kept. Of the rest what is not given is as it was kept, in the sandbox each part.
    """
    own = {name: value for name, value in runs.items() if name not in (*_PLAIN, "volume")}
    kept = container_sandbox(**own)
    plain = RunOptions()
    parts = {
        name: getattr(kept, name) for name in _PARTS if getattr(options.sandbox, name) == getattr(plain.sandbox, name)
    }
    others = {name: runs[name] for name in _PLAIN if name in runs and getattr(options, name) == getattr(plain, name)}
    volumes = [*(Volume.parse(text, folder=Path("/")) for text in runs.get("volume", ())), *options.volumes]
    return replace(options, volumes=volumes, sandbox=replace(options.sandbox, **parts), **others)
