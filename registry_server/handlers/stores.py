"""What handlers work on, and what several of them need."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from imagetool.errors import InvalidDocument
from imagetool.oci.digest import Digest
from imagetool.values import dataclass
from registry_server.message import ApiError, Request
from registry_server.metadata import MetaStore
from registry_server.storage import BlobStore

PAGE: Final = 1000  # entries of one answer, whatever the client asks for


@dataclass(frozen=True, slots=True)
class Stores:
    """The registry's two stores."""

    blobs: BlobStore
    metadata: MetaStore


def read_digest(text: str) -> Digest:
    """Read a digest of a request; raises ApiError."""
    try:
        return Digest.parse(text)
    except InvalidDocument as error:
        raise ApiError("DIGEST_INVALID", str(error)) from None


def page_size(request: Request) -> int:
    """Return how many entries the client wants, at most PAGE; raises ApiError."""
    text = request.parameter("n")
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise ApiError("PAGINATION_NUMBER_INVALID", "n is not a number")
    return min(int(text), PAGE)


def next_page(path: str, **parameters: object) -> tuple[tuple[str, str], ...]:
    """Return the header that leads to the next page."""
    return (("Link", f'<{path}?{urlencode(parameters)}>; rel="next"'),)
