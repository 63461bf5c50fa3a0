"""Chunks that were verified where they come from are not hashed again, and nothing else is believed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagetool.errors import DigestMismatch, SizeMismatch
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.streams.verify import Verified, verified

DATA = b"data" * 1000
DESCRIPTOR = Descriptor.of(DATA, "text/plain")


def test_they_pass_as_often_as_they_are_iterated() -> None:
    chunks = Verified(DESCRIPTOR, lambda: verified([DATA[:7], DATA[7:]], DESCRIPTOR, where="source"))
    for _ in range(2):
        assert b"".join(verified(chunks, DESCRIPTOR, where="destination")) == DATA


def test_what_the_source_finds_wrong_ends_the_stream_before_its_last_chunk() -> None:
    chunks = Verified(DESCRIPTOR, lambda: verified([DATA[:-1], b"!"], DESCRIPTOR, where="source"))
    seen: list[bytes] = []
    with pytest.raises(DigestMismatch, match="source"):
        seen += verified(chunks, DESCRIPTOR, where="destination")
    assert b"!" not in seen


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (Descriptor("text/plain", Digest.of(b"other"), len(DATA)), DigestMismatch),
        (Descriptor("text/plain", DESCRIPTOR.digest, len(DATA) - 1), SizeMismatch),
        (Descriptor("text/plain", Digest.of(b"other", "sha512"), len(DATA)), DigestMismatch),
    ],
)
def test_another_descriptor_is_checked_again(other: Descriptor, error: type[Exception]) -> None:
    def source() -> Iterator[bytes]:
        return verified([DATA], DESCRIPTOR, where="source")

    with pytest.raises(error, match="destination"):
        list(verified(Verified(DESCRIPTOR, source), other, where="destination"))
