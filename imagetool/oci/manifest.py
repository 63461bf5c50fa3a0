"""Image manifests and indexes, OCI and Docker v2 schema 2, as views over their raw bytes.

`parse` is the only constructor: a document always carries the bytes it came from, so its
digest never drifts and fields we do not know survive. Edits patch the decoded tree and
parse the result again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagetool import limits
from imagetool.errors import InvalidDocument, LimitExceeded, Unsupported
from imagetool.oci import document, mediatype, patch
from imagetool.oci.descriptor import Descriptor
from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: a config and its layers, base first.

    Source: image-spec v1.1 manifest.md.
    """

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of these very bytes."""
        return Descriptor.of(self.raw, self.media_type)

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """What must exist where this manifest is stored: config first, then layers. The subject may be absent."""
        return (self.config, *self.layers)

    @classmethod
    def parse(cls, raw: bytes, *, media_type: str = "", what: str = "manifest") -> Manifest:
        """Read a manifest; `media_type` is what its carrier (descriptor, Content-Type) claims, if it claims."""
        tree = _decode(raw, media_type, mediatype.MANIFESTS, what)
        if "manifests" in tree or "fsLayers" in tree:
            raise InvalidDocument(f"{what}: has the fields of another kind of document")  # CVE-2021-41190
        return cls(
            raw=raw,
            layers=_descriptors(tree, "layers", "IMAGE_LAYERS", what),
            config=Descriptor.read(tree.get("config"), path="$.config", what=what),
            **_common(tree, media_type, mediatype.OCI_MANIFEST, what),
        )

    @classmethod
    def make(
        cls, config: Descriptor, layers: Sequence[Descriptor], *, annotations: Mapping[str, str] | None = None
    ) -> Manifest:
        """Make an OCI manifest of parts that are known; the result has been through `parse`."""
        tree: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": config.tree(),
            "layers": [layer.tree() for layer in layers],
        }
        if annotations:
            tree["annotations"] = dict(sorted(annotations.items()))
        return cls.parse(document.encode(tree))


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests (or further indexes), usually one per platform.

    Source: image-spec v1.1 image-index.md.
    """

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of these very bytes."""
        return Descriptor.of(self.raw, self.media_type)

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests, in order."""
        return self.manifests

    @classmethod
    def parse(cls, raw: bytes, *, media_type: str = "", what: str = "index") -> Index:
        """Read an index; `media_type` is what its carrier claims, if it claims."""
        tree = _decode(raw, media_type, mediatype.INDEXES, what)
        if "layers" in tree or "config" in tree or "fsLayers" in tree:
            raise InvalidDocument(f"{what}: has the fields of another kind of document")
        return cls(
            raw=raw,
            manifests=_descriptors(tree, "manifests", "INDEX_MANIFESTS", what),
            **_common(tree, media_type, mediatype.OCI_INDEX, what),
        )

    def with_manifests(self, manifests: Sequence[Descriptor]) -> Index:
        """Return the index with other entries; entries that stay, and all other fields, keep their bytes."""
        before = dict(zip(map(_identity, self.manifests), patch.elements(self.raw, "manifests"), strict=True))
        entries = [before.get(_identity(descriptor), descriptor.tree()) for descriptor in manifests]
        raw = patch.patch(self.raw, {("manifests",): entries})
        return Index.parse(raw, media_type=self.media_type)

    @classmethod
    def make(cls, manifests: Sequence[Descriptor]) -> Index:
        """Make an OCI index of the entries."""
        tree = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_INDEX,
            "manifests": [descriptor.tree() for descriptor in manifests],
        }
        return cls.parse(document.encode(tree))


Document = Manifest | Index


def parse(raw: bytes, *, media_type: str = "", what: str = "manifest") -> Document:
    """Read a manifest or an index.

    The kind is decided by `media_type` when it is given, else by the document's own
    `mediaType`, else by its fields; when two of these are given they must agree.
    Raises InvalidDocument, and Unsupported for Docker schema 1.
    """
    tree = document.decode(raw, what=what)
    if tree.get("schemaVersion") == 1:
        raise Unsupported(f"{what}: Docker schema 1 manifests are not supported; push the image again to convert it")
    claimed = media_type.partition(";")[0].strip() or tree.get("mediaType")
    if claimed is not None and claimed not in mediatype.DOCUMENTS:
        raise InvalidDocument(f"{what}: media type {str(claimed)[:120]!r} is neither a manifest nor an index")
    is_index = claimed in mediatype.INDEXES if claimed else "manifests" in tree
    return (Index if is_index else Manifest).parse(raw, media_type=media_type, what=what)


def _decode(raw: bytes, media_type: str, allowed: frozenset[str], what: str) -> dict[str, Any]:
    tree = document.decode(raw, what=what)
    version = document.get(tree, "schemaVersion", int, None, path="$", what=what)
    if version != 2:
        raise InvalidDocument(f"{what}: $.schemaVersion is {version}, expected 2")
    own = document.get(tree, "mediaType", str, "", path="$", what=what)
    claimed = media_type.partition(";")[0].strip()
    if claimed and own and claimed != own:
        raise InvalidDocument(f"{what}: $.mediaType is {own[:120]!r} but it was delivered as {claimed[:120]!r}")
    if (claimed or own) and (claimed or own) not in allowed:
        raise InvalidDocument(f"{what}: media type {(claimed or own)[:120]!r} is not one of {sorted(allowed)}")
    return tree


def _descriptors(tree: Mapping[str, Any], key: str, limit: str, what: str) -> tuple[Descriptor, ...]:
    """Read a list of descriptors, at most as many as the limit of that name says."""
    found = document.get_list(
        tree, key, lambda item, at: Descriptor.read(item, path=at, what=what), path="$", what=what
    )
    if len(found) > getattr(limits, limit):
        raise LimitExceeded(f"{what}: {len(found)} {key}, more than {limits.named(limit)}")
    return found


def _common(tree: Mapping[str, Any], claimed: str, default: str, what: str) -> dict[str, Any]:
    """Return what manifests and indexes say alike."""
    subject = tree.get("subject")
    return {
        "media_type": claimed.partition(";")[0].strip() or tree.get("mediaType") or default,
        "subject": None if subject is None else Descriptor.read(subject, path="$.subject", what=what),
        "artifact_type": document.get(tree, "artifactType", str, "", path="$", what=what),
        "annotations": document.get_string_map(tree, "annotations", path="$", what=what),
    }


def _identity(descriptor: Descriptor) -> str:
    """Tell entries apart by everything they say, not only by what they point at."""
    return repr(descriptor.tree())
