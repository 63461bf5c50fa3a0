"""The one JSON decoder: what it refuses, at its bounds and one past them, and where it says so."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool import limits
from imagetool.errors import InvalidDocument, LimitExceeded
from imagetool.oci.document import (
    check_timestamp,
    decode,
    encode,
    get,
    get_list,
    get_string_map,
    get_strings,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\é', max_size=3), inner, max_size=4),
    max_leaves=20,
)


def refusal(raw: bytes) -> str:
    with pytest.raises(InvalidDocument) as refused:
        decode(raw, what="doc")
    return str(refused.value)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), JSON, max_size=5))
def test_it_reads_what_the_standard_library_reads(tree: dict[str, Any]) -> None:
    for raw in (json.dumps(tree).encode(), json.dumps(tree, ensure_ascii=False, indent=2).encode(), encode(tree)):
        assert decode(raw, what="doc") == tree


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'{"a":1,"a":2}', "doc: $.a is there twice"),
        (b'{"a":[{"b":1},{"b":1,"c":{"d":0},"b":2}]}', "doc: $.a[1].b is there twice"),
        (b'{"\\u0061":1,"a":2}', "doc: $.a is there twice"),
        (b'{"a":{"a":1},"b":{"a":1},"a":[]}', "doc: $.a is there twice"),
        (b'{"\\ud800":1,"\\ud800":2}', "is there twice"),
        (b'{"a":{"k":"NaN"},"b":[0,NaN]}', "doc: $.b[1] is NaN, which is not JSON"),
        (b'{"a":-Infinity}', "doc: $.a is -Infinity, which is not JSON"),
        (b'{"a":["9' + b"9" * 40 + b'",{"c":' + b"9" * 40 + b"}]}", "doc: $.a[1].c is an integer of 40 digits"),
        (b'{"a":1.' + b"0" * 64 + b"}", "doc: $.a is a number of 66 characters"),
        (b'{"a":"\\ud800"}', "half a surrogate pair"),
        (b'{"a":"\xff"}', "utf-8"),
        (b'{"a":1,}', "line 1 column 8"),
        (b'{"a":1} x', "Extra data"),
        (b"", "Expecting value"),
        (b"[1]", "doc: $ is an array, expected an object"),
        (b"null", "doc: $ is null, expected an object"),
        (b'\xef\xbb\xbf{"a":1}', "BOM"),
    ],
)
def test_it_refuses_and_says_where(raw: bytes, text: str) -> None:
    assert text in refusal(raw)


def test_integers_at_the_bound_and_one_digit_more() -> None:
    digits = "9" * limits.DOCUMENT_INT_DIGITS
    assert decode(b'{"a":-%b}' % digits.encode(), what="doc") == {"a": -int(digits)}
    for one_more in (f"1{digits}", f"-1{digits}"):
        assert f"integer of {limits.DOCUMENT_INT_DIGITS + 1} digits" in refusal(f'{{"a":{one_more}}}'.encode())


def test_nesting_at_the_bound_and_one_deeper() -> None:
    inside = limits.DOCUMENT_DEPTH - 1
    assert decode(b'{"a":' + b"[" * inside + b"]" * inside + b"}", what="doc")
    text = refusal(b'{"a":' + b"[" * (inside + 1) + b"]" * (inside + 1) + b"}")
    assert "$.a[0]" in text
    assert "deeper" in text
    assert decode(b'{"a":"' + b"[{" * 1000 + b'"}', what="doc"), "brackets in strings are text"


@pytest.mark.parametrize("start", [b'{"a\\q":', b"{:", b'{"\xff":', b'{"a\nb" :', b'{"a":1,"b":{1:'])
def test_what_is_too_deep_may_be_wrong_in_other_ways_too(start: bytes) -> None:
    assert "deeper" in refusal(start + b"[" * 100)


def test_a_number_that_would_be_infinite_is_refused() -> None:
    assert decode(b'{"a":1e308}', what="doc") == {"a": 1e308}
    for text in (b"1e309", b"-1e309"):
        assert "doc: $.a is a number beyond" in refusal(b'{"a":%b}' % text)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_endless_nesting_ends_at_once(opening: bytes) -> None:
    began = time.process_time()
    assert "deeper" in refusal(b'{"a":' + opening * 700_000)
    assert time.process_time() - began < 10


def test_size_at_the_bound_and_one_byte_more() -> None:
    raw = b'{"a":"' + b"x" * (limits.DOCUMENT_BYTES - 8) + b'"}'
    assert len(raw) == limits.DOCUMENT_BYTES
    assert decode(raw, what="doc")
    with pytest.raises(LimitExceeded, match="doc: JSON larger than the limit document-bytes=4194304,"):
        decode(raw + b" ", what="doc")


def test_fields_are_typed_and_errors_name_their_path() -> None:
    tree = {"s": "x", "n": 3, "t": True, "l": ["a", 2], "m": {"k": 1}, "none": None}
    assert get(tree, "s", str, None, path="$", what="doc") == "x"
    assert get(tree, "none", str, "default", path="$", what="doc") == "default"
    for field, kind, text in (
        ("n", str, r"\$\.x\.n is an integer, expected a string"),
        ("t", int, r"\$\.x\.t is a boolean, expected an integer"),
        ("gone", str, r"\$\.x\.gone is missing"),
        ("none", dict, r"\$\.x\.none is missing"),
    ):
        with pytest.raises(InvalidDocument, match=text):
            get(tree, field, kind, None, path="$.x", what="doc")
    with pytest.raises(InvalidDocument, match=r"\$\.l\[1\] is an integer, expected a string"):
        get_strings(tree, "l", path="$", what="doc")
    with pytest.raises(InvalidDocument, match=r"\$\.m\.k is an integer, expected a string"):
        get_string_map(tree, "m", path="$", what="doc")
    assert get_list(tree, "absent", lambda _, at: at, path="$", what="doc") == ()
    assert get_list(tree, "l", lambda _, at: at, path="$", what="doc") == ("$.l[0]", "$.l[1]")


@pytest.mark.parametrize(
    "text", ["2020-01-01T00:00:00Z", "2020-02-29t23:59:60.123456789+14:00", "1980-01-01T00:00:00.5-00:00"]
)
def test_timestamps_of_rfc_3339(text: str) -> None:
    assert check_timestamp(text, path="$.created", what="doc") == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "2020-01-01", "2020-01-01 00:00:00Z", "2020-13-01T00:00:00Z", "2021-02-29T00:00:00Z"),
        *("2020-01-01T24:00:00Z", "2020-01-01T00:00:00", "2020-01-01T00:00:00Z\n", "٢٠٢٠-01-01T00:00:00Z"),
        "0000-01-01T00:00:00Z",
    ],
)
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(InvalidDocument, match=r"\$\.created"):
        check_timestamp(text, path="$.created", what="doc")
