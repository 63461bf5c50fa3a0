"""Recompute everything an image claims about itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from imagetool import limits
from imagetool.content.store import Fetcher, fetch_bytes, fetch_document
from imagetool.errors import ImagetoolError, NotFound
from imagetool.image.image import Layer, open_tar
from imagetool.layer.tarreader import read
from imagetool.layer.toc import compare, is_partial, read_toc
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest
from imagetool.progress import BlobAdvanced, BlobFinished, BlobStarted, Observer
from imagetool.streams.codecs import sniff
from imagetool.values import dataclass

_MAGIC: Final = 6  # bytes that tell a compression

#: The platform of what BuildKit attests of an image, in its index: a manifest whose layers are JSON, not tars.
_NOWHERE: Final = ("unknown", "unknown")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was recomputed; `problem` is empty when it holds."""

    what: str
    descriptor: Descriptor
    problem: str = ""


class Watched:
    """A fetcher that tells how far each blob is that is fetched through it."""

    def __init__(self, store: Fetcher, observer: Observer) -> None:
        self._store = store
        self._observer = observer

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Open a blob; see `Fetcher`."""
        digest = str(descriptor.digest)
        self._observer(BlobStarted(digest, descriptor.size, "blob", "verify"))
        try:
            with self._store.fetch(descriptor) as chunks:
                yield self._advancing(digest, chunks)
        finally:
            self._observer(BlobFinished(digest, "done"))

    def _advancing(self, digest: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._observer(BlobAdvanced(digest, len(chunk)))
            yield chunk


def verify(store: Fetcher, root: Descriptor, *, sparse: bool = False) -> Iterator[Check]:
    """Yield a check for every document and blob that `root` reaches, parents first, each document once.

    Recomputed are digest and size of each, the schema of documents, the diff ID of every layer,
    that every layer is a readable tar, compressed as its media type says, and that its table of
    contents, if it has one for partial pulls, says what the tar says. A check that fails does not
    stop the others. Nothing is read twice, however many images of an index have it.

    sparse: an index need not have all its images here, as after a pull for one platform; those that are not are
    "absent". One that has none of them fails.
    """
    yield from _documents(store, root, {}, set(), 0, sparse=sparse)


_Known = dict[tuple[Descriptor, Digest | None], Check]


def _documents(
    store: Fetcher, root: Descriptor, known: _Known, seen: set[Descriptor], depth: int, *, sparse: bool
) -> Iterator[Check]:
    if depth > limits.INDEX_DEPTH:
        yield Check("document", root, f"indexes are nested deeper than {limits.named('INDEX_DEPTH')}")
        return
    seen.add(root)
    try:
        document = fetch_document(store, root)
    except ImagetoolError as error:
        yield Check("document", root, str(error))
        return
    if isinstance(document, Index):
        yield Check("index", root)
        absent = [child for child in document.manifests if sparse and _is_absent(store, child)]
        if len(absent) == len(document.manifests):
            absent = []
        for child in document.manifests:
            if child in absent:
                yield Check("absent", child)
            elif child not in seen:
                yield from _documents(store, child, known, seen, depth + 1, sparse=sparse)
    else:
        yield Check("manifest", root)
        yield from _manifest(store, document, known)


def _is_absent(store: Fetcher, descriptor: Descriptor) -> bool:
    try:
        with store.fetch(descriptor):
            return False
    except NotFound:
        return True
    except ImagetoolError:
        return False  # here, and something is wrong with it


def _manifest(store: Fetcher, manifest: Manifest, known: _Known) -> Iterator[Check]:
    if manifest.config.media_type not in mediatype.CONFIGS:  # an artifact: blobs without a meaning to us
        for child in manifest.children:
            yield _blob(store, child, known)
        return
    try:
        raw = fetch_bytes(store, manifest.config)
        config = ImageConfig.parse(raw, media_type=manifest.config.media_type, what=f"config {manifest.config.digest}")
    except ImagetoolError as error:
        yield Check("config", manifest.config, str(error))
        for descriptor in manifest.layers:
            yield _blob(store, descriptor, known)
        return
    mismatch = len(config.diff_ids) != len(manifest.layers)
    problem = f"has {len(config.diff_ids)} diff IDs for {len(manifest.layers)} layers" if mismatch else ""
    yield Check("config", manifest.config, problem)
    is_image = (config.platform.os, config.platform.architecture) != _NOWHERE
    for number, descriptor in enumerate(manifest.layers):
        if number >= len(config.diff_ids) or not is_image:
            yield _blob(store, descriptor, known)
            continue
        yield _layer(store, Layer(descriptor, config.diff_ids[number]), known)


def _blob(store: Fetcher, descriptor: Descriptor, known: _Known) -> Check:
    key = (descriptor, None)
    if key not in known:
        problem = ""
        try:
            with store.fetch(descriptor) as chunks:
                for _ in chunks:
                    pass
        except ImagetoolError as error:
            problem = str(error)
        known[key] = Check("blob", descriptor, problem)
    return known[key]


def _layer(store: Fetcher, layer: Layer, known: _Known) -> Check:
    key = (layer.descriptor, layer.diff_id)
    if key not in known:
        begun = _Begun(store)
        try:
            with open_tar(begun, layer) as tar:
                for _ in read(tar, where=f"layer {layer.descriptor.digest}"):
                    pass
            problem = _other_compression(layer.descriptor, begun.head)
            if not problem and is_partial(layer.descriptor):
                problem = _other_contents(store, layer)
        except ImagetoolError as error:
            problem = str(error)
        known[key] = Check("layer", layer.descriptor, problem)
    return known[key]


class _Begun:
    """A fetcher that keeps how the last blob begins that was fetched through it."""

    def __init__(self, store: Fetcher) -> None:
        self._store = store
        self.head = b""

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Open a blob; see `Fetcher`."""
        self.head = b""
        with self._store.fetch(descriptor) as chunks:
            yield self._noting(chunks)

    def _noting(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if len(self.head) < _MAGIC:
                self.head += chunk[:_MAGIC]
            yield chunk


def _other_compression(descriptor: Descriptor, head: bytes) -> str:
    """Say that a layer is compressed in another way than its media type says; "" when it is not."""
    wanted, got = mediatype.LAYER_COMPRESSION.get(descriptor.media_type), sniff(head)
    return "" if wanted is None or wanted == got else f"is {got}, its media type says {wanted}"


def _other_contents(store: Fetcher, layer: Layer) -> str:
    """Say how the table of contents of a layer for partial pulls differs from its tar; "" when it does not."""
    where = f"layer {layer.descriptor.digest}"

    def blob(offset: int, length: int) -> bytes:
        found = b""
        with store.fetch(layer.descriptor) as chunks:
            at = 0
            for chunk in chunks:
                found += chunk[max(0, offset - at) : max(0, offset + length - at)]
                at += len(chunk)
                if at >= offset + length:
                    break
        return found

    toc = read_toc(blob, layer.descriptor.size, layer.descriptor.annotations, where=where)
    with open_tar(store, layer) as tar:
        differences = list(itertools.islice(compare(toc, tar, where=where), 3))
    return "; ".join(differences)
