"""What the environment says: where the store is, which moment builds happen at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from imagetool.errors import UsageError


def store_root(given: Path | str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the local store's directory: --root, else IMAGETOOL_ROOT, else root's or the user's data directory."""
    if given is not None:
        return Path(given).absolute()
    if environment.get("IMAGETOOL_ROOT"):
        return Path(environment["IMAGETOOL_ROOT"]).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/imagetool")
    data = environment.get("XDG_DATA_HOME") or str(Path(environment.get("HOME") or "/nonexistent") / ".local/share")
    return Path(data) / "imagetool"


def source_date_epoch(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return SOURCE_DATE_EPOCH, None when it is not set; raises UsageError for anything but seconds."""
    text = environment.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdigit() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH is {text[:40]!r}; it must be a number of seconds since 1970")
    return int(text)


def build_argument(text: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """Read KEY=VALUE, or KEY for the environment's value; None when that is not set."""
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--build-arg {text!r}: write KEY=VALUE, or KEY to take it from the environment")
    if equals:
        return name, value
    return (name, environment[name]) if name in environment else None


def colored(*, terminal: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether to use colours: FORCE_COLOR, else NO_COLOR, else whether there is a terminal that has them."""
    if environment.get("FORCE_COLOR") or environment.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
