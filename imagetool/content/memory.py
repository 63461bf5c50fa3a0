"""A store in memory, with the same contract as the ones on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from imagetool.errors import NotFound
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.streams.verify import verified


class MemoryWriter:
    """A blob being collected in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Append to the blob."""
        self._parts.append(bytes(data))

    def commit(self) -> tuple[Digest, int]:
        """Make the blob visible under its digest."""
        data = b"".join(self._parts)
        digest = Digest.of(data)
        self._store.blobs[digest] = data
        return digest, len(data)


class MemoryStore:
    """Blobs and tags in dictionaries; safe to use from several threads.

    Implements Fetcher, Pusher, Ingester, Resolver and Tagger.
    """

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.tags: dict[str, Descriptor] = {}
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return "memory"

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Open a blob; see `Fetcher`."""
        try:
            data = self.blobs[descriptor.digest]
        except KeyError:
            raise NotFound(f"blob {descriptor.digest} is not in {self}") from None
        yield verified([data] if data else [], descriptor, where=f"{descriptor.digest} in {self}")

    def exists(self, descriptor: Descriptor) -> bool:
        """Say whether the blob is there with the right size."""
        data = self.blobs.get(descriptor.digest)
        return data is not None and len(data) == descriptor.size

    def push(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; see `Pusher`."""
        data = b"".join(verified(chunks, descriptor, where=f"{descriptor.digest} for {self}"))
        self.blobs[descriptor.digest] = data

    @contextmanager
    def ingest(self) -> Iterator[MemoryWriter]:
        """Open a blob whose digest is not known yet; see `Ingester`."""
        yield MemoryWriter(self)

    def resolve(self, reference: str) -> Descriptor:
        """Return what a tag or a digest points at."""
        with self._lock:
            for name, descriptor in self.tags.items():
                if reference in (name, str(descriptor.digest)):
                    return descriptor
        raise NotFound(f"no image named {reference!r} in {self}")

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Name a document that is in the store."""
        if not self.exists(descriptor):
            raise NotFound(f"cannot name {descriptor.digest} {reference!r}: it is not in {self}")
        with self._lock:
            self.tags[reference] = descriptor
