"""Fetch a URL for ADD: no credentials, no compression, bounded redirects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import requests

from imagetool.errors import NetworkError, NotFound
from imagetool.limits import CHUNK


@contextmanager
def open_url(url: str) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Open an http(s) URL; yield the last part of its path, its Last-Modified in nanoseconds (0: none), its bytes."""
    with requests.Session() as session:
        session.trust_env = False
        session.max_redirects = 5
        try:
            answer = session.get(url, stream=True, timeout=(10, 60), headers={"Accept-Encoding": "identity"})
        except requests.RequestException as error:
            raise NetworkError(f"cannot fetch {url[:200]}: {type(error).__name__}") from error
        with answer:
            if answer.status_code == 404:
                raise NotFound(f"{url[:200]} does not exist (404)")
            if answer.status_code != 200:
                raise NetworkError(f"cannot fetch {url[:200]}: status {answer.status_code}")
            name = unquote(urlsplit(url).path).rpartition("/")[2]
            yield (
                "" if name in (".", "..") else name,
                _modified(answer.headers.get("Last-Modified", "")),
                _chunks(answer, url),
            )


def _chunks(answer: requests.Response, url: str) -> Iterator[bytes]:
    try:
        yield from answer.raw.stream(CHUNK, decode_content=False)
    except (requests.RequestException, OSError) as error:
        raise NetworkError(f"cannot fetch {url[:200]}: {type(error).__name__}") from error


def _modified(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp()) * 10**9
    except ValueError:
        return 0
