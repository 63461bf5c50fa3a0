"""The image manifest of an ACI, over its raw bytes.

Source: appc spec v0.8.11, aci.md, "Image Manifest Schema".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from imagetool.appc.app import check_app
from imagetool.appc.names import check_identifier
from imagetool.appc.spelling import objects, spelt
from imagetool.errors import InvalidDocument
from imagetool.oci import document
from imagetool.values import dataclass

VERSION: Final = "0.8.11"
_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_WORD: Final = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_WORD}(?:\.{_WORD})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\Z"
)
_IMAGE_ID: Final = re.compile(r"sha512-[0-9a-f]{1,128}\Z")  # lookups take prefixes, and rkt shortens them
_TOP: Final = ("acKind", "acVersion", "name", "labels", "app", "dependencies", "pathWhitelist", "annotations")
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
    def parse(cls, raw: bytes, *, what: str = "ACI manifest", strict: bool = False) -> ImageManifest:
        """Read and validate a manifest. Raises InvalidDocument naming the JSON path.

        Args:
            strict: hold it to the letter of the spec. Otherwise names such as `a--b` and isolators
                of others pass, as with actool: images that are in use have them.
        """
        tree = spelt(document.decode(raw, what=what), _TOP, path="$", what=what)
        kind = document.get(tree, "acKind", str, None, path="$", what=what)
        if kind != "ImageManifest":
            raise InvalidDocument(f"{what}: $.acKind is {kind[:40]!r}, expected 'ImageManifest'")
        version = document.get(tree, "acVersion", str, None, path="$", what=what)
        if not _SEMVER.match(version) or version == "0.0.0":
            raise InvalidDocument(f"{what}: $.acVersion is not a version: {version[:40]!r}")
        name = document.get(tree, "name", str, None, path="$", what=what)
        check_identifier(name, path="$.name", what=what, strict=strict)
        labels = _labels(tree, "$", what, strict)
        _check_platform(labels, what)
        annotations = _pairs(tree, "annotations", "$", what, strict)
        _check_annotations(annotations, what)
        if tree.get("dependencies") is not None:
            tree["dependencies"] = _dependencies(tree, what, strict)
        _check_whitelist(tree, what)
        app = tree.get("app")
        if app is not None:
            app = tree["app"] = check_app(document.expect(app, dict, "$.app", what), what=what, strict=strict)
        return cls(raw, name, labels, annotations, app, tree)

    @classmethod
    def make(
        cls, *, name: str, labels: Mapping[str, str], app: Mapping[str, Any] | None, annotations: Mapping[str, str]
    ) -> ImageManifest:
        """Make a manifest of parts; it has been through `parse`, strictly."""
        tree: dict[str, Any] = {"acKind": "ImageManifest", "acVersion": VERSION, "name": name}
        tree["labels"] = [{"name": key, "value": value} for key, value in labels.items()]
        if app is not None:
            tree["app"] = app
        tree["annotations"] = [{"name": key, "value": value} for key, value in annotations.items()]
        return cls.parse(document.encode(tree), strict=True)


def _pairs(tree: Mapping[str, Any], key: str, path: str, what: str, strict: bool) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for number, entry in enumerate(objects(tree, key, ("name", "value"), path=path, what=what)):
        at = f"{path}.{key}[{number}]"
        name = document.get(entry, "name", str, None, path=at, what=what)
        check_identifier(name, path=f"{at}.name", what=what, strict=strict)
        if name in pairs:
            raise InvalidDocument(f"{what}: {at}.name {name!r} is there twice")
        pairs[name] = document.get(entry, "value", str, None, path=at, what=what)
    return pairs


def _labels(tree: Mapping[str, Any], path: str, what: str, strict: bool) -> dict[str, str]:
    labels = _pairs(tree, "labels", path, what, strict)
    if "name" in labels:
        raise InvalidDocument(f"{what}: {path}.labels must not hold a label called name")
    return labels


def _check_platform(labels: Mapping[str, str], what: str) -> None:
    system, architecture = labels.get("os"), labels.get("arch")
    if system is None:
        return
    if system not in _PLATFORMS:
        raise InvalidDocument(f"{what}: label os {system[:40]!r} is not one of {sorted(_PLATFORMS)}")
    if architecture is not None and architecture not in _PLATFORMS[system]:
        raise InvalidDocument(f"{what}: label arch {architecture[:40]!r} is not one of {sorted(_PLATFORMS[system])}")


def _check_annotations(annotations: Mapping[str, str], what: str) -> None:
    created = annotations.get("created")
    if created is not None:
        document.check_timestamp(created, path="$.annotations.created", what=what)
        if created != created.upper() or ":60" in created[16:20]:  # Go knows neither small letters nor leap seconds
            raise InvalidDocument(f"{what}: $.annotations.created is not a timestamp of appc: {created[:40]!r}")
    for key in ("homepage", "documentation"):
        if not annotations.get(key, "http://").startswith(("http://", "https://")):
            raise InvalidDocument(f"{what}: $.annotations.{key} is not an http or https URL: {annotations[key][:80]!r}")
    notify = "appc.io/executor/supports-systemd-notify"
    if annotations.get(notify, "true") not in ("true", "false"):
        raise InvalidDocument(f"{what}: $.annotations.{notify} is {annotations[notify][:40]!r}, expected true or false")


def _dependencies(tree: Mapping[str, Any], what: str, strict: bool) -> list[dict[str, Any]]:
    names = ("imageName", "imageID", "labels", "size")
    dependencies = objects(tree, "dependencies", names, path="$", what=what)
    for number, dependency in enumerate(dependencies):
        at = f"$.dependencies[{number}]"
        name = document.get(dependency, "imageName", str, None, path=at, what=what)
        check_identifier(name, path=f"{at}.imageName", what=what, strict=strict)
        _labels(dependency, at, what, strict)
        identity = document.get(dependency, "imageID", str, "", path=at, what=what)
        if identity and not _IMAGE_ID.match(identity):
            raise InvalidDocument(f"{what}: {at}.imageID is not sha512- and hex digits: {identity[:40]!r}")
        if document.get(dependency, "size", int, 0, path=at, what=what) < 0:
            raise InvalidDocument(f"{what}: {at}.size is negative")
    return dependencies


def _check_whitelist(tree: Mapping[str, Any], what: str) -> None:
    for number, path in enumerate(document.get_strings(tree, "pathWhitelist", path="$", what=what)):
        if not path.startswith("/"):
            raise InvalidDocument(f"{what}: $.pathWhitelist[{number}] is not absolute: {path[:80]!r}")
