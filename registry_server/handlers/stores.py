"""What handlers work on."""

from __future__ import annotations

from dataclasses import dataclass

from imagetool.errors import InvalidDocument
from imagetool.oci.digest import Digest
from registry_server.message import ApiError
from registry_server.metadata import MetaStore
from registry_server.storage import BlobStore


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
