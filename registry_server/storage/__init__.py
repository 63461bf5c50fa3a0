"""Where the bytes of blobs are, behind one protocol.

A store knows bytes, not repositories. Its two kinds of names are opaque to everyone else: a
*session* is an upload on its way, a *locator* is a blob's bytes for good. A locator is never used
twice, even for the same digest, so deleting one can never hit what was uploaded anew meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from imagetool.oci.digest import Digest
from registry_server.message import Body


class BlobStore(Protocol):
    """The bytes of blobs, and sessions in which they come; which blob is whose is `metadata`'s matter.

    A locator is the store's own name for a blob, a session the name of one that is not whole yet.
    """

    def begin(self) -> str:
        """Start a session: 128 random bits in hex, so that knowing it is the right to use it."""
        ...

    def size(self, session: str) -> int | None:
        """Return how many bytes a session has, None for an unknown one."""
        ...

    def append(self, session: str, offset: int, chunks: Iterable[bytes], *, algorithm: str = "sha256") -> int:
        """Append to a session that has exactly `offset` bytes; return its new size.

        Of two callers with the same offset one wins, the other gets Conflict. What had arrived
        when `chunks` raises is kept, so that a client can go on from there. `algorithm` is the
        one to hash with while the bytes pass.
        """
        ...

    def commit(self, session: str, digest: Digest) -> tuple[str, int]:
        """Verify a session, make it durable, and return its locator and size; the session is over.

        Raises DigestMismatch, Conflict. Nobody finds the blob before metadata knows its locator.
        """
        ...

    def cancel(self, session: str) -> None:
        """Forget a session; one that is over already is no error."""
        ...

    def expire(self, before: float) -> int:
        """Forget the sessions that nothing was appended to since `before` (seconds); return how many."""
        ...

    def part(self, locator: str, start: int, end: int) -> Body:
        """Return the bytes `start` up to `end` of a blob as a response body. Raises Damaged when they are gone."""
        ...

    def delete(self, locator: str) -> None:
        """Remove a blob's bytes; absent ones are no error."""
        ...

    def locators(self) -> Iterator[tuple[str, float]]:
        """Yield every locator with the time of its last write, for sweeps of what metadata never learned of."""
        ...


class Conflict(Exception):
    """The session is not as the request says: gone, of another size, or being written to."""


class Damaged(Exception):
    """The store does not have the bytes that metadata says it has."""
