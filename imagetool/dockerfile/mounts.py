"""`RUN --mount` and `RUN --device`: comma-separated options into values.

Every error here is a DockerfileError without a place.

Source: Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, get_args

from imagetool.dockerfile.instructions import MountType, RunDevice, RunMount, Sharing
from imagetool.dockerfile.values import parse_boolean, parse_number, parse_size
from imagetool.dockerfile.wording import did_you_mean, printable, quoted
from imagetool.errors import DockerfileError

_TYPES: Final = get_args(MountType)
_SHARINGS: Final = get_args(Sharing)
_FIELD: Final = {
    "type": "type",
    "from": "from_",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "readwrite": "readwrite",
    "rw": "readwrite",
    "size": "size",
    "tmpfs-size": "size",
    "id": "id",
    "sharing": "sharing",
    "required": "required",
    "env": "env",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
}
#: Buildah's words for SELinux labels, by what they may be set to. No label is ever made, so there is nothing to do.
_LABELS: Final = {"z": ("",), "Z": ("",), "relabel": ("shared", "private")}
_BARE: Final = ("readonly", "readwrite", "required")
#: Fields that only some types have; the others have them all or do not care.
_ONLY_FOR: Final = {
    "size": ("tmpfs",),
    "sharing": ("cache",),
    "required": ("secret", "ssh"),
    "mode": ("cache", "secret", "ssh"),
    "uid": ("cache", "secret", "ssh"),
    "gid": ("cache", "secret", "ssh"),
}
_CSV_FIELD: Final = r'"((?:[^"]|"")*+)"(?=,|\Z)|([^",][^",]*|(?=,|\Z))(?=,|\Z)'


def parse_mount(text: str, expand: Callable[[str], str] | None = None) -> RunMount:
    """Read one mount.

    Args:
        expand: applied to every value but that of `from`. Without it a value that holds a `$` is left at its default,
            and what depends on several options is checked only when no value holds one.
    """
    found: dict[str, Any] = {}
    complete = True
    for option in _csv(text):
        key, equals, value = option.partition("=")
        if value in _LABELS.get(key, ()):
            continue
        field = _FIELD.get(key.lower())
        if field is None:
            raise DockerfileError(
                f"unknown mount option {quoted(key)}{did_you_mean(key.lower(), _FIELD)}", about=option
            )
        if not equals and field not in _BARE:
            raise DockerfileError(f"mount option {printable(key)} needs a value: {printable(key)}=…", about=option)
        if field == "from_":
            _refuse_variable(value)
        elif expand:
            value = expand(value)
        elif "$" in value:
            complete = False
            continue
        found[field] = _value(field, key, value if equals else "true")
    if "readwrite" in found:
        found["readonly"] = not found.pop("readwrite")
    found.setdefault("readonly", found.get("type", "bind") not in ("cache", "tmpfs"))
    if complete:
        _check_together(found)
    return RunMount(**found, text=text)


def mount_values(text: str) -> list[str]:
    """Return the values of a mount's options that are expanded: all but that of `from`."""
    options = (option.partition("=") for option in _csv(text))
    return [value for key, _, value in options if key.lower() != "from"]


def _refuse_variable(value: str) -> None:
    if re.search(r"\$.", value):
        raise DockerfileError(
            "the mount option from cannot hold a variable: name a stage with FROM $variable AS name", about=value
        )


def _value(field: str, key: str, value: str) -> object:
    match field:
        case "type":
            return _one_of("mount type", value, _TYPES)
        case "sharing":
            return _one_of("sharing", value, _SHARINGS)
        case "readonly" | "readwrite" | "required":
            number: object = parse_boolean(value)
        case "size":
            number = parse_size(value)
        case "mode":
            number = parse_number(value, base=8)
        case "uid" | "gid":
            number = parse_number(value)
        case _:
            return value
    if number is None:
        raise DockerfileError(f"invalid value {quoted(value)} for the mount option {key}", about=f"{key}={value}")
    return number


def _one_of(what: str, written: str, options: tuple[str, ...]) -> str:
    value = written.lower()
    if value not in options:
        hint = did_you_mean(value, options) or f": use {', '.join(options)}"
        raise DockerfileError(f"unsupported {what} {quoted(value)}{hint}", about=written)
    return value


def _check_together(found: dict[str, Any]) -> None:
    kind = found.get("type", "bind")
    for field, kinds in _ONLY_FOR.items():
        if field in found and kind not in kinds:
            raise DockerfileError(f"a {kind} mount has no {field}: that is for {', '.join(kinds)}", about=field)
    if kind == "secret":
        if "from_" in found:
            raise DockerfileError("a secret mount has no from", about="from=")
        if not any(found.get(field) for field in ("source", "target", "id")):
            raise DockerfileError("a secret mount needs an id or a target")
        if found.get("source") and found.get("id"):
            raise DockerfileError("a secret mount has either source or id: they mean the same")


def parse_device(text: str) -> RunDevice:
    """Read `[name=]NAME[,required[=bool]]`."""
    name = ""
    required: bool | None = False
    for option in _csv(text):
        key, equals, value = option.partition("=")
        if key.lower() == "required":
            required = parse_boolean(value) if equals else True
            if required is None:
                raise DockerfileError(f"invalid value {quoted(value)} for the device option required", about=option)
        elif name:
            raise DockerfileError(
                f"unexpected device option {quoted(option)}: the device is already {quoted(name)}", about=option
            )
        else:
            name = value if key.lower() == "name" and equals else option
    if not name:
        raise DockerfileError("a device needs a name")
    return RunDevice(name, bool(required))


def _csv(text: str) -> list[str]:
    """Split one line of comma-separated values; a field in double quotes may hold commas and doubled quotes."""
    fields: list[str] = []
    at = 0
    while at <= len(text) and text:
        match = re.compile(_CSV_FIELD).match(text, at)
        if not match:
            raise DockerfileError(f"a double quote is out of place in {quoted(text)}", about=text)
        fields.append(match[1].replace('""', '"') if match[1] is not None else match[2])
        at = match.end() + 1
    if not fields:
        raise DockerfileError("the value is empty: write key=value,…")
    return fields
