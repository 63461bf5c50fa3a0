"""Receive one blob; a connection that breaks is taken up again where it broke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from imagetool.distribution.headers import ContentRange, printable
from imagetool.errors import NetworkError, SizeMismatch, VerificationError
from imagetool.oci.descriptor import Descriptor
from imagetool.remote.answer import Answer
from imagetool.remote.faults import ConnectionBroken
from imagetool.streams.verify import verified


class Download:
    """The body of a blob over as many answers as it takes; leaving its context closes the last one.

    Args:
        ask: requests the blob from an offset; raises NotFound and the like.
        wait: waits before try n+1; False when there shall be none.
    """

    def __init__(
        self, descriptor: Descriptor, ask: Callable[[int], Answer], wait: Callable[[int], bool], *, where: str
    ) -> None:
        self._descriptor = descriptor
        self._ask = ask
        self._wait = wait
        self._where = where
        self._answer = ask(0)

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answer.close()

    def verified(self) -> Iterator[bytes]:
        """Yield the blob's bytes, hashed once over all answers; see `streams.verified`."""
        encoding = printable(self._answer.header("Content-Encoding"), 40)
        try:
            yield from verified(self._chunks(), self._descriptor, where=self._where)
        except VerificationError as error:
            if encoding not in ("", "identity"):
                error.add_note(f"the registry sent it with Content-Encoding {encoding!r}, which nobody asked for")
            raise

    def _chunks(self) -> Iterator[bytes]:
        offset = tries = 0
        length = self._answer.length
        if length is not None and length != self._descriptor.size:
            raise SizeMismatch(self._where, expected=self._descriptor.size, got=length)
        skip = 0
        while True:
            try:
                for chunk in self._answer.chunks():
                    fresh = chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    if fresh:
                        offset += len(fresh)
                        tries = 0
                        yield fresh
                return
            except ConnectionBroken:
                tries += 1
                if not self._wait(tries):
                    raise
            self._answer.close()
            self._answer = self._ask(offset)
            skip = self._check(offset)

    def _check(self, offset: int) -> int:
        """Return how many bytes of a new answer were seen before; raises NetworkError for another range."""
        if self._answer.status != 206:
            return offset
        given = ContentRange.parse(self._answer.header("Content-Range"))
        if given is None or given.first != offset:
            raise NetworkError(f"{self._where}: asked for the bytes from {offset} on, was sent {given}")
        return 0
