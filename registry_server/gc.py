"""Delete the bytes that nothing refers to, while the registry is in use.

A blob goes in three steps, each short and each safe to be cut off after: metadata drops it and
makes its locator garbage; the bytes are deleted; the garbage is forgotten. Since locators are
never used twice, a client that uploads the same blob meanwhile gets bytes of its own.
"""

from __future__ import annotations

from typing import Final

from imagetool.values import dataclass
from registry_server.handlers.stores import Stores

GRACE: Final = 24 * 3600.0  # seconds that a blob may wait for its manifest, and an upload for its next chunk
_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class Collected:
    """What one run removed."""

    blobs: int = 0
    uploads: int = 0
    orphans: int = 0


def collect(stores: Stores, *, now: float, grace: float = GRACE) -> Collected:
    """Remove what has been of no use for `grace` seconds before `now`.

    Blobs no manifest refers to; uploads nobody continued; bytes that were committed just before
    a crash, so that metadata never learned of them. Manifests are never removed, tagged or not.
    """
    uploads = stores.blobs.expire(now - grace)
    blobs = stores.metadata.condemn(now - grace)
    while locators := stores.metadata.garbage(_BATCH):
        for locator in locators:
            stores.blobs.delete(locator)
        stores.metadata.buried(locators)
    orphans = 0
    for locator, written in stores.blobs.locators():
        if written < now - grace and not stores.metadata.knows(locator):
            stores.blobs.delete(locator)
            orphans += 1
    return Collected(blobs, uploads, orphans)
