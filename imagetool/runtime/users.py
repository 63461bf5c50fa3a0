"""Who a process runs as, resolved in an image's own user database; pure.

Source: Dockerfile reference, "USER"; image-spec v1.1 config.md, "User".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imagetool.errors import BuildError

_MAX_ID = 0xFFFFFFFE


@dataclass(frozen=True, slots=True)
class User:
    """Numeric identity of a process."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()


def resolve_user(text: str, passwd: bytes, group: bytes) -> tuple[User, str]:
    """Return the user that `user[:group]` names, and its home directory.

    A name must be in `passwd`. A bare number found there has that entry's group and
    supplementary groups; one that is not there has group 0 and home "/".
    Raises BuildError for an unknown name.
    """
    name, colon, group_name = text.partition(":")
    entry = next((row for row in _rows(passwd, 7) if name in (row[0], row[2])), None)
    if entry is None and not name.isdigit():
        raise BuildError(f"USER {text[:80]!r}: no user {name[:40]!r} in /etc/passwd of the image")
    uid = _number(entry[2] if entry else name, text)
    home = entry[5] if entry and entry[5].startswith("/") else "/"
    if colon:
        return User(uid, _group(group_name, group, text)), home
    if entry is None:
        return User(uid, 0), home
    gid = _number(entry[3], text)
    extra = [_number(row[2], text) for row in _rows(group, 4) if entry[0] in row[3].split(",")]
    return User(uid, gid, tuple(dict.fromkeys(number for number in extra if number != gid))), home


def _group(name: str, group: bytes, text: str) -> int:
    for row in _rows(group, 4):
        if name == row[0]:
            return _number(row[2], text)
    if name.isdigit():
        return _number(name, text)
    raise BuildError(f"USER {text[:80]!r}: no group {name[:40]!r} in /etc/group of the image")


def _rows(database: bytes, fields: int) -> Iterator[list[str]]:
    for line in database.decode("utf-8", "replace").split("\n"):
        row = line.split(":")
        if len(row) >= min(fields, 6) and row[2].isdigit() and "\r" not in line and "\0" not in line:
            yield row


def _number(text: str, whole: str) -> int:
    if not text.isdigit() or len(text) > 10 or int(text) > _MAX_ID:
        raise BuildError(f"USER {whole[:80]!r}: {text[:20]!r} is not a user or group number")
    return int(text)
