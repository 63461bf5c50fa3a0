"""Whether the zlib that Python is linked with writes the bytes of the stock one.

Distributions ship zlib-ng or vendors' forks under zlib's name, and those write other bytes. The
stock library's deflate has written the same ones for many years. So no version is trusted:
a known input is compressed and the result compared (docs/adr/0010).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Final

from imagetool.errors import HostError

#: SHA-256 of `_sample()` as raw deflate with a dictionary and a sync flush, for levels 0 to 9.
_KNOWN: Final = (
    "67a8316465e4056632c266ff5138498cec7899273d08907b298b819aecbbccd0",
    "e3b0cd86900fb12a2f268b4f20f60e89f98363493f664766e838c0e0006c5039",
    "efdaeb2af12e67ed1b53b9d189b1b892e4f0586b0a35b9ff09d09588be0899bc",
    "3a8e0cf84cee05080b99c290367ec327026e3055cf14fa5519e66534c437cf07",
    "84eb7f8c7baab6b1bfd9b78538a3c6e87f51767d4e16463c44924fe7816c0a4c",
    "2a490052653ab5e611684e9fa90e32a04667334f7e47c26b67c63e43deceb60e",
    "aab57832cf29dc17c20239df818b235953e2accd262dd6d4d6d0b08975075042",
    "9e2df61d4b862feafdc54c87d009efd9b9507756160e37295b379ae03bd92959",
    "d533f0e2808ccbada71b722a8a9a9fe109b1801e18d5e512126cf356a44cad67",
    "d533f0e2808ccbada71b722a8a9a9fe109b1801e18d5e512126cf356a44cad67",
)


@cache
def require_stock_zlib(level: int) -> None:
    """Return when zlib gives the known answer for a level; raises HostError when it does not."""
    if answer(level) != _KNOWN[level]:
        raise HostError(
            f"this Python's zlib ({zlib.ZLIB_RUNTIME_VERSION}) writes other bytes than stock zlib at level {level};"
            " reproducible compression needs a Python with stock zlib, or compression none"
        )


def answer(level: int) -> str:
    """Return what the linked zlib makes of the sample, as a digest."""
    sample = b"".join(_sample())
    deflater = zlib.compressobj(level, zlib.DEFLATED, -15, zdict=sample[:32768])
    return hashlib.sha256(deflater.compress(sample) + deflater.flush(zlib.Z_SYNC_FLUSH)).hexdigest()


def _sample() -> Iterator[bytes]:
    """Yield about 400 KiB: noise, words in a random order, near repetitions, long runs.

    Enough for several blocks of each kind that deflate has, and for matches at every distance.
    """
    words = [hashlib.sha256(b"word %d" % number).hexdigest()[: 2 + number % 9].encode() for number in range(300)]
    for number in range(3000):
        digest = hashlib.sha256(b"sample %d" % number).digest()
        yield b" ".join(words[digest[index] + digest[index + 1] % 44] for index in range(12))
        if number % 8 == 0:
            yield digest * (1 + digest[0] % 3)
        if number % 97 == 0:
            yield digest[:1] * (digest[1] * 16)
        if number % 401 == 0:
            yield b"".join(hashlib.sha256(digest + bytes([index])).digest() for index in range(256))
