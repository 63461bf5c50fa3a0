"""Make an image of another and one layer more; every byte that says nothing new stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from imagetool.content.store import Fetcher, Pusher
from imagetool.errors import NotFound
from imagetool.image.image import Image, Layer
from imagetool.oci import mediatype
from imagetool.oci.config import History, ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Manifest
from imagetool.oci.patch import elements, patch
from imagetool.values import dataclass, replace

_DOCKER_LAYER_OF: Final = {
    mediatype.OCI_LAYER: mediatype.DOCKER_LAYER,
    mediatype.OCI_LAYER_GZIP: mediatype.DOCKER_LAYER_GZIP,
}


@dataclass(frozen=True, slots=True)
class Stacked:
    """Two stores to read from as one: what the upper lacks is fetched from the lower."""

    upper: Fetcher
    lower: Fetcher

    def fetch(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Open a blob; see `content.store.Fetcher`."""
        opened = self.upper.fetch(descriptor)
        try:
            return _Entered(opened, opened.__enter__())
        except NotFound:
            return self.lower.fetch(descriptor)


class _Entered(AbstractContextManager[Iterator[bytes]]):
    """A context that has been entered already, because only that tells whether the blob is there."""

    def __init__(self, opened: AbstractContextManager[Iterator[bytes]], chunks: Iterator[bytes]) -> None:
        self._opened = opened
        self._chunks = chunks

    def __enter__(self) -> Iterator[bytes]:
        return self._chunks

    def __exit__(self, *details: object) -> bool | None:
        return self._opened.__exit__(*details)  # type: ignore[arg-type]


def append_layer(image: Image, layer: Layer, step: History, store: Pusher) -> Image:
    """Store the config and manifest of `image` with one layer on top; return the new image.

    Args:
        layer: what `write_layer` made; `store` has its blob.
        step: how the layer came to be; its time becomes the image's.

    An image of Docker's stays one, unless the layer's compression is one that it cannot name.
    """
    descriptor = layer.descriptor
    manifest_type = image.manifest.media_type
    if manifest_type == mediatype.DOCKER_MANIFEST and descriptor.media_type in _DOCKER_LAYER_OF:
        descriptor = replace(descriptor, media_type=_DOCKER_LAYER_OF[descriptor.media_type])
    edits = {
        ("rootfs", "diff_ids"): [str(diff_id) for diff_id in (*image.config.diff_ids, layer.diff_id)],
        ("created",): step.created,
    }
    history = elements(image.config.raw, "history")
    if history or not image.config.diff_ids:  # a history that tells of no layer may not begin to tell of one
        edits["history",] = [*history, step.tree()]  # type: ignore[list-item]
    config = ImageConfig.parse(patch(image.config.raw, edits), media_type=image.config.media_type)
    raw = patch(
        image.manifest.raw,
        {
            ("config", "digest"): str(config.descriptor.digest),
            ("config", "size"): config.descriptor.size,
            ("layers",): [*elements(image.manifest.raw, "layers"), descriptor.tree()],
        },
    )
    manifest = Manifest.parse(raw, media_type=manifest_type)
    store.push(config.descriptor, [config.raw])
    store.push(manifest.descriptor, [manifest.raw])
    layers = (*image.layers, Layer(descriptor, layer.diff_id))
    return Image(manifest, config, layers, image.content)
