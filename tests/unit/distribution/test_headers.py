"""Header values, as registries write them and as nobody should."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.distribution.headers import (
    ContentRange,
    parse_next_link,
    parse_range,
    parse_retry_after,
    parse_uploaded,
    printable,
)

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-9/10", ContentRange(0, 9, 10)),
        ("bytes 5-9/*", ContentRange(5, 9)),
        ("0-1023", ContentRange(0, 1023)),
        ("bytes 9-5/10", None),
        ("bytes 0-10/10", None),
        ("bytes */10", None),
        ("bytes 0-٣/10", None),
        ("", None),
    ],
)
def test_content_range(value: str, expected: ContentRange | None) -> None:
    assert ContentRange.parse(value) == expected


def test_a_content_range_reads_back_what_it_writes() -> None:
    for written in (ContentRange(0, 0, 1), ContentRange(7, 8)):
        assert ContentRange.parse(str(written)) == written


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-3", (0, 4)),
        ("bytes=4-", (4, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=10-", (10, 10)),
        ("bytes=-0", (10, 10)),
        ("bytes=3-2", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_range_against_ten_bytes(value: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(value, 10) == expected


@given(st.text(max_size=60), st.integers(0, 1000))
def test_a_range_never_leaves_the_body(value: str, size: int) -> None:
    for text in (value, f"bytes={value}"):
        asked = parse_range(text, size)
        assert asked is None or 0 <= asked[0] <= asked[1] <= size


@pytest.mark.parametrize(
    ("value", "expected"), [("0-9", 10), ("bytes=0-9", 10), ("0-0", 1), ("1-9", None), ("x", None)]
)
def test_uploaded_bytes(value: str, expected: int | None) -> None:
    assert parse_uploaded(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (['</v2/a/tags/list?n=2&last=b>; rel="next"'], "/v2/a/tags/list?n=2&last=b"),
        (["<https://r/v2/x,y>; rel=next"], "https://r/v2/x,y"),
        (['<a>; rel="prev", <b>; title="x, y"; rel="next"'], "b"),
        (['<a>; rel="prev"', '<b>; rel="last next"'], "b"),
        (["<a>; REL=Next"], "a"),
        (["<a>"], None),
        (['<a>; rel="prev"'], None),
        ([], None),
    ],
)
def test_next_link(values: list[str], expected: str | None) -> None:
    assert parse_next_link(values) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("Fri, 02 Jan 2026 12:00:30 GMT", 30.0),
        ("Fri, 02 Jan 2026 11:00:00 GMT", 0.0),
        ("Fri, 02 Jan 2026 12:00:30 -0000", 30.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("9" * 400, 999999999.0),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOON) == seconds


@given(st.text())
def test_printable_text_is_one_line_without_controls(text: str) -> None:
    shown = printable(text, 40)
    assert shown.isprintable()
    assert len(shown) <= 40


def test_printable_drops_escapes_and_bidi_overrides() -> None:
    assert printable("a\r\nSet-Cookie: x\x1b[31m\u202ered\x00") == "a Set-Cookie: x [31m red"


@pytest.mark.parametrize("hostile", ["<x>;a" + " " * 32000, "<" * 32000, "<x>" + ";a" * 16000 + '"', "<x>;a=" * 5000])
def test_hostile_link_headers_are_read_in_linear_time(hostile: str) -> None:
    start = time.process_time()
    parse_next_link([hostile])
    assert time.process_time() - start < 0.5
