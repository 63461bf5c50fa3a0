"""What the registry knows: repositories, which blobs and manifests they hold, tags.

Every method is one transaction. A blob that `claim`, `mount`, `add_blob` or `put_manifest` has
promised to a client stays for the grace that `condemn` is given, even when nothing refers to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that a repository holds; `locator` is where its bytes are (see `storage`)."""

    digest: Digest
    size: int
    locator: str


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed; `annotations` are JSON."""

    digest: Digest
    media_type: str
    body: bytes
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: str = "{}"


class MetaStore(Protocol):
    """What the registry knows of its blobs: which repository holds which, manifests, tags, what to delete.

    Each method is one transaction, durable when it returns; several threads and processes may call at once.
    Names of repositories and tags have been checked by the caller.
    """

    def blob(self, repository: str, digest: Digest) -> StoredBlob | None:
        """Return a blob that a repository holds."""
        ...

    def claim(self, repository: str, digest: Digest) -> StoredBlob | None:
        """Return a blob as `blob` does, and keep it for the grace: the client will not upload it now."""
        ...

    def add_blob(self, repository: str, blob: StoredBlob) -> str:
        """Let a repository hold a blob; return the locator that is kept.

        That is another one than `blob.locator` when the digest is known already; the caller
        then deletes its own bytes.
        """
        ...

    def mount(self, repository: str, digest: Digest, source: str | None) -> StoredBlob | None:
        """Let a repository hold a blob that `source` holds (None: any repository); None when it does not."""
        ...

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob out of a repository; say whether it was there. Raises InUse."""
        ...

    def manifest(self, repository: str, digest: Digest) -> StoredManifest | None:
        """Return a manifest."""
        ...

    def put_manifest(
        self,
        repository: str,
        manifest: StoredManifest,
        *,
        blobs: Sequence[Descriptor] = (),
        manifests: Sequence[Descriptor] = (),
        tags: Sequence[str] = (),
    ) -> None:
        """Store a manifest, what it refers to, and point tags at it, all at once.

        Raises Missing, and stores nothing, unless the repository holds every blob and manifest.
        """
        ...

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and every tag on it; say whether it was there. Raises InUse."""
        ...

    def tagged(self, repository: str, tag: str) -> StoredManifest | None:
        """Return what a tag points at."""
        ...

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; say whether it was there."""
        ...

    def tags(self, repository: str, last: str, count: int) -> list[str] | None:
        """Return up to `count` tags after `last`, in byte order; None for an unknown repository."""
        ...

    def repositories(self, last: str, count: int) -> list[str]:
        """Return up to `count` repositories that hold a manifest, after `last`, in byte order."""
        ...

    def referrers(
        self, repository: str, subject: Digest, artifact_type: str | None, last: str, count: int
    ) -> Sequence[StoredManifest]:
        """Return up to `count` manifests that name `subject`, of one artifact type or (None) of all.

        They come in the order of their digests, after `last`.
        """
        ...

    def condemn(self, before: float) -> int:
        """Drop every blob that no manifest refers to and nothing has claimed since `before`; return how many.

        Their locators become garbage. A blob of the same digest that is added later has another one.
        """
        ...

    def garbage(self, count: int) -> Sequence[str]:
        """Return up to `count` locators whose bytes are to be deleted."""
        ...

    def buried(self, locators: Sequence[str]) -> None:
        """Forget garbage whose bytes are deleted."""
        ...

    def knows(self, locator: str) -> bool:
        """Say whether a locator is that of a blob, or garbage."""
        ...


class Missing(Exception):
    """A manifest refers to what its repository does not hold; `size` is what it holds instead, if the size differs."""

    def __init__(self, descriptor: Descriptor, size: int | None = None) -> None:
        super().__init__(str(descriptor.digest))
        self.descriptor = descriptor
        self.size = size


class InUse(Exception):
    """Something cannot be removed while a manifest refers to it; `user` is one such manifest."""

    def __init__(self, user: Digest) -> None:
        super().__init__(str(user))
        self.user = user
