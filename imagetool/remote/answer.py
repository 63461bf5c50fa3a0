"""A registry's answer: its headers, its body in bounded pieces, and the error it means."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final

import requests

from imagetool import limits
from imagetool.distribution.headers import printable
from imagetool.errors import (
    AuthError,
    ImagetoolError,
    InvalidDocument,
    LimitExceeded,
    NetworkError,
    NotFound,
    VerificationError,
)
from imagetool.oci import document
from imagetool.remote.faults import translated

_DOCUMENT_SECONDS: Final = 120.0  # for the whole body of a small answer
_PIECE: Final = 64 * limits.KIB
_ERRORS_SHOWN: Final = 3
_OTHER_FIELDS: Final = ("message", "details", "error_description", "error")  # of token servers and proxies


class Answer:
    """Status, headers and body of one response; leaving its context gives the connection back.

    `url` is where it came from after redirects; `where` names the request for errors.
    """

    def __init__(
        self,
        response: requests.Response,
        *,
        where: str,
        url: str,
    ) -> None:
        self._raw: Any = response.raw
        self.status = response.status_code
        self.where = where
        self.url = url

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def header(self, name: str) -> str:
        """Return a header's first value, "" when it is not there."""
        return next(iter(self.header_values(name)), "")

    def header_values(self, name: str) -> tuple[str, ...]:
        """Return every value of a header that may stand several times."""
        return tuple(self._raw.headers.getlist(name, ()))

    @property
    def length(self) -> int | None:
        """The Content-Length, None when it is absent or not a number."""
        text = self.header("Content-Length").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.header("Content-Type").partition(";")[0].strip().lower()

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it was sent (Content-Encoding is not undone); raises ConnectionBroken at an early end."""
        stream = self._raw.stream(limits.CHUNK, decode_content=False)
        while True:
            with translated(self.where):
                chunk: bytes = next(stream, b"")
            if not chunk:
                return
            yield chunk

    def read(self) -> bytes:
        """Return the whole body, a document; raises LimitExceeded for one that is too large."""
        body = b"".join(self._pieces(limits.DOCUMENT_BYTES + 1))
        if len(body) > limits.DOCUMENT_BYTES:
            raise LimitExceeded(f"{self.where}: the answer is longer than {limits.named('DOCUMENT_BYTES')}")
        return body

    def _pieces(self, limit: int) -> Iterator[bytes]:
        """Yield the body until `limit` bytes were seen; a server that drips them runs out of time."""
        deadline = time.monotonic() + _DOCUMENT_SECONDS
        while limit > 0:
            with translated(self.where):
                piece: bytes = self._raw.read1(min(limit, _PIECE), decode_content=False)
            if not piece:
                return
            limit -= len(piece)
            yield piece
            if time.monotonic() > deadline:
                raise NetworkError(f"{self.where}: the answer took longer than {_DOCUMENT_SECONDS:.0f} s")

    def close(self) -> None:
        """Give the connection back for reuse when the body is at its end, else close it."""
        rest = self.length
        if rest is not None and rest <= limits.ERROR_BODY_BYTES and not self._raw.closed:
            try:
                self._drain(rest)
            except NetworkError:
                self._raw.close()  # nobody waits for this body any more; only the connection is lost
                return
        self._raw.close()
        self._raw.release_conn()

    def _drain(self, rest: int) -> None:
        for _ in self._pieces(rest + 1):
            pass

    def error(self, advice: str = "") -> ImagetoolError:
        """Return the error this answer means, with what the registry said, in one line; closes the answer."""
        codes, said = self._explanation()
        self.close()
        try:
            status = f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            status = str(self.status)
        message = ": ".join(filter(None, (self.where, status, said)))
        message += f"; {advice}" if advice else ""
        if self.status == 429 and (asked := self.header("Retry-After")):
            message += f"; it asks to wait until {printable(asked, 40)!r}"
        if self.status in (401, 403) or codes & {"UNAUTHORIZED", "DENIED"}:
            return AuthError(message)
        if self.status == 404:
            return NotFound(message)
        if codes & {"DIGEST_INVALID", "SIZE_INVALID"}:
            return VerificationError(message)
        return NetworkError(message)

    def _explanation(self) -> tuple[frozenset[str], str]:
        """Return the error codes of the body and its messages, cut and free of control characters."""
        try:
            body = b"".join(self._pieces(limits.ERROR_BODY_BYTES))
        except NetworkError:
            return frozenset(), ""  # the status is known, and is what matters
        try:
            tree = document.decode(body, what="error")
        except (InvalidDocument, LimitExceeded):
            plain = self.content_type == "text/plain"
            return frozenset(), printable(body[:1200].decode("utf-8", "replace"), 200) if plain else ""
        errors = tree.get("errors")
        if not isinstance(errors, list) or not errors:
            return frozenset(), next(filter(None, (_text(tree.get(key)) for key in _OTHER_FIELDS)), "")
        parts = [(item.get("code"), item.get("message")) for item in errors if isinstance(item, dict)]
        codes = frozenset(code for code, _ in parts if isinstance(code, str))
        lines = [": ".join(_text(text) for text in pair if _text(text)) for pair in parts[:_ERRORS_SHOWN]]
        return codes, "; ".join(filter(None, lines))


def _text(value: object) -> str:
    return printable(value, 150) if isinstance(value, str) else ""
