"""HTTP header values that registries and their clients exchange, read strictly and without I/O.

A reader returns None (or nothing) for a value outside its grammar: what an unreadable header
means is for the caller to say, since a client and a server answer differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from imagetool import limits
from imagetool.values import dataclass

_NUMBER: Final = r"(\d{1,19})"
_CONTENT_RANGE: Final = re.compile(rf"(?:bytes )?{_NUMBER}-{_NUMBER}(?:/(?:{_NUMBER}|\*))?\Z", re.ASCII)
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})\Z", re.ASCII)
_UPLOADED: Final = re.compile(rf"(?:bytes=)?0-{_NUMBER}\Z", re.ASCII)
# Possessive quantifiers (*+, ++) keep these linear on hostile values.
_LINK: Final = re.compile(
    r'<([^<>]*+)>((?:\s*+;\s*+[!#$%&\'*+.^_`|~\w-]++\s*+(?:=\s*+(?:"(?:[^"\\]|\\.)*+"|[^\s;,"]*+))?)*+)'
)
_REL: Final = re.compile(r';\s*+rel\s*+=\s*+(?:"([^"]*+)"|([^\s;,"]*+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Which bytes a body holds: `first` to `last`, both included; `total` is None when not said."""

    first: int
    last: int
    total: int | None = None

    def __str__(self) -> str:
        return f"bytes {self.first}-{self.last}/{'*' if self.total is None else self.total}"

    @classmethod
    def parse(cls, value: str) -> ContentRange | None:
        """Read `bytes 0-9/10` (RFC 9110) or the distribution spec's bare `0-9` of a chunk upload."""
        match = _CONTENT_RANGE.match(value.strip())
        if not match:
            return None
        first, last, total = int(match[1]), int(match[2]), int(match[3]) if match[3] else None
        return None if last < first or (total is not None and last >= total) else cls(first, last, total)


def parse_range(value: str, size: int) -> tuple[int, int] | None:
    """Return the half-open (start, end) that a `Range: bytes=…` asks of a body of `size` bytes.

    Only a single range is read. None means that the header is to be ignored; an empty range
    (start == end == size) means that it cannot be satisfied.

    Source: RFC 9110, section 14.1.2.
    """
    match = _RANGE.match(value.strip())
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    first = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < first:
        return None
    return (first, end) if first < size else (size, size)


def names_entity(value: str, entity: str) -> bool:
    """Say whether an `If-None-Match` names an entity tag (quoted), among others, as weak, or by `*`.

    Source: RFC 9110, section 13.1.2.
    """
    named = [part.strip().removeprefix("W/") for part in value[: limits.HEADER_BYTES].split(",")]
    return entity in named or named == ["*"]


def parse_uploaded(value: str) -> int | None:
    """Return how many bytes of an upload arrived, from the `Range: 0-N` of its status.

    Source: distribution-spec v1.1, "Pushing a blob in chunks".
    """
    match = _UPLOADED.match(value.strip())
    return int(match[1]) + 1 if match else None


def parse_next_link(values: Iterable[str]) -> str | None:
    """Return the target of the first `Link: <…>; rel="next"`, absolute or relative, as it was written.

    Source: RFC 8288; distribution-spec v1.1, "Listing tags".
    """
    for value in values:
        for target, parameters in _LINK.findall(value[: limits.HEADER_BYTES]):
            rel = _REL.search(parameters)
            if rel and "next" in (rel[1] or rel[2] or "").lower().split():
                return str(target)
    return None


def parse_retry_after(value: str, *, now: datetime) -> float | None:
    """Return the seconds to wait that `Retry-After` asks for, as a number or an HTTP date; never negative.

    Source: RFC 9110, section 10.2.3.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text[:64])
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def printable(text: str, limit: int = 300) -> str:
    """Return text of a stranger as one short line: control and direction-changing characters become spaces."""
    cleaned = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * limit]).split())
    return cleaned if len(cleaned) <= limit else f"{cleaned[: limit - 1]}…"
