"""Whiteouts: how a layer says that something below it is gone.

Source: image-spec v1.1 layer.md, "Whiteouts".
"""

from __future__ import annotations

from typing import Final

from imagetool.errors import InvalidArchive
from imagetool.layer.entry import display

PREFIX: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"


def hidden(name: bytes, *, where: str) -> bytes | None:
    """Return the path a whiteout entry hides, or None for an ordinary entry.

    An opaque marker returns its directory with a trailing "/": everything below it is hidden.
    Raises InvalidArchive for a whiteout of nothing, of "." or of "..", and for what would be inside of one.
    """
    folder, slash, base = name.rpartition(b"/")
    if is_reserved(folder):
        raise InvalidArchive(f"{where}: entry {display(name)}: a whiteout holds nothing")
    if not base.startswith(PREFIX):
        return None
    if base == OPAQUE:
        return folder + b"/"
    target = base[len(PREFIX) :]
    if target in (b"", b".", b"..") or target.startswith(PREFIX):
        raise InvalidArchive(f"{where}: entry {display(name)}: not a whiteout that means anything")
    return folder + slash + target


def is_reserved(name: bytes) -> bool:
    """Say whether any part of a path begins with the whiteout prefix, which a layer cannot hold as a file."""
    return name.startswith(PREFIX) or b"/" + PREFIX in name
