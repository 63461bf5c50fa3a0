"""What the registry knows: repositories, which blobs and manifests they hold, tags, uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from imagetool.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed."""

    digest: Digest
    media_type: str
    body: bytes
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: str = "{}"


class MetaStore(Protocol):
    def blob(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a blob that a repository holds."""
        ...

    def add_blob(self, repository: str, digest: Digest, size: int) -> None:
        """Let a repository hold a blob."""
        ...

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob out of a repository; say whether it was there."""
        ...

    def manifest(self, repository: str, digest: Digest) -> StoredManifest | None:
        """Return a manifest."""
        ...

    def put_manifest(self, repository: str, manifest: StoredManifest, tag: str | None) -> None:
        """Store a manifest and point a tag at it, at once."""
        ...

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and every tag on it."""
        ...

    def tagged(self, repository: str, tag: str) -> Digest | None:
        """Return what a tag points at."""
        ...

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag."""
        ...

    def tags(self, repository: str, last: str, count: int) -> list[str] | None:
        """Return up to `count` tags after `last`, sorted; None for an unknown repository."""
        ...

    def repositories(self, last: str, count: int) -> list[str]:
        """Return up to `count` repositories after `last`, sorted."""
        ...

    def referrers(self, repository: str, subject: Digest) -> Sequence[StoredManifest]:
        """Return the manifests that name `subject`."""
        ...

    def begin_upload(self, repository: str, upload: str) -> None:
        """Remember which repository an upload is for."""
        ...

    def has_upload(self, repository: str, upload: str) -> bool:
        """Say whether an upload is for a repository."""
        ...

    def end_upload(self, upload: str) -> None:
        """Forget an upload."""
        ...
