"""Check a stream against its descriptor while it passes, never after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from imagetool import limits
from imagetool.errors import DigestMismatch, LimitExceeded, SizeMismatch
from imagetool.oci.descriptor import Descriptor


class Verified:
    """A blob's chunks that are checked against its descriptor where they come from, each time they are iterated.

    What a Fetcher yields is of this kind; a copy says so with it, and no byte is hashed twice.
    """

    __slots__ = ("_open", "descriptor")

    def __init__(self, descriptor: Descriptor, open: Callable[[], Iterator[bytes]]) -> None:
        self.descriptor = descriptor
        self._open = open

    def __iter__(self) -> Iterator[bytes]:
        return self._open()

    def vouches_for(self, other: Descriptor) -> bool:
        """Say whether the same bytes are meant."""
        return (self.descriptor.digest, self.descriptor.size) == (other.digest, other.size)


def verified(chunks: Iterable[bytes], descriptor: Descriptor, *, where: str) -> Iterator[bytes]:
    """Yield the chunks of a blob; the last one comes out only when size and digest are right.

    Chunks that are `Verified` for the same digest and size pass as they are.

    The stream is trusted by nobody before it has ended without an error: a consumer that makes
    bytes visible earlier must be able to take them back.

    Args:
        where: the blob's place for errors, for example "layer sha256:… from registry:5000".

    Raises SizeMismatch as soon as one byte too many has been seen, or at an early end;
    DigestMismatch at the end.
    """
    if isinstance(chunks, Verified) and chunks.vouches_for(descriptor):
        yield from chunks
        return
    hasher = descriptor.digest.hasher()
    seen = 0
    held = b""
    for chunk in chunks:
        seen += len(chunk)
        if seen > descriptor.size:
            raise SizeMismatch(where, expected=descriptor.size, got=seen)
        hasher.update(chunk)
        if held:
            yield held
        held = chunk
    if seen != descriptor.size:
        raise SizeMismatch(where, expected=descriptor.size, got=seen)
    got = f"{descriptor.digest.algorithm}:{hasher.hexdigest()}"
    if got != str(descriptor.digest):
        raise DigestMismatch(where, expected=str(descriptor.digest), got=got)
    if held:
        yield held


def bounded(chunks: Iterable[bytes], limit: int, *, where: str, name: str = "") -> Iterator[bytes]:
    """Yield chunks until more than `limit` bytes have been seen; then raise LimitExceeded.

    name: the constant of `limits` that `limit` is, if it is one.
    """
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > limit:
            raise LimitExceeded(f"{where}: larger than {limits.named(name) if name else f'the {limit} bytes allowed'}")
        yield chunk


def read_all(chunks: Iterable[bytes], limit: int, *, where: str, name: str = "") -> bytes:
    """Return a small stream as one bytes object of at most `limit` bytes; see `bounded`."""
    return b"".join(bounded(chunks, limit, where=where, name=name))
