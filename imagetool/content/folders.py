"""Folders in the making: locked by who makes them, swept once nobody holds them any more."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from imagetool.content.staging import storage_errors
from imagetool.safefs.root import remove_tree

STAGED: Final = "new-"
BOOT: Final = "boot"
_ALL_IDS: Final = ["0", "0", "4294967295"]


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Make a folder that is removed on exit, unless it was renamed."""
    folder = _unused(place)
    fd = -1
    try:  # from here on, because ^C may come between any two lines
        with storage_errors(f"cannot make a directory in {place}"):
            while True:
                folder.mkdir(mode=0o700)
                fd = _locked(folder)
                if fd >= 0:
                    break
                # A sweep came between the making and the lock. Under the same name another sweep,
                # which still has the first one open, would take the second for it.
                folder = _unused(place)
        yield folder
    finally:
        remove_folder(place, folder.name)
        if fd >= 0:
            os.close(fd)


def _unused(place: Path) -> Path:
    return place / f"{STAGED}{os.urandom(8).hex()}"


def _locked(folder: Path) -> int:
    """Lock a folder; return the open file that holds the lock, -1 when a sweep was first."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if folder.exists():
            return fd
        os.close(fd)
    return -1


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Yield a directory of its own in `place`, which is made when missing; it goes with everything in it.

    Those that processes which no longer exist left there go first. Raises StorageError.
    """
    with storage_errors(f"cannot make a directory in {place}"):
        place.mkdir(parents=True, exist_ok=True)
        sweep(place)
    with new_folder(place) as folder:
        yield folder


def remove_folder(place: Path, name: str) -> None:
    """Remove a folder and all that is in it; one that is not there is fine."""
    with storage_errors(f"cannot remove {place / name}"):
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)


def discard_folder(place: Path, name: str) -> None:
    """Remove a folder that looks complete, at no moment leaving half of it under its name."""
    gone = _unused(place)
    with storage_errors(f"cannot remove the snapshot {name}"):
        try:
            os.rename(place / name, gone)
        except FileNotFoundError:  # another process was first
            return
        _remove_unheld(gone)


def of_these_ids(place: Path) -> Path:
    """Return `place`, or in a user namespace one beside it for the ids that the namespace maps.

    Unpacked files have owners of the host: what was unpacked under other ids would show wrong
    owners here, or not be readable at all.
    """
    with storage_errors("cannot tell which user ids are mapped"):
        maps = [Path(f"/proc/self/{kind}_map").read_text().split() for kind in ("uid", "gid")]
    if maps == [_ALL_IDS, _ALL_IDS]:
        return place
    return place.with_name(f"{place.name}-{sha256(repr(maps).encode()).hexdigest()[:12]}")


def boot_id() -> str:
    """Return what names the machine's last start; "" where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def read_boot(place: Path) -> str | None:
    """Return the start of the machine that a place was last used in; None for one that is new."""
    try:
        return (place / BOOT).read_text()
    except FileNotFoundError:
        return None


def sweep(place: Path) -> None:
    """Remove what processes that no longer exist left behind."""
    for name in os.listdir(place):
        if name.startswith(STAGED):
            _remove_unheld(place / name)


def _remove_unheld(folder: Path) -> None:
    """Remove a folder, or a file left in its stead, unless somebody holds it: its maker, or who removes it just now."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_folder(folder.parent, folder.name)
    except BlockingIOError:
        return
    finally:
        os.close(fd)
