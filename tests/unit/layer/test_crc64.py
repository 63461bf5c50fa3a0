"""The CRC of tar-split, by a library where it is there, and by our own hand."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.layer import crc64 as crc64_module
from imagetool.layer.crc64 import crc64, folded_crc64
from tests.unit.layer.chunks import slow_crc64

Crc = Callable[[bytes, int], int]


BOTH = pytest.mark.parametrize("function", [crc64, folded_crc64])  # that of a library where it is there, and ours


@BOTH
def test_the_crc_has_its_check_value(function: Crc) -> None:
    assert function(b"123456789", 0) == 0xB90956C775A41001
    assert function(b"", 0) == 0


@BOTH
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000), cut=st.integers(0, 3000))
def test_the_crc_is_that_of_the_definition_however_it_is_cut(function: Crc, data: bytes, cut: int) -> None:
    assert function(data[cut:], function(data[:cut], 0)) == slow_crc64(data)


@BOTH
def test_the_crc_of_long_data_is_that_of_its_parts(function: Crc) -> None:
    data = random.Random(2).randbytes(200_000)
    assert function(data, 0) == function(data[16_384:], function(data[:16_384], 0))
    assert function(data[:20_000], 0) == slow_crc64(data[:20_000])


@pytest.mark.parametrize("answer", [AttributeError, lambda *_: 1])
def test_a_library_that_has_no_such_crc_or_another_one_is_not_used(
    answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def __getattr__(self, name: str) -> object:
            assert name == "crc64_iso_refl"
            if answer is AttributeError:
                raise AttributeError(name)
            return answer

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    assert crc64_module._native.__wrapped__() is None
