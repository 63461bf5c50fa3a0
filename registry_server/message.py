"""Requests and responses without a socket: what handlers take and give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from imagetool.values import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its path and query already decoded, once.

    Header names are lower case; `query` keeps the order and repetitions; `body` gives bounded
    chunks and may be read once. It raises `Disconnected` when the client leaves or is too slow.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[bytes] = ()

    def parameters(self, name: str) -> Iterator[str]:
        """Yield every value of a query parameter."""
        return (value for key, value in self.query if key == name)

    def parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter, None when it is not there."""
        return next(self.parameters(name), None)

    @property
    def length(self) -> int | None:
        """The Content-Length, None when it is not said."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


@dataclass(frozen=True, slots=True)
class File:
    """A part of a file as a response body: bytes `start` up to, not including, `end`."""

    path: Path
    start: int
    end: int


#: What a response may carry; a blob store that is not on this machine adds a redirect here.
Body = bytes | File


@dataclass(frozen=True, slots=True)
class Response:
    """One response; `headers` are sent in order."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: Body = b""


class ApiError(Exception):
    """A request that ends in a spec-shaped error; `code` is one of distribution.errorcode.STATUS."""

    def __init__(
        self, code: str, message: str, *, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
    ):
        super().__init__(message)
        self.code = code
        self.status = status
        self.headers = headers


class Disconnected(Exception):
    """The client left in the middle of its body, or sent it too slowly; what arrived is all there will be."""
