"""An image: a manifest, its config and its layers, always complete, over a store that has the bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from imagetool import limits
from imagetool.content.store import Fetcher, fetch_bytes, fetch_document
from imagetool.errors import DigestMismatch, InvalidDocument, LimitExceeded, NotFound
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest, chain_ids
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.layer.merge import Opener


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: where its compressed bytes are, and the digest of the tar they unpack to."""

    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Image:
    """A whole image for one platform; `content` fetches its blobs."""

    manifest: Manifest
    config: ImageConfig
    layers: tuple[Layer, ...]
    content: Fetcher

    @property
    def descriptor(self) -> Descriptor:
        """The manifest's descriptor."""
        return self.manifest.descriptor

    @property
    def chain(self) -> tuple[Digest, ...]:
        """The ChainID of every layer prefix, base first."""
        return tuple(chain_ids(layer.diff_id for layer in self.layers))

    def openers(self) -> list[tuple[Opener, str]]:
        """Return what opens each layer as an uncompressed tar, base first, with its name for errors."""
        return [(opener(self.content, layer), f"layer {layer.descriptor.digest}") for layer in self.layers]


def opener(content: Fetcher, layer: Layer) -> Opener:
    """Return a callable that opens one layer as an uncompressed, verified tar."""
    return lambda: open_tar(content, layer)


def load(content: Fetcher, root: Descriptor, *, platform: Platform | None = None) -> Image:
    """Read an image; an index is resolved to the manifest for `platform` (default: this machine's).

    Raises NotFound when the index has none for it, or has one that `content` lacks, InvalidDocument when manifest and
    config disagree, LimitExceeded for indexes nested too deep.
    """
    document = fetch_document(content, root)
    depth = 0
    while isinstance(document, Index):
        depth += 1
        if depth > limits.INDEX_DEPTH:
            raise LimitExceeded(f"index {root.digest}: indexes nested deeper than {limits.named('INDEX_DEPTH')}")
        wanted = platform or this_platform()
        root = select(document, wanted, where=str(root.digest))
        try:
            document = fetch_document(content, root)
        except NotFound as error:
            error.add_note(f"it is the index's image for {wanted}; `imagetool pull --platform {wanted} NAME` brings it")
            raise
    config = _config(content, document, root)
    if len(config.diff_ids) != len(document.layers):
        raise InvalidDocument(
            f"manifest {root.digest}: {len(document.layers)} layers, but its config has {len(config.diff_ids)} diff IDs"
        )
    layers = tuple(Layer(d, diff_id) for d, diff_id in zip(document.layers, config.diff_ids, strict=True))
    return Image(document, config, layers, content)


def this_platform() -> Platform:
    """Return the platform of Linux images that this machine runs."""
    return Platform.parse(f"linux/{os.uname().machine}")


def _config(content: Fetcher, manifest: Manifest, root: Descriptor) -> ImageConfig:
    kind = manifest.config.media_type
    raw = fetch_bytes(content, manifest.config)
    try:
        return ImageConfig.parse(raw, media_type=kind, what=f"config {manifest.config.digest}")
    except InvalidDocument:
        if kind in mediatype.CONFIGS:
            raise
    kind = manifest.artifact_type or kind
    raise InvalidDocument(f"manifest {root.digest} is an artifact of type {kind[:120]}, not an image")


def select(index: Index, platform: Platform, *, where: str) -> Descriptor:
    """Return the first entry of an index that runs on `platform`.

    An entry that does not say its platform is taken only when it is the only one.
    """
    images = [entry for entry in index.manifests if entry.annotations.get("vnd.docker.reference.type") is None]
    for entry in images:
        if entry.platform is not None and platform.runs(entry.platform):
            return entry
    if len(images) == 1 and images[0].platform is None:
        return images[0]
    have = ", ".join(sorted({str(entry.platform) for entry in images if entry.platform})) or "none that says so"
    raise NotFound(f"{where} has no image for {platform}; it has: {have}")


@contextmanager
def open_tar(content: Fetcher, layer: Layer) -> Iterator[Iterator[bytes]]:
    """Open a layer as an uncompressed tar whose compressed and plain digests are both verified.

    The error of a wrong digest comes at the end of the stream, so what was made of it before
    must not be visible yet.
    """
    from imagetool.streams.codecs import decompress

    where = f"layer {layer.descriptor.digest}"
    with content.fetch(layer.descriptor) as chunks:
        yield _checked(decompress(chunks, where=where), layer.diff_id, where)


def _checked(chunks: Iterable[bytes], diff_id: Digest, where: str) -> Iterator[bytes]:
    hasher = diff_id.hasher()
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    got = f"{diff_id.algorithm}:{hasher.hexdigest()}"
    if got != str(diff_id):
        raise DigestMismatch(f"{where}, uncompressed", expected=str(diff_id), got=got)
