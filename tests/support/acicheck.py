"""What actool demands of an ACI, and what the spec demands beyond that; shares no code with imagetool.

Source: appc spec v0.8.11 aci.md and types.md; what `actool validate` was seen to refuse.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import posixpath
import re
import tarfile
from pathlib import Path
from typing import Any

_IDENTIFIER = re.compile(r"[a-z0-9]+([-._~/][a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_ENV = re.compile(r"[A-Za-z_][A-Za-z_0-9.-]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_ARCH = {
    "linux": ["amd64", "i386", "aarch64", "aarch64_be", "armv6l", "armv7l", "armv7b", "ppc64", "ppc64le", "s390x"],
    "freebsd": ["amd64", "i386", "arm"],
    "darwin": ["x86_64", "i386"],
}
_MAGIC = ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ\0", lzma.decompress))


def check_aci(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the image ID and the manifest of an ACI; an AssertionError says which rule it breaks."""
    raw = path.read_bytes()
    unpack = next((unpack for magic, unpack in _MAGIC if raw.startswith(magic)), bytes)
    tar = unpack(raw)
    assert tar[257:262] == b"ustar", "unknown filetype: no ustar magic"
    manifest = _check_archive(tar)
    tree = json.loads(manifest)  # refuses trailing bytes
    check_manifest(tree)
    return f"sha512-{hashlib.sha512(tar).hexdigest()}", tree


def _check_archive(tar: bytes) -> bytes:
    seen: dict[str, tarfile.TarInfo] = {}
    manifest = b""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            name = posixpath.normpath(member.name)
            assert not member.name.startswith("/"), f"{member.name} is absolute"
            assert name == "manifest" or name.partition("/")[0] == "rootfs", f"{member.name} is a third thing"
            assert ".." not in member.name.split("/"), f"{member.name} climbs"
            assert name not in seen, f"{name} is there twice"
            seen[name] = member
            if name == "manifest":
                assert member.isfile(), "manifest is not a regular file"
                content = archive.extractfile(member)
                assert content is not None
                manifest = content.read()
            if member.islnk():
                target = posixpath.normpath(member.linkname)
                assert target in seen, f"{name} is a hard link to {target}, which does not come before it"
                assert target.startswith("rootfs/"), f"{name} is a hard link out of rootfs"
    assert "manifest" in seen, "no manifest"
    assert "rootfs" in seen, "no entry for rootfs"
    assert seen["rootfs"].isdir(), "rootfs is not a directory"
    return manifest


def check_manifest(tree: dict[str, Any]) -> None:
    """Check an image manifest; an AssertionError says which rule it breaks."""
    assert tree["acKind"] == "ImageManifest"
    assert _SEMVER.fullmatch(tree["acVersion"])
    assert tree["acVersion"] != "0.0.0"
    assert _IDENTIFIER.fullmatch(tree["name"]), tree["name"]
    labels = _unique(tree.get("labels", []), _IDENTIFIER)
    assert "name" not in labels
    if "os" in labels:
        assert labels["os"]["value"] in _ARCH, labels["os"]
        if "arch" in labels:
            assert labels["arch"]["value"] in _ARCH[labels["os"]["value"]], labels["arch"]
    annotations = _unique(tree.get("annotations", []), _IDENTIFIER)
    for name, annotation in annotations.items():
        assert isinstance(annotation["value"], str)
        if name == "created":
            assert _TIME.fullmatch(annotation["value"]), annotation
        if name in ("homepage", "documentation"):
            assert annotation["value"].startswith(("http://", "https://")), annotation
    if "app" in tree:
        _check_app(tree["app"])


def _check_app(app: dict[str, Any]) -> None:
    assert all(isinstance(word, str) for word in app.get("exec", []))
    assert app["user"]
    assert app["group"]
    folder = app.get("workingDirectory", "")
    assert not folder or folder.startswith("/"), folder
    for variable in _unique(app.get("environment", []), _ENV).values():
        assert isinstance(variable["value"], str)
    for mount in _unique(app.get("mountPoints", []), _NAME).values():
        assert mount["path"].startswith("/"), mount
        assert isinstance(mount.get("readOnly", False), bool)
    for port in _unique(app.get("ports", []), _NAME).values():
        count = port.get("count", 1)
        assert port["protocol"]
        assert 1 <= port["port"] <= port["port"] + count - 1 <= 65535, port
        assert count >= 1
    for key in ("userLabels", "userAnnotations"):
        assert all(isinstance(value, str) for value in app.get(key, {}).values())
    assert not app.get("isolators"), "we write none"


def _unique(items: list[dict[str, Any]], grammar: re.Pattern[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        assert grammar.fullmatch(item["name"]), item["name"]
        assert item["name"] not in found, f"{item['name']} is there twice"
        found[item["name"]] = item
    return found
