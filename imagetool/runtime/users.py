"""Who a process runs as, resolved in an image's own user database; pure.

Source: image-spec v1.1 config.md, "User"; passwd(5), group(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from imagetool.errors import BuildError
from imagetool.values import dataclass

_MAX_ID: Final = 0xFFFFFFFE
_SHOWN: Final = 80  # characters of untrusted text in an error


@dataclass(frozen=True, slots=True)
class User:
    """Numeric identity of a process."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()


def resolve_user(text: str, passwd: bytes, group: bytes) -> tuple[User, str]:
    """Return the user that `user[:group]` names, and its home directory.

    Args:
        text: names or numbers; "" is root. A number is looked up too, for its groups and home.
        passwd, group: /etc/passwd and /etc/group of the image, b"" for none; untrusted.

    A user without `:group` has the group and the supplementary groups of its entry; with
    `:group` that one only. A number without an entry has group 0 and home "/" (root's is "/root").
    Raises BuildError for a name that is in neither file.
    """
    name, colon, group_name = text.partition(":")
    name = name or "0"
    entry = next((row for row in _rows(passwd, 7) if name == row[0]), None)
    if entry is None and _is_number(name):
        entry = next((row for row in _rows(passwd, 7) if int(name) == int(row[2])), None)
    if entry is None and not _is_number(name):
        raise BuildError(f"user {name[:_SHOWN]!r} is not in /etc/passwd of the image", about=name)
    uid = int(entry[2] if entry else name)
    home = "/root" if uid == 0 else "/"
    if entry and entry[5].startswith("/") and entry[5].isprintable():
        home = entry[5]
    if colon and group_name:
        return User(uid, _group(group_name, group)), home
    if not text or entry is None:
        return User(uid, 0), home
    gid = int(entry[3])
    extra = [int(row[2]) for row in _rows(group, 4) if entry[0] in row[3].split(",")]
    return User(uid, gid, tuple(dict.fromkeys(number for number in extra if number != gid))), home


def _group(name: str, group: bytes) -> int:
    for row in _rows(group, 4):
        if name == row[0]:
            return int(row[2])
    if _is_number(name):
        return int(name)
    raise BuildError(f"group {name[:_SHOWN]!r} is not in /etc/group of the image", about=name)


def _rows(database: bytes, fields: int) -> Iterator[list[str]]:
    """Yield the well-formed rows; passwd has seven fields, of which the third and fourth are numbers."""
    for line in database.decode("utf-8", "replace").split("\n"):
        row = line.split(":")
        numbers = row[2:4] if fields == 7 else row[2:3]
        if len(row) == fields and all(map(_is_number, numbers)) and "\0" not in line:
            yield row


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID
