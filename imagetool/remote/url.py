"""Fetch a URL for ADD: no credentials, no compression, bounded redirects, never from https to http."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

from imagetool.distribution.auth import origin
from imagetool.distribution.headers import printable
from imagetool.errors import UsageError
from imagetool.remote.connect import Tls
from imagetool.remote.http import Http, Request


@contextmanager
def open_url(url: str) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Open an http(s) URL; yield the last part of its path, its Last-Modified in nanoseconds (0: none), its bytes.

    The bytes are as the server sent them and verified by nobody. Raises UsageError for another
    kind of URL, NotFound, AuthError, NetworkError.
    """
    try:
        _, host, _ = origin(url)
    except ValueError as error:
        raise UsageError(f"{printable(url, 200)!r}: {error}") from None
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    http = Http(host, Tls())
    try:
        with http.send(Request("GET", url, f"/{printable(name, 100)}")) as answer:
            if answer.status != 200:
                raise answer.error()
            modified = _modified(answer.header("Last-Modified"))
            yield ("" if name in (".", "..") else name), modified, answer.chunks()
    finally:
        http.close()


def _modified(text: str) -> int:
    try:
        return max(0, int(parsedate_to_datetime(text).timestamp())) * 10**9
    except (ValueError, OverflowError):
        return 0
