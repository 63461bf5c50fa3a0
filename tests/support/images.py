"""Small images made of nothing but documents and noise, for tests that move them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.oci import mediatype
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform


def noise(size: int, seed: int) -> bytes:
    """Return bytes that no codec shrinks, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def add_image(
    store: MemoryStore, *, layers: int = 3, size: int = 1000, seed: int = 0, platform: Platform | None = None
) -> Descriptor:
    """Put an image with `layers` layers of `size` bytes into a store; return its manifest's descriptor."""
    blobs = [noise(size, 1000 * seed + number) for number in range(layers)]
    descriptors = [push_bytes(store, blob, mediatype.OCI_LAYER) for blob in blobs]
    config = ImageConfig.make(
        platform=platform or Platform(),
        run=RunConfig(),
        diff_ids=[Digest.of(blob) for blob in blobs],
        history=[History(created_by=f"layer {number} of {seed}") for number in range(layers)],
        created="",
    )
    push_bytes(store, config.raw, mediatype.OCI_CONFIG)
    manifest = Manifest.make(config.descriptor, descriptors)
    return push_bytes(store, manifest.raw, manifest.media_type)


def add_index(store: MemoryStore, platforms: Sequence[str], **image: int) -> Descriptor:
    """Put an index with an image for each platform into a store; return its descriptor."""
    entries = []
    for number, name in enumerate(platforms):
        platform = Platform.parse(name)
        found = add_image(store, seed=number + 1, platform=platform, **image)
        entries.append(Descriptor(found.media_type, found.digest, found.size, platform=platform))
    index = Index.make(entries)
    return push_bytes(store, index.raw, index.media_type)
