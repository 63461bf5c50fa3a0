"""A descriptor: the typed, sized, hashed pointer from one document to a blob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from imagetool.errors import InvalidDocument
from imagetool.oci import document
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform
from imagetool.values import dataclass, field

_KNOWN: Final = frozenset({"mediaType", "digest", "size", "annotations", "platform", "artifactType"})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where a blob's identity is (media type, digest, size); the rest describes it and takes no part in equality.

    `size` is in bytes. `extra` holds every field we do not know (`urls`, `data`, …) as it was read.

    Source: image-spec v1.1 descriptor.md.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Platform | None = field(default=None, compare=False)
    artifact_type: str = field(default="", compare=False)
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InvalidDocument(f"descriptor of {self.digest}: size is {self.size}")

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """Describe bytes in memory."""
        return cls(media_type, Digest.of(data), len(data))

    @classmethod
    def read(cls, value: object, *, path: str, what: str) -> Descriptor:
        """Read a descriptor object of a decoded document; errors name `what` and `path`."""
        tree: dict[str, Any] = document.expect(value, dict, path, what)
        platform = tree.get("platform")
        digest = document.get(tree, "digest", str, None, path=path, what=what)
        try:
            parsed = Digest.parse(digest)
        except InvalidDocument as error:
            raise InvalidDocument(f"{what}: {path}.digest: {error}") from None
        size = document.get(tree, "size", int, None, path=path, what=what)
        if size < 0:
            raise InvalidDocument(f"{what}: {path}.size is negative: {size}")
        return cls(
            media_type=document.get(tree, "mediaType", str, None, path=path, what=what),
            digest=parsed,
            size=size,
            annotations=document.get_string_map(tree, "annotations", path=path, what=what),
            platform=None
            if platform is None
            else Platform.read(
                document.expect(platform, dict, f"{path}.platform", what), path=f"{path}.platform", what=what
            ),
            artifact_type=document.get(tree, "artifactType", str, "", path=path, what=what),
            extra={key: value for key, value in tree.items() if key not in _KNOWN},
        )

    def tree(self) -> dict[str, Any]:
        """Return the JSON form, unknown fields last and unchanged."""
        tree: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.annotations:
            tree["annotations"] = dict(self.annotations)
        if self.platform is not None:
            tree["platform"] = self.platform.tree()
        if self.artifact_type:
            tree["artifactType"] = self.artifact_type
        tree.update(self.extra)
        return tree
