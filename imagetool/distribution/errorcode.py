"""Error codes of the registry API and the JSON they travel in.

Source: distribution-spec v1.1, "Error Codes".
"""

from __future__ import annotations

import json
from typing import Final

#: Code -> HTTP status.
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
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED": 405,
}


def render(code: str, message: str) -> bytes:
    """Return the body of an error answer."""
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()


def summarise(body: bytes) -> str:
    """Return the errors of an answer as one printable line; "" when the body is not of that form. Never raises."""
    try:
        errors = json.loads(body)["errors"]
        lines = [f"{error.get('code', '')}: {error.get('message', '')}".strip(": ") for error in errors[:5]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    text = "; ".join(lines)[:400]
    return "".join(char if char.isprintable() else " " for char in text)
