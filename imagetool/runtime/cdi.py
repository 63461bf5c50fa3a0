"""Devices of the Container Device Interface: what a container needs for one, as specs of the host say it.

The specs are files of the host's administrator and trusted as such; they are checked for form, so that a
mistake is told and not carried out by half.

Source: Container Device Interface SPEC.md 1.1.0; BuildKit docs/cdi.md for classes and automatic allowance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from imagetool.errors import HostError, InvalidDocument, NotFound, UsageError, VerificationError
from imagetool.oci import document
from imagetool.runtime.spec import Mount
from imagetool.values import dataclass, field

_SPEC_BYTES: Final = 4 << 20
_SUFFIXES: Final = (".json", ".yaml", ".yml")
_KIND: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*"
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.:-]*"
_VERSIONS: Final = ("0.3.", "0.4.", "0.5.", "0.6.", "0.7.", "0.8.", "1.0.", "1.1.")
_CLASS: Final = "org.mobyproject.buildkit.device.class"
_ALLOWED: Final = "org.mobyproject.buildkit.device.autoallow"
_HOOKS: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
#: Edits that no executor here can carry out.
_MISSING: Final = ("intelRdt", "netDevices")


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device file: where it is in the container and on the host, and what may be done with it, of `rwm`.

    Owner and mode are those that it has on the host.
    """

    path: str
    host_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Edits:
    """What a device changes about a container. `hooks` are OCI hooks by the name of their moment."""

    env: tuple[str, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    gids: tuple[int, ...] = ()
    hooks: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def __add__(self, other: Edits) -> Edits:
        """Return both, one after the other."""
        return Edits(
            self.env + other.env,
            self.nodes + other.nodes,
            self.mounts + other.mounts,
            self.gids + other.gids,
            self.hooks + other.hooks,
        )


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a spec describes.

    kind: `vendor/class`; name: unique within it.
    allowed: builds may use it without being allowed to on the command line.
    """

    kind: str
    name: str
    edits: Edits = field(default_factory=Edits)
    classes: frozenset[str] = frozenset()
    allowed: bool = False

    @property
    def qualified(self) -> str:
        """Its full name."""
        return f"{self.kind}={self.name}"


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of a host, in the order of their specs, and what is wrong with specs that cannot be read."""

    known: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()

    def find(self, wanted: str) -> tuple[Device, ...]:
        """Return what `vendor/class=name`, `vendor/class` (the first), `vendor/class=*` or a class's name means.

        Raises UsageError for what is no such name, NotFound when there is none.
        """
        kind, equals, name = wanted.partition("=")
        if equals and (not re.fullmatch(_KIND, kind) or not (name == "*" or re.fullmatch(_NAME, name))):
            raise UsageError(f"{wanted[:80]!r} is no device: write vendor.com/class=name, as CDI calls it")
        if equals:
            found = tuple(one for one in self.known if one.kind == kind and name in ("*", one.name))
        elif "/" in kind:
            found = tuple(one for one in self.known if one.kind == kind)[:1]
        else:
            found = tuple(one for one in self.known if kind in one.classes)
        if not found:
            raise NotFound(self._missing(wanted))
        return found

    def _missing(self, wanted: str) -> str:
        known = ", ".join(one.qualified for one in self.known[:8]) or "none"
        problems = "".join(f"; {problem}" for problem in self.problems[:3])
        return f"no CDI spec describes the device {wanted[:80]!r}; there are: {known}{problems}"


def read_devices(folders: Sequence[Path]) -> Devices:
    """Read all specs of the directories, those that are there; a later directory's devices replace an earlier one's.

    Raises HostError when two specs of one directory describe one device: it is not known which is meant.
    """
    known: dict[str, Device] = {}
    problems: list[str] = []
    for folder in folders:
        here: dict[str, Path] = {}
        for path in _specs(folder):
            try:
                devices = list(_read(path))
            except VerificationError as error:
                problems.append(str(error))
                continue
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            for device in devices:
                name = device.qualified
                if name in here:
                    raise HostError(f"the device {name} is described twice, by {here[name]} and {path}: remove one")
                here[name] = path
                known.pop(name, None)
                known[name] = device
    return Devices(tuple(known.values()), tuple(problems))


def _specs(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if name.endswith(_SUFFIXES)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> Iterator[Device]:
    what = str(path)
    with open(path, "rb") as file:
        raw = file.read(_SPEC_BYTES + 1)
    if len(raw) > _SPEC_BYTES:
        raise InvalidDocument(f"{what}: a CDI spec may have {_SPEC_BYTES} bytes")
    tree = document.decode(raw, what=what) if path.suffix == ".json" else _yaml(raw, what)
    version = document.get(tree, "cdiVersion", str, None, path="$", what=what)
    if not version.startswith(_VERSIONS):
        raise InvalidDocument(f"{what}: $.cdiVersion {version[:20]!r} is not known here")
    kind = document.get(tree, "kind", str, None, path="$", what=what)
    if not re.fullmatch(_KIND, kind):
        raise InvalidDocument(f"{what}: $.kind {kind[:80]!r} is not vendor/class")
    common = _edits(tree, "$", what)
    about = document.get(tree, "annotations", dict, {}, path="$", what=what)
    for number, entry in enumerate(document.get(tree, "devices", list, None, path="$", what=what)):
        place = f"$.devices[{number}]"
        entry = document.expect(entry, dict, place, what)
        name = document.get(entry, "name", str, None, path=place, what=what)
        if not re.fullmatch(_NAME, name):
            raise InvalidDocument(f"{what}: {place}.name {name[:80]!r} is not the name of a device")
        own = document.get(entry, "annotations", dict, {}, path=place, what=what)
        classes = frozenset(str(notes[_CLASS]) for notes in (about, own) if _CLASS in notes)
        allowed = str({**about, **own}.get(_ALLOWED, "")).lower() == "true"
        yield Device(kind, name, common + _edits(entry, place, what), classes, allowed)


def _yaml(raw: bytes, what: str) -> dict[str, Any]:
    import yaml  # 15 ms, and few hosts have such a spec

    try:
        tree = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).partition("\n")[0]
        raise InvalidDocument(f"{what}: is no YAML: {first}") from None
    return document.expect(tree, dict, "$", what)


def _edits(parent: Mapping[str, Any], path: str, what: str) -> Edits:
    tree = document.get(parent, "containerEdits", dict, {}, path=path, what=what)
    path = f"{path}.containerEdits"
    for name in _MISSING:
        if tree.get(name):
            raise InvalidDocument(f"{what}: {path}.{name} is not offered here")

    def entries(name: str) -> Iterable[tuple[dict[str, Any], str]]:
        for number, entry in enumerate(document.get(tree, name, list, [], path=path, what=what)):
            yield document.expect(entry, dict, f"{path}.{name}[{number}]", what), f"{path}.{name}[{number}]"

    env = tuple(
        document.expect(entry, str, f"{path}.env", what)
        for entry in document.get(tree, "env", list, [], path=path, what=what)
    )
    if any("=" not in entry or "\0" in entry for entry in env):
        raise InvalidDocument(f"{what}: {path}.env: every entry is NAME=VALUE")
    gids = document.get(tree, "additionalGids", list, [], path=path, what=what)
    if any(type(gid) is not int or not 0 < gid < 1 << 32 for gid in gids):
        raise InvalidDocument(f"{what}: {path}.additionalGids: every entry is the number of a group")
    return Edits(
        env,
        tuple(_node(entry, place, what) for entry, place in entries("deviceNodes")),
        tuple(_mount(entry, place, what) for entry, place in entries("mounts")),
        tuple(gids),
        tuple(_hook(entry, place, what) for entry, place in entries("hooks")),
    )


def _absolute(entry: Mapping[str, Any], name: str, path: str, what: str, default: str | None = None) -> str:
    text = document.get(entry, name, str, default, path=path, what=what)
    if not text.startswith("/") or "\0" in text:
        raise InvalidDocument(f"{what}: {path}.{name} {text[:80]!r} is not an absolute path")
    return text


def _node(entry: Mapping[str, Any], path: str, what: str) -> DeviceNode:
    inside = _absolute(entry, "path", path, what)
    permissions = document.get(entry, "permissions", str, "rwm", path=path, what=what) or "rwm"
    if not {*permissions} <= {*"rwm"}:
        raise InvalidDocument(f"{what}: {path}.permissions {permissions[:20]!r} is not of r, w and m")
    return DeviceNode(inside, _absolute(entry, "hostPath", path, what, inside), permissions)


def _mount(entry: Mapping[str, Any], path: str, what: str) -> Mount:
    options = document.get(entry, "options", list, [], path=path, what=what)
    if any(not isinstance(option, str) or "\0" in option for option in options):
        raise InvalidDocument(f"{what}: {path}.options: every entry is an option of mount")
    kind = document.get(entry, "type", str, "", path=path, what=what)
    bound = () if kind not in ("", "bind") or {"bind", "rbind"} & {*options} else ("bind",)
    source = document.get(entry, "hostPath", str, None, path=path, what=what)
    return Mount(_absolute(entry, "containerPath", path, what), kind or "bind", source, (*bound, *options))


def _hook(entry: Mapping[str, Any], path: str, what: str) -> tuple[str, Mapping[str, Any]]:
    name = document.get(entry, "hookName", str, None, path=path, what=what)
    if name not in _HOOKS:
        raise InvalidDocument(f"{what}: {path}.hookName {name[:40]!r} is not one of {', '.join(_HOOKS)}")
    _absolute(entry, "path", path, what)
    return name, {key: value for key, value in entry.items() if key in ("path", "args", "env", "timeout")}
