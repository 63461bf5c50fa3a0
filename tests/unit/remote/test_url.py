"""Fetching what ADD names by URL."""

from __future__ import annotations

import pytest

from imagetool.errors import NetworkError, NotFound, UsageError
from imagetool.remote.url import open_url
from tests.support.wire import WireRegistry


def read(url: str) -> tuple[str, int, bytes]:
    with open_url(url) as (name, modified, chunks):
        return name, modified, b"".join(chunks)


def test_name_time_and_bytes(wire: WireRegistry) -> None:
    headers = {"Last-Modified": "Thu, 01 Jan 1970 00:00:07 GMT", "Content-Encoding": "gzip"}
    wire.on("GET", "/dir/", lambda e: e.answer(200, b"not gzip", headers))
    assert read(f"{wire.url}/dir/a%20b.tar?x=1") == ("a b.tar", 7 * 10**9, b"not gzip")
    assert "authorization" not in wire.seen[0].headers


@pytest.mark.parametrize("path", ["", "/", "/a/..", "/a/.", "/%2e%2e"])
def test_a_path_without_a_name_has_none(wire: WireRegistry, path: str) -> None:
    wire.on("GET", "", lambda e: e.answer(200, b"x"))
    assert read(wire.url + path)[0] == ""


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 01 Jan 1960 00:00:00 GMT"])
def test_an_unusable_time_is_none(wire: WireRegistry, date: str) -> None:
    wire.on("GET", "/f", lambda e: e.answer(200, b"x", {"Last-Modified": date}))
    assert read(f"{wire.url}/f")[1] == 0


def test_a_redirect_is_followed_and_keeps_the_name_that_was_asked_for(wire: WireRegistry) -> None:
    wire.on("GET", "/f", lambda e: e.answer(302, b"", {"Location": "/elsewhere"}))
    wire.on("GET", "/elsewhere", lambda e: e.answer(200, b"x"))
    assert read(f"{wire.url}/f") == ("f", 0, b"x")


def test_failures_are_our_errors(wire: WireRegistry) -> None:
    with pytest.raises(NotFound, match="404"):
        read(f"{wire.url}/f")
    wire.on("GET", "/f", lambda e: e.answer(302, b"", {"Location": "file:///etc/passwd"}))
    with pytest.raises(NetworkError, match="no http URL"):
        read(f"{wire.url}/f")
    wire.on("GET", "/f", lambda e: e.cut(b"x" * 100, 10))
    with pytest.raises(NetworkError):
        read(f"{wire.url}/f")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "https://me:pw@h/x", "http://[", "x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        read(url)
