"""What the environment says: where the store is, which moment builds happen at."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Literal


def store_root(given: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the local store's directory: --root, else IMAGETOOL_ROOT, else root's or the user's data directory."""
    from pathlib import Path

    return Path(store_root_text(given, environment))


def network_fallback(environment: Mapping[str, str] = os.environ) -> Literal["host", "refuse"]:
    """Return what containers get that no helper connects: IMAGETOOL_NETWORK_FALLBACK, host when it is not set.

    Raises UsageError for another word.
    """
    match text := environment.get("IMAGETOOL_NETWORK_FALLBACK", "") or "host":
        case "host" | "refuse":
            return text
        case _:
            from imagetool.errors import UsageError

            raise UsageError(f"IMAGETOOL_NETWORK_FALLBACK is host or refuse, not {text[:40]!r}")


def cdi_folders(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return where specs of devices are: IMAGETOOL_CDI_DIRS, with colons, else where CDI has them."""
    from pathlib import Path

    text = environment.get("IMAGETOOL_CDI_DIRS", "") or "/etc/cdi:/etc/buildkit/cdi:/var/run/cdi"
    return tuple(Path(folder) for folder in text.split(":") if folder)


def store_root_text(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return `store_root` as text."""
    named = given or environment.get("IMAGETOOL_ROOT")
    if named:
        return os.path.join(os.getcwd(), named)
    if os.geteuid() == 0:
        return "/var/lib/imagetool"
    data = environment.get("XDG_DATA_HOME") or os.path.join(environment.get("HOME") or "/nonexistent", ".local/share")
    return os.path.join(data, "imagetool")


def source_date_epoch(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return SOURCE_DATE_EPOCH, None when it is not set; raises UsageError for anything but seconds."""
    text = source_date_epoch_text(environment)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 11:
        from imagetool.errors import UsageError

        raise UsageError(f"SOURCE_DATE_EPOCH is {text[:40]!r}; it must be a number of seconds since 1970")
    return int(text)


def source_date_epoch_text(environment: Mapping[str, str] = os.environ) -> str:
    """Return SOURCE_DATE_EPOCH as it is, "" when it is not set."""
    return environment.get("SOURCE_DATE_EPOCH", "")


def build_argument(text: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """Read KEY=VALUE, or KEY for the environment's value; None when that is not set."""
    name, equals, value = text.partition("=")
    if not name:
        from imagetool.errors import UsageError

        raise UsageError(f"--build-arg {text!r}: write KEY=VALUE, or KEY to take it from the environment")
    if not equals and name not in environment:
        return None
    return name, utf8(value if equals else environment[name], f"--build-arg {name}")


def utf8(text: str, what: str) -> str:
    """Return text from outside that goes into documents; raises UsageError when it is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        from imagetool.errors import UsageError

        raise UsageError(f"{what}: the value is not UTF-8 text") from None
    return text


def colored(*, terminal: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether to use colours: FORCE_COLOR, else NO_COLOR, else whether there is a terminal that has them."""
    if environment.get("FORCE_COLOR") or environment.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def movable(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether lines can move on the terminal, when there is one."""
    return environment.get("TERM") != "dumb"


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def adjust_limits(given: Iterable[str] = (), environment: Mapping[str, str] = os.environ) -> None:
    """Set the limits that IMAGETOOL_LIMITS names, "layer-bytes=1TiB,tar-entries=20000000", then those of --limit.

    Raises UsageError for a limit that there is not, and for anything but whole numbers in its
    range, with KiB, MiB, GiB or TiB.
    """
    places = (("IMAGETOOL_LIMITS", environment.get("IMAGETOOL_LIMITS", "")), *(("--limit", text) for text in given))
    for where, text in places:
        if text or where == "--limit":
            _adjust(where, text)


def _adjust(where: str, text: str) -> None:
    import re

    from imagetool import limits
    from imagetool.errors import UsageError

    values = {}
    for written in text.split(","):
        name, _, number = written.strip().partition("=")
        constant = name.strip().upper().replace("-", "_")
        match = re.fullmatch(r"([1-9]\d{0,18})([kmgt]?)(?:ib|b)?", number.strip().lower(), re.ASCII)
        if constant not in limits.BOUNDED:
            raise UsageError(f"{where}: there is no limit {name[:40]!r}; see `imagetool limits`")
        if match is None:
            raise UsageError(f"{where}: {written[:60]!r}: write NAME=NUMBER, or with KiB, MiB, GiB or TiB")
        least, most = limits.range_of(constant)
        values[constant] = int(match[1]) * _UNITS[match[2]]
        if not least <= values[constant] <= most:
            raise UsageError(f"{where}: {written[:60]!r}: it can be {least} to {most}")
    limits.adjust(values)
