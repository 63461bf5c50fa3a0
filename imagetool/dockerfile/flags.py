"""The `--name[=value]` words before an instruction's arguments.

Every error here is a DockerfileError without a place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from imagetool.dockerfile.wording import did_you_mean, printable, quoted
from imagetool.errors import DockerfileError

Flags = Mapping[str, tuple[str, ...]]


class Kind(Enum):
    """What a flag takes."""

    SWITCH = "true or false, true when there is no value"
    ONE = "one value"
    MANY = "a value each time it is given"


def read_flags(words: Iterable[str], known: Mapping[str, Kind]) -> Flags:
    """Return the values of each flag that is given, in order; those of a switch are `true` or `false`."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise DockerfileError(
                f"unknown flag --{printable(name)}{did_you_mean(name, known)}", about=f"--{name}", hint=_offer(known)
            )
        if name in found and kind is not Kind.MANY:
            raise DockerfileError(f"--{name} is given twice", about=word)
        if kind is Kind.SWITCH and not equals:
            value = "true"
        elif not equals or (kind is Kind.SWITCH and not value):
            raise DockerfileError(f"--{name} needs a value: --{name}=…", about=word)
        elif kind is Kind.SWITCH:
            value = value.lower()
            if value not in ("true", "false"):
                raise DockerfileError(f"--{name} is true or false, not {quoted(value)}", about=word)
        found.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in found.items()}


def _offer(known: Mapping[str, Kind]) -> str:
    if not known:
        return "this instruction takes no flags; write -- before an argument that begins with --"
    return "the flags here are " + ", ".join(f"--{name}" for name in known)


def one(flags: Flags, name: str) -> str | None:
    """Return the value of a flag that takes one; an empty value is as good as none."""
    return flags.get(name, ("",))[0] or None


def switch(flags: Flags, name: str) -> bool | None:
    """Return a switch, None when it is not given."""
    return flags[name][0] == "true" if name in flags else None
