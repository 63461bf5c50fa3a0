"""The marks of fuse-overlayfs in an upper directory.

Where it cannot make the kernel's marks it makes its own: whiteouts are files `.wh.NAME`, opaque
directories have a file `.wh..wh..opq` and an attribute, and what the user may not set as mode
and owner is in an attribute "uid:gid:mode".

Source: fuse-overlayfs(1), "xattr_permissions"; containers/storage, "overlay" driver.
"""

from __future__ import annotations

from typing import Final

from imagetool.errors import InvalidArchive
from imagetool.layer.entry import display
from imagetool.layer.whiteout import OPAQUE

#: Files that only mark their directory; the second is a whiteout of the first's name.
MARKERS: Final = frozenset({OPAQUE, b".wh..opq"})
_PREFIXES: Final = (b"user.fuseoverlayfs.", b"trusted.fuseoverlayfs.", b"security.fuseoverlayfs.")
_STATED: Final = (b"user.containers.override_stat", *(prefix + b"override_stat" for prefix in _PREFIXES))


def is_opaque(xattrs: dict[bytes, bytes]) -> bool:
    """Say whether a directory's attributes hide what is below it."""
    return any(xattrs.get(prefix + b"opaque") == b"y" for prefix in _PREFIXES)


def stated(xattrs: dict[bytes, bytes], seen: tuple[int, int, int], name: bytes) -> tuple[int, int, int]:
    """Return uid, gid and mode as the attributes state them, else as seen; take the marks out of `xattrs`.

    Raises InvalidArchive for a statement that is not three numbers.
    """
    for key in _STATED:
        value = xattrs.pop(key, None)
        if value is not None:
            uid, gid, mode = ([*value.split(b":"), b"", b"", b""])[:3]
            if not (uid.isdigit() and gid.isdigit() and mode and not mode.strip(b"01234567")):
                raise InvalidArchive(f"{display(name)}: the attribute {display(key)} is not an owner and a mode")
            seen = int(uid), int(gid), int(mode, 8) & 0o7777
    for key in [key for key in xattrs if key.startswith(_PREFIXES)]:
        del xattrs[key]
    return seen
