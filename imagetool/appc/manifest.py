"""The image manifest of an ACI, over its raw bytes.

Source: appc spec v0.8.11, aci.md, "Image Manifest Schema".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from imagetool.appc.names import check_identifier, check_name
from imagetool.errors import InvalidDocument
from imagetool.oci import document

VERSION: Final = "0.8.11"
_SEMVER: Final = re.compile(r"\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?\Z")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
#: Operating system -> architectures that the spec knows for it.
_PLATFORMS: Final = {
    "linux": {"amd64", "i386", "aarch64", "aarch64_be", "armv6l", "armv7l", "armv7b", "ppc64", "ppc64le", "s390x"},
    "freebsd": {"amd64", "i386", "arm"},
    "darwin": {"x86_64", "i386"},
}


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """A valid manifest; `tree` has its keys in the spec's spelling, unknown ones included."""

    raw: bytes
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    app: Mapping[str, Any] | None
    tree: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes, *, what: str = "ACI manifest") -> ImageManifest:
        """Read and validate a manifest. Raises InvalidDocument naming the JSON path."""
        tree = _spelt(document.decode(raw, what=what), _TOP)
        if document.get(tree, "acKind", str, None, path="$", what=what) != "ImageManifest":
            raise InvalidDocument(f"{what}: $.acKind is not ImageManifest")
        version = document.get(tree, "acVersion", str, None, path="$", what=what)
        if not _SEMVER.match(version) or version == "0.0.0":
            raise InvalidDocument(f"{what}: $.acVersion is not a version: {version[:40]!r}")
        name = document.get(tree, "name", str, None, path="$", what=what)
        labels = _pairs(tree, "labels", what)
        annotations = _pairs(tree, "annotations", what)
        if "name" in labels:
            raise InvalidDocument(f"{what}: $.labels must not hold a label called name")
        _check_platform(labels, what)
        if "created" in annotations:
            document.check_timestamp(annotations["created"], path="$.annotations.created", what=what)
        app = tree.get("app")
        if app is not None:
            app = _app(document.expect(app, dict, "$.app", what), what)
        check_identifier(name, path="$.name", what=what)
        return cls(raw, name, labels, annotations, app, tree)

    @classmethod
    def make(
        cls, *, name: str, labels: Mapping[str, str], app: Mapping[str, Any] | None, annotations: Mapping[str, str]
    ) -> ImageManifest:
        """Make a manifest of parts; it has been through `parse`."""
        tree: dict[str, Any] = {"acKind": "ImageManifest", "acVersion": VERSION, "name": name}
        tree["labels"] = [{"name": key, "value": value} for key, value in labels.items()]
        if app is not None:
            tree["app"] = app
        tree["annotations"] = [{"name": key, "value": value} for key, value in annotations.items()]
        return cls.parse(document.encode(tree))


_TOP: Final = ("acKind", "acVersion", "name", "labels", "app", "dependencies", "pathWhitelist", "annotations")
_APP: Final = (
    "exec", "user", "group", "supplementaryGIDs", "eventHandlers", "workingDirectory", "environment",
    "mountPoints", "ports", "isolators", "userAnnotations", "userLabels",
)  # fmt: skip


def _spelt(tree: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Give known keys the spec's spelling: its reference implementation ignores case, and its examples rely on it."""
    canonical = {name.lower(): name for name in names}
    return {canonical.get(key.lower(), key): value for key, value in tree.items()}


def _pairs(tree: Mapping[str, Any], key: str, what: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for number, item in enumerate(document.get(tree, key, list, [], path="$", what=what)):
        at = f"$.{key}[{number}]"
        entry: dict[str, Any] = document.expect(item, dict, at, what)
        name = check_identifier(
            document.get(entry, "name", str, None, path=at, what=what), path=f"{at}.name", what=what
        )
        if name in pairs:
            raise InvalidDocument(f"{what}: {at}.name {name!r} is there twice")
        pairs[name] = document.get(entry, "value", str, None, path=at, what=what)
    return pairs


def _check_platform(labels: Mapping[str, str], what: str) -> None:
    system, architecture = labels.get("os"), labels.get("arch")
    if system is None:
        return
    if system not in _PLATFORMS:
        raise InvalidDocument(f"{what}: label os {system[:40]!r} is not one of {sorted(_PLATFORMS)}")
    if architecture is not None and architecture not in _PLATFORMS[system]:
        raise InvalidDocument(f"{what}: label arch {architecture[:40]!r} is not one of {sorted(_PLATFORMS[system])}")


def _app(tree: Mapping[str, Any], what: str) -> dict[str, Any]:
    app = _spelt(tree, _APP)
    document.get_strings(app, "exec", path="$.app", what=what)
    for key in ("user", "group"):
        if not document.get(app, key, str, None, path="$.app", what=what):
            raise InvalidDocument(f"{what}: $.app.{key} is empty")
    folder = document.get(app, "workingDirectory", str, "", path="$.app", what=what)
    if folder and not folder.startswith("/"):
        raise InvalidDocument(f"{what}: $.app.workingDirectory is not absolute: {folder[:80]!r}")
    seen: set[str] = set()
    for at, entry in _objects(app, "environment", what):
        name = document.get(entry, "name", str, None, path=at, what=what)
        document.get(entry, "value", str, "", path=at, what=what)
        if not _ENV_NAME.match(name) or name in seen:
            raise InvalidDocument(f"{what}: {at}.name {name[:80]!r} is not a name, or there twice")
        seen.add(name)
    for key in ("mountPoints", "ports"):
        _check_named(app, key, what)
    return app


def _objects(app: Mapping[str, Any], key: str, what: str) -> list[tuple[str, dict[str, Any]]]:
    items = document.get(app, key, list, [], path="$.app", what=what)
    paths = [f"$.app.{key}[{number}]" for number in range(len(items))]
    return [(at, document.expect(item, dict, at, what)) for at, item in zip(paths, items, strict=True)]


def _check_named(app: Mapping[str, Any], key: str, what: str) -> None:
    seen: set[str] = set()
    for at, entry in _objects(app, key, what):
        name = check_name(document.get(entry, "name", str, None, path=at, what=what), path=f"{at}.name", what=what)
        if name in seen:
            raise InvalidDocument(f"{what}: {at}.name {name!r} is there twice")
        seen.add(name)
        if key == "mountPoints":
            path = document.get(entry, "path", str, None, path=at, what=what)
            if not path.startswith("/"):
                raise InvalidDocument(f"{what}: {at}.path is not absolute: {path[:80]!r}")
        else:
            port = document.get(entry, "port", int, None, path=at, what=what)
            count = document.get(entry, "count", int, 1, path=at, what=what)
            document.get(entry, "protocol", str, None, path=at, what=what)
            if not (port >= 1 and count >= 1 and port + count - 1 <= 65535):
                raise InvalidDocument(f"{what}: {at} has port {port} and count {count}")
