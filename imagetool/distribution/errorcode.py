"""Error codes of the registry API and the JSON they travel in.

Source: distribution-spec v1.1, "Error Codes".
"""

from __future__ import annotations

import json
from typing import Final

#: Code -> HTTP status. PAGINATION_NUMBER_INVALID, RANGE_INVALID, TAG_INVALID and UNKNOWN are distribution's own.
STATUS: Final = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNKNOWN": 500,
    "UNSUPPORTED": 405,
}


def render(code: str, message: str) -> bytes:
    """Return the body of an error answer."""
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
