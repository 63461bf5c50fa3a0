"""Requests and responses without a socket: what handlers take and give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; `body` gives bounded chunks and may be read once."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterator[bytes] = field(default_factory=lambda: iter(()))


@dataclass(frozen=True, slots=True)
class File:
    """A part of a file as a response body: bytes `start` up to, not including, `end`."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Response:
    """One response; `headers` are sent in order."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | File = b""


class ApiError(Exception):
    """A request that ends in a spec-shaped error; `code` is one of distribution.errorcode.STATUS."""

    def __init__(
        self, code: str, message: str, *, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
    ):
        super().__init__(message)
        self.code = code
        self.status = status
        self.headers = headers
