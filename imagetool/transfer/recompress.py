"""Give an image's layers another compression: the same tars, other blobs, so another manifest digest.

    fetch → verify → decompress → diff ID checked  ‖  compress (several threads)  ‖  sha256 → store

Configs stay as they are, byte for byte, and with them the image's ID; in manifests and indexes
only what names a layer or a rewritten document changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

from imagetool import limits
from imagetool.content.store import Fetcher, Ingester, Pusher, fetch_bytes, fetch_document
from imagetool.errors import ImagetoolError, InvalidDocument, LimitExceeded
from imagetool.image.append import Stacked
from imagetool.image.image import Layer, open_tar
from imagetool.image.write import write_layer
from imagetool.layer.annotations import OF_THE_BYTES, is_chunked
from imagetool.oci import mediatype, patch
from imagetool.oci.config import ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Document, Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.progress import BlobAdvanced, BlobFinished, BlobStarted, Observer, silent
from imagetool.streams.codecs import Codec, sniff
from imagetool.streams.pump import cpus, give_back_memory, share_memory
from imagetool.transfer.crew import Crew
from imagetool.transfer.plan import choose
from imagetool.values import dataclass, replace

#: The OCI media type of each Docker one; zstd layers exist in OCI manifests only.
_OCI_OF: Final = {
    mediatype.DOCKER_INDEX: mediatype.OCI_INDEX,
    mediatype.DOCKER_MANIFEST: mediatype.OCI_MANIFEST,
    mediatype.DOCKER_CONFIG: mediatype.OCI_CONFIG,
    mediatype.DOCKER_LAYER: mediatype.OCI_LAYER,
    mediatype.DOCKER_LAYER_GZIP: mediatype.OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
}
_DOCKER_LAYER_OF: Final = {"none": mediatype.DOCKER_LAYER, "gzip": mediatype.DOCKER_LAYER_GZIP}
#: Layers whose bytes may be exchanged; others may not be distributed, or are encrypted.
_REWRITABLE: Final = frozenset(mediatype.OCI_LAYER_OF.values()) | frozenset(_DOCKER_LAYER_OF.values())
#: Where BuildKit's attestations, in an index, say which image they are about.
_ABOUT: Final = "vnd.docker.reference.digest"
#: Layers at a time at most, and CPUs for each: a layer keeps two busy, and takes up to 64 MiB (docs/adr/0010).
_JOBS, _CPUS_OF_A_JOB = 4, 2


class Scratch(Fetcher, Ingester, Pusher, Protocol):
    """Where new layers and documents are put."""


@dataclass(frozen=True, slots=True)
class Recompressed:
    """An image with other layers: `content` has what is new and all that stayed.

    `layers` has (before, after) for each layer that changed, each once.
    """

    root: Descriptor
    content: Fetcher
    layers: tuple[tuple[Descriptor, Descriptor], ...]


def recompress(
    source: Fetcher,
    root: Descriptor,
    scratch: Scratch,
    codec: Codec,
    *,
    platform: Platform | None = None,
    observer: Observer = silent,
) -> Recompressed:
    """Return the image with its layers compressed by `codec`; new blobs and documents go to `scratch`.

    A layer that is compressed so already keeps its bytes, unless a level or reproducible output is
    asked for. Artifacts that are no images, and layers that may not be distributed, stay as they are.
    Docker manifests stay Docker's, but for zstd, which only OCI has.

    Args:
        platform: takes that image of an index; it becomes the root.

    Raises DigestMismatch for a layer that does not unpack to its diff ID.
    """
    root, _ = choose(source, root, platform)
    work = _Work(source, scratch, codec, observer)
    work.read(root)
    work.make_layers()
    return Recompressed(work.document(root), Stacked(scratch, source), tuple(work.changed.values()))


class _Work:
    """One image, or index of images, being rewritten."""

    def __init__(self, source: Fetcher, scratch: Scratch, codec: Codec, observer: Observer) -> None:
        self._source = source
        self._scratch = scratch
        self._codec = codec
        self._observer = observer
        self._documents: dict[Digest, Document] = {}
        self._layers: dict[Digest, Layer] = {}
        self._rewritten: dict[Digest, Descriptor] = {}
        self.changed: dict[Digest, tuple[Descriptor, Descriptor]] = {}

    def read(self, descriptor: Descriptor, depth: int = 0) -> None:
        """Fetch every document, and find the layers of those that are images."""
        if descriptor.digest in self._documents:
            return
        if depth > limits.INDEX_DEPTH:
            raise LimitExceeded(f"index {descriptor.digest}: indexes nested deeper than {limits.named('INDEX_DEPTH')}")
        document = fetch_document(self._source, descriptor)
        self._documents[descriptor.digest] = document
        if isinstance(document, Index):
            for child in document.manifests:
                if child.media_type in mediatype.DOCUMENTS:
                    self.read(child, depth + 1)
        elif document.config.media_type in mediatype.CONFIGS:
            self._find_layers(descriptor, document)

    def _find_layers(self, descriptor: Descriptor, manifest: Manifest) -> None:
        what = f"config {manifest.config.digest}"
        raw = fetch_bytes(self._source, manifest.config)
        config = ImageConfig.parse(raw, media_type=manifest.config.media_type, what=what)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidDocument(
                f"manifest {descriptor.digest}: {len(manifest.layers)} layers, but its config has"
                f" {len(config.diff_ids)} diff IDs"
            )
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            if layer.media_type in _REWRITABLE:
                self._layers.setdefault(layer.digest, Layer(layer, diff_id))

    def make_layers(self) -> None:
        """Compress every layer anew, the largest first."""
        share_memory()  # before there are threads
        layers = sorted(self._layers.values(), key=lambda layer: -layer.descriptor.size)
        crew: Crew[Layer | None] = Crew(max(1, min(cpus() // _CPUS_OF_A_JOB, _JOBS)))
        made = crew.run([partial(self._make, layer, crew) for layer in layers])
        for before, after in zip(layers, made, strict=True):
            if after is not None:
                self.changed[before.descriptor.digest] = (before.descriptor, after.descriptor)

    def _make(self, layer: Layer, crew: Crew[Layer | None]) -> Layer | None:
        """Return a layer with other bytes, None when it keeps those it has."""
        descriptor = layer.descriptor
        try:
            if self._is_so_already(descriptor):
                return None
            self._observer(BlobStarted(str(descriptor.digest), descriptor.size, "layer", "copy"))
            watched = _Watched(self._source, self._observer, crew)
            with open_tar(watched, layer) as tar:
                made = write_layer(tar, self._scratch, self._codec, diff_id=layer.diff_id)
            give_back_memory()  # the next one's tables do not fit into what is left of this one's
        except ImagetoolError as error:
            error.add_note(f"while compressing layer {descriptor.digest} anew")
            raise
        self._observer(BlobFinished(str(descriptor.digest), "done"))
        return made if made.descriptor.digest != descriptor.digest else None

    def _is_so_already(self, descriptor: Descriptor) -> bool:
        if self._codec.level is not None or self._codec.window or self._codec.reproducible:
            return False
        if self._codec.chunked != is_chunked(descriptor):
            return False
        with self._source.fetch(descriptor) as chunks:
            return sniff(next(chunks, b"")[:6]) == self._codec.compression

    def document(self, descriptor: Descriptor) -> Descriptor:
        """Return the descriptor of a document after the change; a new document is stored."""
        if descriptor.digest not in self._documents:
            return descriptor
        if descriptor.digest not in self._rewritten:
            document = self._documents[descriptor.digest]
            new = self._index(document) if isinstance(document, Index) else self._manifest(document)
            if new.raw != document.raw:
                self._scratch.push(new.descriptor, [new.raw])
            self._rewritten[descriptor.digest] = new.descriptor
        new_one = self._rewritten[descriptor.digest]
        return replace(descriptor, media_type=new_one.media_type, digest=new_one.digest, size=new_one.size)

    def _index(self, index: Index) -> Index:
        children = [self.document(child) for child in index.manifests]
        moved = {str(before.digest): str(after.digest) for before, after in zip(index.manifests, children, strict=True)}
        children = [_about(child, moved) for child in children]
        is_changed = any(
            before != after or before.annotations != after.annotations
            for before, after in zip(index.manifests, children, strict=True)
        )
        if not is_changed:
            return index
        new = index.with_manifests(children)
        media_type = _OCI_OF.get(index.media_type, index.media_type) if self._is_oci_only else index.media_type
        return Index.parse(_typed(new.raw, index.media_type, media_type), media_type=media_type)

    @property
    def _is_oci_only(self) -> bool:
        return self._codec.compression == "zstd"

    def _manifest(self, manifest: Manifest) -> Manifest:
        layers = [self._layer(layer, manifest.media_type) for layer in manifest.layers]
        if layers == list(manifest.layers) or manifest.config.media_type not in mediatype.CONFIGS:
            return manifest
        media_type, config = manifest.media_type, manifest.config
        if self._is_oci_only:
            media_type = _OCI_OF.get(media_type, media_type)
            config = replace(config, media_type=_OCI_OF.get(config.media_type, config.media_type))
            layers = [replace(layer, media_type=_OCI_OF.get(layer.media_type, layer.media_type)) for layer in layers]
        raw = manifest.raw
        if config != manifest.config:
            raw = patch.patch(raw, {("config", "mediaType"): config.media_type})
        old = patch.elements(raw, "layers")
        entries: list[Any] = [
            text if before == after else after.tree()
            for text, before, after in zip(old, manifest.layers, layers, strict=True)
        ]
        raw = _typed(patch.patch(raw, {("layers",): entries}), manifest.media_type, media_type)
        return Manifest.parse(raw, media_type=media_type)

    def _layer(self, before: Descriptor, manifest_type: str) -> Descriptor:
        """Return a layer's descriptor after the change: what it said about the old bytes is left out."""
        if before.digest not in self.changed:
            return before
        after = self.changed[before.digest][1]
        media_type = after.media_type
        if manifest_type == mediatype.DOCKER_MANIFEST and not self._is_oci_only:
            media_type = _DOCKER_LAYER_OF[self._codec.compression]
        kept = {key: value for key, value in before.annotations.items() if key not in OF_THE_BYTES}
        extra = {key: value for key, value in before.extra.items() if key not in ("data", "urls")}
        return replace(
            before,
            media_type=media_type,
            digest=after.digest,
            size=after.size,
            annotations={**kept, **after.annotations},
            extra=extra,
        )


def _typed(raw: bytes, before: str, after: str) -> bytes:
    return raw if before == after else patch.patch(raw, {("mediaType",): after})


def _about(child: Descriptor, moved: Mapping[str, str]) -> Descriptor:
    """Let an attestation's entry name the image's new digest."""
    about = child.annotations.get(_ABOUT)
    if about is None or moved.get(about, about) == about:
        return child
    return replace(child, annotations={**child.annotations, _ABOUT: moved[about]})


class _Watched:
    """A store whose blobs tell of their progress, and stop when the crew does."""

    def __init__(self, store: Fetcher, observer: Observer, crew: Crew[Layer | None]) -> None:
        self._store = store
        self._observer = observer
        self._crew = crew

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Open a blob; see `Fetcher`."""
        with self._store.fetch(descriptor) as chunks:
            yield self._told(chunks, str(descriptor.digest))

    def _told(self, chunks: Iterable[bytes], digest: str) -> Iterator[bytes]:
        for chunk in self._crew.watched(chunks):
            yield chunk
            self._observer(BlobAdvanced(digest, len(chunk)))
