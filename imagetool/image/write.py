"""Make layers and images in a store, in one pass over the bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from imagetool.content.store import Documents, Ingester, keep_bytes
from imagetool.image.image import Layer
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest, new_hasher
from imagetool.oci.manifest import Manifest
from imagetool.streams.codecs import Codec
from imagetool.streams.pump import in_thread, rejoined


def write_layer(tar: Iterable[bytes], store: Ingester, codec: Codec, *, diff_id: Digest | None = None) -> Layer:
    """Store an uncompressed tar stream as a layer: tar → sha256 → codec → sha256 → store, each byte once.

    A tar of more than one chunk is produced in a thread of its own, while this one hashes and
    others compress.

    Args:
        diff_id: the tar's digest when `tar` itself makes sure of it, raising at its end when it is wrong.
    """
    source = iter(tar)
    head = list(itertools.islice(source, 2))
    if len(head) < 2:
        return _store([*head, *source], store, codec, diff_id)
    with in_thread(rejoined(head, source)) as chunks:
        return _store(chunks, store, codec, diff_id)


def _store(chunks: Iterable[bytes], store: Ingester, codec: Codec, known: Digest | None) -> Layer:
    hasher = new_hasher()

    def hashed() -> Iterator[bytes]:
        for chunk in chunks:
            hasher.update(chunk)
            yield chunk

    plain = codec.compression == "none"
    source = chunks if plain or known else hashed()
    annotations: dict[str, str] = {}
    with store.ingest() as blob:
        for piece in chunked(source, codec, annotations) if codec.chunked else codec.compress(source):
            blob.write(piece)
        digest, size = blob.commit()
    diff_id = known or (digest if plain else Digest("sha256", hasher.hexdigest()))
    return Layer(Descriptor(mediatype.OCI_LAYER_OF[codec.compression], digest, size, annotations), diff_id)


def chunked(tar: Iterable[bytes], codec: Codec, annotations: dict[str, str]) -> Iterator[bytes]:
    """Yield a tar as zstd:chunked; imported when it is asked for, as few do."""
    from imagetool.layer.chunked import compress

    return compress(tar, codec, annotations, where="the layer")


def tar_digest(tar: Iterable[bytes]) -> Digest:
    """Return the digest a tar stream would have as a layer's diff ID, without keeping it."""
    hasher = new_hasher()
    for chunk in tar:
        hasher.update(chunk)
    return Digest("sha256", hasher.hexdigest())


def write_image(
    store: Documents, config: ImageConfig, layers: Iterable[Layer], *, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """Store a config and the manifest over it and the layers, which the store has already.

    A document that is there, whole, is not written anew: a build that changes nothing waits for no disk.
    """
    keep_bytes(store, config.descriptor, config.raw)
    manifest = Manifest.make(config.descriptor, [layer.descriptor for layer in layers], annotations=annotations)
    keep_bytes(store, manifest.descriptor, manifest.raw)
    return manifest
