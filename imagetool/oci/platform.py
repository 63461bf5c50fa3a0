"""The platform an image runs on, and how one is chosen among several."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from imagetool.errors import InvalidReference
from imagetool.oci import document
from imagetool.values import dataclass

#: What `uname -m` and common spelling say, as (GOARCH, variant).
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
_PART: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and CPU in GOOS/GOARCH words; empty strings mean "not said".

    Source: image-spec v1.1 image-index.md, "platform".
    """

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os[/arch[/variant]]` or a bare architecture; raises InvalidReference."""
        parts = text.lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(_PART.match(part) for part in parts):
            raise InvalidReference(f"not a platform: {text[:80]!r}; write os/arch or os/arch/variant, as linux/arm64")
        if len(parts) == 1:
            parts.insert(0, "linux")
        architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
        return cls(os=parts[0], architecture=architecture, variant=parts[2] if len(parts) == 3 else variant).normal()

    def normal(self) -> Platform:
        """Return the platform with the variants that mean the default left out (arm64/v8) or put in (arm/v7)."""
        variant = self.variant
        if (self.architecture, variant) in {("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")}:
            variant = ""
        elif self.architecture == "arm" and not variant:
            variant = "v7"
        return Platform(self.os, self.architecture, variant, self.os_version, self.os_features)

    def runs(self, image: Platform) -> bool:
        """Say whether `image` is made for this platform; an unsaid version or variant of either side matches."""
        ours, theirs = self.normal(), image.normal()
        return (
            (ours.os, ours.architecture) == (theirs.os, theirs.architecture)
            and (ours.variant == theirs.variant or not theirs.variant)
            and (not ours.os_version or not theirs.os_version or ours.os_version == theirs.os_version)
        )

    @classmethod
    def read(cls, tree: Mapping[str, Any], *, path: str, what: str) -> Platform:
        """Read a descriptor's `platform` object or the platform fields of an image config."""
        return cls(
            os=document.get(tree, "os", str, "", path=path, what=what),
            architecture=document.get(tree, "architecture", str, "", path=path, what=what),
            variant=document.get(tree, "variant", str, "", path=path, what=what),
            os_version=document.get(tree, "os.version", str, "", path=path, what=what),
            os_features=document.get_strings(tree, "os.features", path=path, what=what),
        )

    def tree(self) -> dict[str, Any]:
        """Return the JSON form, unsaid fields left out."""
        tree: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            tree["os.version"] = self.os_version
        if self.os_features:
            tree["os.features"] = list(self.os_features)
        if self.variant:
            tree["variant"] = self.variant
        return tree
