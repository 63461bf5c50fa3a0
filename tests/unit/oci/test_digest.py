"""Digests and chain IDs."""

from __future__ import annotations

import hashlib

import pytest

from imagetool.errors import InvalidDocument
from imagetool.oci.digest import Digest, chain_id, chain_ids, new_hasher

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_names_content() -> None:
    assert str(Digest.of(b"")) == f"sha256:{EMPTY}"
    assert str(Digest.of(b"x", "sha512")) == f"sha512:{hashlib.sha512(b'x').hexdigest()}"
    assert Digest.parse(f"sha256:{EMPTY}") == Digest.of(b"")
    assert Digest.of(b"").short == EMPTY[:12]
    hasher = Digest.of(b"").hasher()
    hasher.update(b"y")
    assert hasher.hexdigest() == hashlib.sha256(b"y").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        *("", "sha256", "sha256:", f"sha256:{EMPTY.upper()}", f"sha256:{EMPTY[:-1]}", f"sha256:{EMPTY}0"),
        *(f"SHA256:{EMPTY}", f"sha512:{EMPTY}", f"md5:{'0' * 32}", f"sha256:{EMPTY}\n", f" sha256:{EMPTY}"),
        *("sha256:../../../../etc/passwd", f"sha256:{'g' * 64}", f"sha256:{'٠' * 64}", "sha256:" + "a" * 10_000),
    ],
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        Digest.parse(text)
    assert len(str(refused.value)) < 300


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="md5"):
        new_hasher("md5")


def test_chain_ids_are_those_of_the_specification() -> None:
    one, two, three = (Digest.of(name) for name in (b"1", b"2", b"3"))
    second = hashlib.sha256(f"{one} {two}".encode()).hexdigest()
    third = hashlib.sha256(f"sha256:{second} {three}".encode()).hexdigest()
    assert [digest.hex for digest in chain_ids([one, two, three])] == [one.hex, second, third]
    assert chain_id([one, two]) == Digest("sha256", second)
    assert chain_id([]) is None
