"""Isolators: what each that the spec defines may hold.

An isolator we do not know is for its executor to judge: the spec lets that ignore it, actool refuses
it inside an app. It is accepted where a manifest is read and refused where one is made.

Source: appc spec v0.8.11, ace.md, "Isolators".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from imagetool.appc.names import check_identifier
from imagetool.appc.spelling import objects, spelt
from imagetool.errors import InvalidDocument
from imagetool.oci import document

_QUANTITY: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[numkKMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?\Z")
_ERRNO: Final = re.compile(r"(?:E[A-Z0-9]+)?\Z")
_SECCOMP: Final = ("os/linux/seccomp-retain-set", "os/linux/seccomp-remove-set")
_CAPABILITIES: Final = ("os/linux/capabilities-retain-set", "os/linux/capabilities-remove-set")

_Check = Callable[[object, str, str], None]


def check_isolators(app: Mapping[str, Any], *, path: str, what: str, strict: bool) -> list[dict[str, Any]]:
    """Return the isolators of an app or a pod, keys in the spec's spelling. Raises InvalidDocument.

    Args:
        strict: refuse also isolators the spec does not define, and both capability sets together,
            which actool lets pass.
    """
    found = objects(app, "isolators", ("name", "value"), path=path, what=what)
    names = []
    for number, isolator in enumerate(found):
        at = f"{path}.isolators[{number}]"
        name = document.get(isolator, "name", str, None, path=at, what=what)
        check_identifier(name, path=f"{at}.name", what=what, strict=strict)
        names.append(name)
        check = _KNOWN.get(name)
        if check is not None:
            check(isolator.get("value"), f"{at}.value", what)
        elif strict:
            raise InvalidDocument(f"{what}: {at}.name {name[:80]!r} is not an isolator of the spec")
    if sum(name in _SECCOMP for name in names) > 1:
        raise InvalidDocument(f"{what}: {path}.isolators has more than one seccomp set")
    if strict and set(_CAPABILITIES) <= set(names):
        raise InvalidDocument(f"{what}: {path}.isolators has both a retain set and a remove set of capabilities")
    return found


def _fields(value: object, names: tuple[str, ...], at: str, what: str) -> dict[str, Any]:
    return spelt(document.expect(value, dict, at, what), names, path=at, what=what)


def _resource(default: bool, *, request: bool) -> _Check:
    """Return the check of a resource; `default` is what its field of that name must say."""

    def check(value: object, at: str, what: str) -> None:
        fields = _fields(value, ("default", "request", "limit"), at, what)
        if document.get(fields, "default", bool, False, path=at, what=what) is not default:
            raise InvalidDocument(f"{what}: {at}.default must be {str(default).lower()}")
        if not request and fields.get("request") is not None:
            raise InvalidDocument(f"{what}: {at}.request is not for this resource, only a limit is")
        for key in ("request", "limit"):
            quantity = fields.get(key)
            if quantity is None or (isinstance(quantity, int | float) and not isinstance(quantity, bool)):
                continue
            if not _QUANTITY.match(document.expect(quantity, str, f"{at}.{key}", what)):
                raise InvalidDocument(f"{what}: {at}.{key} is not a quantity: {quantity[:40]!r}")

    return check


def _set(value: object, at: str, what: str) -> None:
    fields = _fields(value, ("set", "errno"), at, what)
    if not all(document.get_strings(fields, "set", path=at, what=what)) or not fields.get("set"):
        raise InvalidDocument(f"{what}: {at}.set is empty, or holds an empty name")


def _seccomp(value: object, at: str, what: str) -> None:
    _set(value, at, what)
    errno = document.get(_fields(value, ("set", "errno"), at, what), "errno", str, "", path=at, what=what)
    if not _ERRNO.match(errno):
        raise InvalidDocument(f"{what}: {at}.errno is not the name of an error: {errno[:40]!r}")


def _switch(value: object, at: str, what: str) -> None:
    document.expect(value, bool, at, what)


def _between(low: int, high: int) -> _Check:
    def check(value: object, at: str, what: str) -> None:
        number = document.expect(value, int, at, what)
        if not low <= number <= high:
            raise InvalidDocument(f"{what}: {at} is {number}, expected {low} to {high}")

    return check


def _selinux(value: object, at: str, what: str) -> None:
    fields = _fields(value, ("user", "role", "type", "level"), at, what)
    for key in ("user", "role", "type", "level"):
        text = document.get(fields, key, str, "", path=at, what=what)
        if key != "level" and ":" in text:
            raise InvalidDocument(f"{what}: {at}.{key} holds a colon: {text[:40]!r}")


def _apparmor(value: object, at: str, what: str) -> None:
    document.get(_fields(value, ("profile",), at, what), "profile", str, None, path=at, what=what)


def _sysctl(value: object, at: str, what: str) -> None:
    for key, setting in document.expect(value, dict, at, what).items():
        document.expect(setting, str, f"{at}.{key}", what)


_KNOWN: Final[Mapping[str, _Check]] = {
    "resource/cpu": _resource(False, request=True),
    "resource/memory": _resource(False, request=True),
    "resource/block-bandwidth": _resource(True, request=False),
    "resource/block-iops": _resource(True, request=False),
    "resource/network-bandwidth": _resource(True, request=False),
    "os/linux/capabilities-retain-set": _set,
    "os/linux/capabilities-remove-set": _set,
    "os/linux/seccomp-retain-set": _seccomp,
    "os/linux/seccomp-remove-set": _seccomp,
    "os/linux/no-new-privileges": _switch,
    "os/linux/selinux-context": _selinux,
    "os/linux/apparmor-profile": _apparmor,
    "os/linux/oom-score-adj": _between(-1000, 1000),
    "os/linux/cpu-shares": _between(2, 262_144),
    "os/unix/sysctl": _sysctl,
}
