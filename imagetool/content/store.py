"""What a store can do, as one-method protocols; each store implements what it can.

`tests/contract` holds one suite per protocol that every implementation passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from imagetool import limits
from imagetool.errors import DigestMismatch, LimitExceeded, NotFound, SizeMismatch, StorageError
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Document, Index, parse


class Fetcher(Protocol):
    """Where blobs are read from. What comes out is verified: who reads need not trust where it lay."""

    def fetch(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Open a blob; the iterator yields verified bytes (`streams.verified`). Raises NotFound on entry."""
        ...


class Pusher(Protocol):
    """Where blobs of known digest are put. What comes in is verified, and refused with VerificationError."""

    def exists(self, descriptor: Descriptor) -> bool:
        """Say whether the blob (or document) is there, of the right size."""
        ...

    def push(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob atomically: after a return it is durable, after an error nothing of it is visible."""
        ...


class Writer(Protocol):
    """A blob that is being written; hashed on the way, so that `commit` can say which one it is."""

    def write(self, data: bytes) -> None:
        """Append to the blob."""
        ...

    def commit(self) -> tuple[Digest, int]:
        """Make the blob visible and durable under its digest, and return that and its size."""
        ...


class Ingester(Protocol):
    """Where blobs are put that are made while they are written, as layers are."""

    def ingest(self) -> AbstractContextManager[Writer]:
        """Open a blob whose digest is not known yet; leaving without commit removes what was written."""
        ...


class Resolver(Protocol):
    """Where names are looked up."""

    def resolve(self, reference: str) -> Descriptor:
        """Return what a tag (or a digest in text form) points at. Raises NotFound."""
        ...


class Tagger(Protocol):
    """Where names are given; another one of the same name is replaced in one step."""

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Point a tag at a document that the store already has."""
        ...


class Mounter(Protocol):
    """Where a blob can come from beside: a registry, which need not be sent what another repository of it has."""

    def mount(self, descriptor: Descriptor, source: str) -> bool:
        """Try to take a blob from repository `source` of the same registry without moving bytes; say whether it did."""
        ...


class Source(Fetcher, Resolver, Protocol):
    """What a copy reads from."""


class Destination(Pusher, Tagger, Protocol):
    """What a copy writes to."""


def fetch_bytes(store: Fetcher, descriptor: Descriptor) -> bytes:
    """Return a small blob (a config, a manifest) in memory; raises LimitExceeded above DOCUMENT_BYTES."""
    if descriptor.size > limits.DOCUMENT_BYTES:
        raise LimitExceeded(
            f"{descriptor.media_type} {descriptor.digest}: {descriptor.size} bytes,"
            f" more than {limits.named('DOCUMENT_BYTES')}"
        )
    with store.fetch(descriptor) as chunks:
        return b"".join(chunks)


def fetch_document(store: Fetcher, descriptor: Descriptor) -> Document:
    """Return a manifest or index, read as what its descriptor says it is."""
    raw = fetch_bytes(store, descriptor)
    return parse(raw, media_type=descriptor.media_type, what=f"manifest {descriptor.digest}")


def push_bytes(store: Pusher, data: bytes, media_type: str) -> Descriptor:
    """Store bytes in memory and return their descriptor."""
    descriptor = Descriptor.of(data, media_type)
    store.push(descriptor, [data] if data else [])
    return descriptor


class Documents(Fetcher, Pusher, Protocol):
    """Where documents go, and are looked for first."""


def keep_bytes(store: Documents, descriptor: Descriptor, raw: bytes) -> None:
    """Store bytes that may be there already; then they are not written anew, and nobody waits for a disk."""
    if store.exists(descriptor):
        damaged = contextlib.suppress(DigestMismatch, SizeMismatch, StorageError, NotFound)
        with damaged, store.fetch(descriptor) as chunks:
            if b"".join(chunks) == raw:
                return
    store.push(descriptor, [raw])


def walk(store: Fetcher, root: Descriptor) -> Iterator[tuple[Descriptor, Document]]:
    """Yield every document below and including `root`, parents first, each digest once.

    Raises LimitExceeded for indexes nested deeper than `limits.INDEX_DEPTH`.
    """
    seen: set[Digest] = set()
    waiting = [(root, 0)]
    while waiting:
        descriptor, depth = waiting.pop(0)
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if depth > limits.INDEX_DEPTH:
            raise LimitExceeded(f"index {root.digest}: indexes nested deeper than {limits.named('INDEX_DEPTH')}")
        document = fetch_document(store, descriptor)
        yield descriptor, document
        if isinstance(document, Index):
            waiting.extend((child, depth + 1) for child in document.manifests)
