"""Content digests: the address of every blob."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from imagetool.errors import InvalidDocument
from imagetool.values import dataclass

#: Algorithms we accept, with the number of hex digits each has. sha256 first: it is the default.
_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_LOWER_HEX: Final = re.compile(r"[0-9a-f]+\Z")


class Hasher(Protocol):
    """The part of a hashlib object that is used here; `update` releases the GIL on large input."""

    def update(self, data: bytes, /) -> None:
        """Take the next bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, in lower-case hex."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm:hex`, valid by construction: a known algorithm and exactly its lower-case hex digits.

    Because of that a Digest is safe as a file name and in a URL.

    Source: image-spec v1.1 descriptor.md, "Digests".
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        if _HEX_LENGTH.get(self.algorithm) != len(self.hex) or not _LOWER_HEX.match(self.hex):
            raise InvalidDocument(f"not a supported digest: {f'{self.algorithm}:{self.hex}'[:160]!r}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hex digits, as lists print them."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`; raises InvalidDocument for anything else, upper case included."""
        algorithm, _, hex_digits = text.partition(":")
        return cls(algorithm, hex_digits)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of bytes in memory."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())

    def hasher(self) -> Hasher:
        """Return a fresh hasher of this digest's algorithm, to verify content against it."""
        return new_hasher(self.algorithm)


def new_hasher(algorithm: str = "sha256") -> Hasher:
    """Return a fresh hasher; raises InvalidDocument for an algorithm that is not supported."""
    if algorithm not in _HEX_LENGTH:
        raise InvalidDocument(f"not a supported digest algorithm: {algorithm[:40]!r}")
    return hashlib.new(algorithm, usedforsecurity=True)


def chain_ids(diff_ids: Iterable[Digest]) -> Iterator[Digest]:
    """Yield the ChainID of each layer prefix, base first.

    Args:
        diff_ids: digests of the *uncompressed* layer tars, base layer first.

    Source: image-spec v1.1 config.md, "Layer ChainID".
    """
    chain: Digest | None = None
    for diff_id in diff_ids:
        chain = Digest.of(f"{chain} {diff_id}".encode()) if chain else diff_id
        yield chain


def chain_id(diff_ids: Iterable[Digest]) -> Digest | None:
    """Return the ChainID of the whole stack, or None for no layers."""
    last = None
    for last in chain_ids(diff_ids):  # noqa: B007 - the loop's last value is the result
        pass
    return last
