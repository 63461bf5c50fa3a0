"""What an entry says of its file beside the content: owner, mode, attributes, time.

What this user or file system may not set is an error, or left out, or recorded for later, as
`Ownership` says.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from imagetool.errors import StorageError
from imagetool.layer import acl
from imagetool.layer.entry import Entry, display, is_private
from imagetool.layer.rootless import OWNER, render_owner
from imagetool.safefs.root import Root
from imagetool.values import dataclass

Warn = Callable[[str], None]
_ACL: Final = b"system.posix_acl_"
_INHERITED: Final = _ACL.decode()
_WRITABLE: Final = 0o200  # what even the owner of a file needs to give it attributes
_REFUSED: Final = (errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Ownership:
    """What may be set on unpacked files.

    owners: whether entries get the owner they state; without it everything stays the caller's.
    lenient: whether what the kernel refuses (an owner outside the user namespace, a device, an
        attribute) is left out with one warning for each kind instead of an error.
    recorded: whether the owner goes into an attribute (`layer.rootless`) instead; set-id bits
        are kept, so nobody else may reach what is unpacked.
    root: who owns directories that no entry describes.
    """

    owners: bool = True
    lenient: bool = False
    recorded: bool = False
    root: tuple[int, int] = (0, 0)


class Dressing:
    """Sets owner, mode, attributes and times of what a layer's entries made.

    Args:
        root: the root filesystem that is being unpacked into.
        attributed: gets the inodes of files and directories that are given extended attributes.
        where: the layer's name for errors and warnings.
    """

    def __init__(self, root: Root, ownership: Ownership, attributed: set[int] | None, warn: Warn, where: str) -> None:
        self._root = root
        self._ownership = ownership
        self._warn = warn
        self._where = where
        self._attributed = attributed
        self._warned: set[str] = set()
        self._kin: dict[bytes, bytes] = {}  # of directories that were made: the one around them that was not
        self._near: bytes | None = None  # that of the last files
        #: Mode, uid and gid of entries without attributes: a new file made with these permissions has all but its time.
        self.proven: set[tuple[int, int, int]] = set()

    def enter(self, folder: bytes) -> None:
        """Say in which directory the next files are.

        What a directory passes on to new files, it passes on to new directories and through them to files: its group,
        its default access control list. So what was proven holds in all that were made below the same one.
        """
        kin = self._kin.get(folder, folder)
        if kin != self._near:
            self._near = kin
            self.proven.clear()

    def made_folder(self, name: bytes) -> None:
        """Say that a directory is new, and gets its own mode and owner only when nothing more is put into it."""
        above = name.rpartition(b"/")[0]
        self._kin[name] = self._kin.get(above, above)

    def forget(self) -> None:
        """Say that names may now mean other directories, or directories pass on something else."""
        self._kin.clear()
        self._near = None
        self.proven.clear()

    def dress_new(self, fd: int, entry: Entry) -> None:
        """Dress a file that was made just now with the permissions that its entry states.

        Nearly always the kernel gave it all the rest but the time, as its status shows; the next
        one of this kind then gets the same, until another directory is entered.
        """
        status = os.fstat(fd)
        if self._ownership.owners:
            is_owned = status.st_uid == entry.uid and status.st_gid == entry.gid
        else:
            is_owned = not self._ownership.recorded or not (entry.uid or entry.gid)
        has_inherited = _disinherit(fd)
        if is_owned and not has_inherited and status.st_mode & 0o7777 == entry.mode:
            self.proven.add((entry.mode, entry.uid, entry.gid))
        self.dress(fd, entry)

    def dress_folder(self, fd: int, entry: Entry) -> None:
        """Dress a directory that nothing will be put into any more."""
        _disinherit(fd)
        self.dress(fd, entry)

    def dress(self, fd: int, entry: Entry) -> None:
        """Set owner, mode, attributes and time of an open file, in the order that keeps setuid and capabilities."""
        if self._ownership.owners:
            try:
                os.fchown(fd, entry.uid, entry.gid)
            except OSError as error:
                self._check_refused(error, f"owner {entry.uid}:{entry.gid}", "an owner", entry)
        elif self._ownership.recorded and (entry.uid or entry.gid):
            self._record(fd, entry)
        mode = self._mode(fd, entry) if entry.mode & 0o6000 else entry.mode
        if entry.xattrs:
            self._note(fd)
            os.fchmod(fd, mode | _WRITABLE)
            self.set_xattrs(entry, partial(os.setxattr, fd))
        os.fchmod(fd, mode)  # after an access control list, which would say what the mode is
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _record(self, fd: int, entry: Entry) -> None:
        self._note(fd)
        os.fchmod(fd, 0o700)
        try:
            os.setxattr(fd, OWNER, render_owner(entry.uid, entry.gid))
        except OSError as error:
            self._check_refused(error, f"attribute {OWNER.decode()}", "an extended attribute", entry)

    def _note(self, fd: int) -> None:
        if self._attributed is not None:
            self._attributed.add(os.fstat(fd).st_ino)

    def set_xattrs(self, entry: Entry, put: Callable[[bytes, bytes], None]) -> None:
        """Give `put` every attribute that may be set here; what is left out, or refused, is noted."""
        for attribute, value in entry.xattrs.items():
            if self._ownership.recorded and attribute == OWNER:
                continue  # ours to say
            if is_private(attribute):
                self._leave_out(f"{display(attribute)} belongs to a host", "an attribute of a host", entry)
                continue
            if attribute in acl.ATTRIBUTE_OF:
                self._leave_out("its access control list has users by name alone", "what a list says of them", entry)
                continue
            if attribute.startswith(_ACL) and not self._ownership.owners and not self._ownership.recorded:
                value = self._without_users(value, entry)
            try:
                put(attribute, value)
            except OSError as error:
                self._check_refused(error, f"attribute {display(attribute)}", "an extended attribute", entry)

    def _without_users(self, value: bytes, entry: Entry) -> bytes:
        """Return a list without those who would be others on this host, where owners are not what entries state."""
        kept = acl.without_users(value)
        if kept != value:
            self._leave_out("its access control list has users of the image", "what a list says of them", entry)
        return kept

    def _mode(self, fd: int, entry: Entry) -> int:
        """Return the mode; without setuid and setgid when the file could not be given its owner."""
        status = os.fstat(fd)
        if self._ownership.recorded or entry.kind == "dir" or (status.st_uid, status.st_gid) == (entry.uid, entry.gid):
            return entry.mode
        self._leave_out("it is set-id for an owner it does not have", "a set-id bit", entry)
        return entry.mode & ~0o6000

    def own(self, entry: Entry) -> None:
        """Set the owner of what an entry made, where owners are set at all; what is refused is noted."""
        if not self._ownership.owners:
            if self._ownership.recorded and (entry.uid or entry.gid):
                self._leave_out("its owner cannot be recorded", f"the owner of a {entry.kind}", entry)
            return
        try:
            self._root.set_owner(entry.name, entry.uid, entry.gid)
        except OSError as error:
            self._check_refused(error, f"owner {entry.uid}:{entry.gid}", "an owner", entry)

    def _check_refused(self, error: OSError, what: str, kind: str, entry: Entry) -> None:
        if error.errno not in _REFUSED:
            raise error
        self.refused(kind, entry, detail=what)

    def refused(self, kind: str, entry: Entry, *, detail: str = "") -> None:
        """Note something the kernel does not let us set; an error unless it may be left out."""
        text = f"this user or file system may not set {detail or kind}"
        if not self._ownership.lenient:
            raise StorageError(
                f"{self._where}: {display(entry.name)}: {text}; run as root or with a range of subordinate ids"
            )
        self._leave_out(text, kind, entry)

    def _leave_out(self, why: str, kind: str, entry: Entry) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            text = f"{self._where}: {display(entry.name)}: {why}"
            self._warn(f"{text}; {kind} is left out, here and wherever else it occurs")


def _disinherit(fd: int) -> bool:
    """Take from a new file the access control lists that its directory gave it; say whether there were any."""
    try:
        inherited = [name for name in os.listxattr(fd) if name.startswith(_INHERITED)]
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # a file system without extended attributes
            return False
        raise
    for name in inherited:
        os.removexattr(fd, name)
    return bool(inherited)
