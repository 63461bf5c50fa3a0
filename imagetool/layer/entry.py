"""One entry of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from imagetool.errors import InvalidArchive

Kind = Literal["file", "dir", "symlink", "link", "char", "block", "fifo"]
_NO_XATTRS: Mapping[bytes, bytes] = {}
#: Attributes that describe the host or its file system, not the file.
_HOST_XATTRS: Final = frozenset({b"security.selinux", b"security.ima", b"security.evm", b"system.nfs4_acl"})
OVERLAY_XATTRS: Final = (b"trusted.overlay.", b"user.overlay.")


class Entry(NamedTuple):
    """What a layer says of one path. A tuple, because layers have a million of them.

    name: relative path without a leading "./" or "/" and without a trailing "/"; the root is b".".
    mode: permission bits with setuid, setgid and sticky, no file type.
    size: bytes of content that follow; 0 for all but files.
    mtime: nanoseconds since the epoch.
    linkname: target of a symlink, verbatim; of a hard link, a name in the same form as `name`.
    xattrs: full attribute name (`security.capability`) to value.
    """

    name: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: Mapping[bytes, bytes] = _NO_XATTRS


Item = tuple[Entry, Iterable[bytes]]
"""An entry and its content; the content of anything but a file is empty."""


def normal_name(raw: bytes, *, where: str) -> bytes:
    """Return an archive's path in the form of `Entry.name`.

    An absolute path means the same below the root, as every tool that applies layers takes it.
    Raises InvalidArchive for an empty name, a NUL, or a ".." component: no layer that a tool
    makes on purpose has them.
    """
    if b"//" not in raw and b"./" not in raw and raw and raw[0] != 0x2F and raw[-1] not in b"/." and b"\0" not in raw:
        return raw
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if not raw or b"\0" in raw or b".." in parts:
        raise InvalidArchive(f"{where}: entry {raw[:120]!r}: the name is empty or holds a NUL or '..'")
    return b"/".join(parts) or b"."


def parents(name: bytes) -> list[bytes]:
    """Return the directories above a path, outermost first, without the root."""
    parts = name.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(1, len(parts))]


def display(name: bytes) -> str:
    """Return a path for messages: printable, nothing a terminal would act on."""
    return name[:200].decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


def is_private(attribute: bytes) -> bool:
    """Say whether an extended attribute is the host's or its overlay's own, which no layer may hold."""
    return attribute in _HOST_XATTRS or attribute.startswith(OVERLAY_XATTRS)
