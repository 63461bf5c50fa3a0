"""Read a seccomp profile, of Docker's or Podman's dialect or already resolved, and resolve it for a container.

A profile's rules may depend on the container's capabilities, the machine and the kernel. What is
resolved is `linux.seccomp` of the OCI config, which needs to know none of these.

Source: runtime-spec v1.2 config-linux.md "Seccomp"; the profiles of github.com/moby/profiles and
github.com/containers/common (pkg/seccomp).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from imagetool import limits
from imagetool.errors import NotFound, UsageError
from imagetool.oci.document import decode
from imagetool.runtime.seccomp.compiler import ACTIONS, OPERATORS
from imagetool.runtime.seccomp.default import PROFILE
from imagetool.runtime.seccomp.numbers import AUDIT

_PROFILE_KEYS: Final = frozenset(
    (
        "defaultAction",
        "defaultErrnoRet",
        "defaultErrno",
        "archMap",
        "architectures",
        "flags",
        "syscalls",
        "listenerPath",
    )
)
_RULE_KEYS: Final = frozenset(
    ("name", "names", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes")
)
_ARGUMENT_KEYS: Final = frozenset(("index", "value", "valueTwo", "op"))
_CONDITION_KEYS: Final = frozenset(("caps", "arches", "minKernel"))
#: Flags of the OCI config; the first is what one thread does anyway.
_FLAGS: Final = frozenset(("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"))
#: Names of machines as `includes.arches` has them.
_GOARCH: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_NATIVE: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_KERNEL: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\D|\Z)")
_WORD: Final = 1 << 64


def read_profile(path: Path) -> Mapping[str, Any]:
    """Return the checked profile of a file.

    Raises NotFound when it cannot be read, InvalidDocument when it is no JSON object, UsageError for
    what no kernel or this compiler understands: a key, action or operator that is misspelt would
    leave a hole.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(limits.DOCUMENT_BYTES + 1)
    except OSError as error:
        raise NotFound(f"the seccomp profile {path} cannot be read: {error.strerror}") from None
    try:
        return checked(decode(raw, what=f"seccomp profile {path}"))
    except UsageError as error:
        error.add_note(f"in the seccomp profile {path}")
        raise


def checked(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the profile when every part of it is understood. Raises UsageError."""
    _keys(profile, _PROFILE_KEYS, "the profile")
    if profile.get("listenerPath"):
        raise UsageError("a seccomp profile with a listener is not supported")
    _action(profile, "defaultAction")
    _errno(profile, "defaultErrnoRet", "defaultErrno")
    for flag in _list(profile, "flags", str):
        if flag not in _FLAGS:
            raise UsageError(f"seccomp: unknown flag {flag[:80]!r}")
    _list(profile, "architectures", str)
    for entry in _list(profile, "archMap", dict):
        _keys(entry, frozenset(("architecture", "subArchitectures")), "archMap")
        _list(entry, "subArchitectures", str)
    for number, rule in enumerate(_list(profile, "syscalls", dict)):
        try:
            _check_rule(rule)
        except UsageError as error:
            error.add_note(f"in rule {number + 1} of the seccomp profile")
            raise
    return profile


def _check_rule(rule: Mapping[str, Any]) -> None:
    _keys(rule, _RULE_KEYS, "a rule")
    if not _names(rule):
        raise UsageError("seccomp: a rule without names")
    _action(rule, "action")
    _errno(rule, "errnoRet", "errno")
    for argument in _list(rule, "args", dict):
        _keys(argument, _ARGUMENT_KEYS, "a condition")
        if not isinstance(argument.get("op"), str) or argument["op"] not in OPERATORS:
            raise UsageError(f"seccomp: unknown operator {str(argument.get('op'))[:80]!r}")
        if not _is_number(argument.get("index"), 6):
            raise UsageError("seccomp: the index of an argument is 0 to 5")
        if not all(_is_number(argument.get(key, 0), _WORD) for key in ("value", "valueTwo")):
            raise UsageError("seccomp: a value to compare with has 64 bits, unsigned")
    for key in ("includes", "excludes"):
        condition = rule.get(key) or {}
        if not isinstance(condition, dict):
            raise UsageError(f"seccomp: {key} is not an object")
        _keys(condition, _CONDITION_KEYS, key)
        _list(condition, "caps", str)
        _list(condition, "arches", str)
        if condition.get("minKernel"):
            _version(condition["minKernel"])


def resolve(profile: Mapping[str, Any], *, capabilities: Iterable[str], machine: str, kernel: str) -> dict[str, Any]:
    """Return the rules that hold for a container, as `linux.seccomp` of the OCI config.

    Args:
        profile: a checked one.
        capabilities: what the container's root has.
        machine, kernel: as os.uname() names them.
    """
    held = frozenset(capabilities)
    arches = {_GOARCH.get(machine, machine)}
    rules = []
    for rule in profile.get("syscalls") or ():
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if _included(includes, held, arches, kernel) and not _excluded(excludes, held, arches, kernel):
            rules.append(_resolved(rule))
    tree: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if (number := _errno(profile, "defaultErrnoRet", "defaultErrno")) is not None:
        tree["defaultErrnoRet"] = number
    architectures = list(profile.get("architectures") or ())
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == _NATIVE.get(machine):
            architectures = [entry["architecture"], *(entry.get("subArchitectures") or ())]
    if known := [name for name in architectures if name in AUDIT]:
        tree["architectures"] = known
    if profile.get("flags"):
        tree["flags"] = list(profile["flags"])
    tree["syscalls"] = rules
    return tree


def default_profile() -> Mapping[str, Any]:
    """Return our own profile; see `default`."""
    return PROFILE


def _resolved(rule: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {"names": _names(rule), "action": rule["action"]}
    if (number := _errno(rule, "errnoRet", "errno")) is not None:
        tree["errnoRet"] = number
    if rule.get("args"):
        tree["args"] = [
            {key: argument.get(key, 0) for key in ("index", "value", "valueTwo", "op")} for argument in rule["args"]
        ]
    return tree


def _included(condition: Mapping[str, Any], held: frozenset[str], arches: set[str], kernel: str) -> bool:
    return (
        held.issuperset(condition.get("caps") or ())
        and (not condition.get("arches") or not arches.isdisjoint(condition["arches"]))
        and (not condition.get("minKernel") or _version(kernel) >= _version(condition["minKernel"]))
    )


def _excluded(condition: Mapping[str, Any], held: frozenset[str], arches: set[str], kernel: str) -> bool:
    return (
        not held.isdisjoint(condition.get("caps") or ())
        or not arches.isdisjoint(condition.get("arches") or ())
        or bool(condition.get("minKernel") and _version(kernel) >= _version(condition["minKernel"]))
    )


def _version(text: Any) -> tuple[int, int]:
    found = _KERNEL.match(text) if isinstance(text, str) else None
    if found is None:
        raise UsageError(f"seccomp: {str(text)[:80]!r} is not a kernel version such as 4.8")
    return int(found[1]), int(found[2])


def _keys(tree: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    if unknown := sorted(set(tree) - known):
        raise UsageError(f"seccomp: {what} has the unknown key {unknown[0][:80]!r}")


def _action(tree: Mapping[str, Any], key: str) -> None:
    if not isinstance(tree.get(key), str) or tree[key] not in ACTIONS:
        known = ", ".join(sorted(ACTIONS))
        raise UsageError(f"seccomp: {key} {str(tree.get(key))[:80]!r} is not supported; there are {known}")


def _errno(tree: Mapping[str, Any], key: str, name: str) -> int | None:
    """Return the error number that Docker's dialect writes as one and Podman's also by name."""
    if tree.get(name):
        for number, text in errno.errorcode.items():
            if text == tree[name]:
                return number
        raise UsageError(f"seccomp: {name} {str(tree[name])[:80]!r} is no error's name")
    value = tree.get(key)
    if value is None:
        return None
    if not _is_number(value, 1 << 16):
        raise UsageError(f"seccomp: {key} {str(value)[:80]!r} is no error number")
    return int(value)


def _is_number(value: Any, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _list(tree: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    found = tree.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        raise UsageError(f"seccomp: {key} is not a list of {'objects' if kind is dict else 'texts'}")
    return found


def _names(rule: Mapping[str, Any]) -> list[str]:
    name = rule.get("name") or ""
    if not isinstance(name, str):
        raise UsageError("seccomp: name is not a text")
    return [*([name] if name else []), *_list(rule, "names", str)]
