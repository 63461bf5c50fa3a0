"""What all bundles are made of: a staged directory, the root filesystem, volumes, files of text."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imagetool import limits
from imagetool.content.staging import storage_errors, sync_folder
from imagetool.errors import BuildError, StorageError, Unsupported, UsageError
from imagetool.image.image import Image, opener
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, unpack
from imagetool.runtime.imageprocess import ImageProcess, Wishes, process_of, volumes_of
from imagetool.runtime.mountpoints import canonical
from imagetool.safefs.openat2 import open_beneath, open_in_root
from imagetool.safefs.root import Root, remove_tree
from imagetool.values import dataclass, field

#: Directories that systems mount over, whatever the image has there.
SYSTEM_FOLDERS: Final = ("/proc", "/sys", "/dev")
_LABEL: Final = 63  # characters of a host name's label


@dataclass(frozen=True, slots=True)
class BundleSource:
    """What a bundle is made from.

    name: the image's familiar name or digest; only names of containers are taken from it.
    place: the absolute directory where the bundle will stand, for files that must say it.
    epoch: the time, in seconds, of files that are made here.
    rootless: the bundle belongs to, and is for, an ordinary user: everything is owned by the caller.
    """

    image: Image
    name: str
    place: Path
    epoch: int
    wishes: Wishes = field(default_factory=Wishes)
    rootless: bool = False
    warn: Callable[[str], None] = lambda _: None

    @property
    def label(self) -> str:
        """A name for the container that every system takes: letters, digits and inner dashes."""
        last = self.name.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
        text = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:_LABEL].strip("-")
        return text if text[:1].isalpha() else f"c-{text}".strip("-")

    def process(self, rootfs: Path) -> ImageProcess:
        """Return the image's process, its user looked up in the unpacked root filesystem."""
        files = [_database(rootfs, name) for name in ("etc/passwd", "etc/group")]
        return process_of(self.image.config, passwd=files[0], group=files[1], wishes=self.wishes)


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `place` when all went well, and goes away when not.

    Raises UsageError when `place` is there already, unless it is an empty directory.
    """
    if place.is_symlink() or (place.exists() and not (place.is_dir() and not any(place.iterdir()))):
        raise UsageError(f"{place} is there already; remove it or name another directory")
    folder = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    with storage_errors(f"cannot make {place}"):
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o755)
    try:
        yield folder
        with storage_errors(f"cannot make {place}"):
            os.rename(folder, place)  # takes the place of an empty directory
            sync_folder(place.parent)
    except BaseException:
        above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(above, os.fsencode(folder.name))
        finally:
            os.close(above)
        raise


def require_os(source: BundleSource, *systems: str, target: str) -> None:
    """Refuse an image made for another operating system; an image that does not say is Linux."""
    found = source.image.config.platform.os or "linux"
    if found not in systems:
        raise Unsupported(
            f"{source.name} is an image for {found}; {target} runs images for {' or '.join(systems)} (FROM --platform)"
        )


def write_rootfs(source: BundleSource, folder: Path) -> None:
    """Unpack the image into a new directory, layer by layer, every digest verified.

    Raises what `unpack` raises; StorageError when an owner or device may not be set.
    """
    with storage_errors(f"cannot make {folder}"):
        folder.mkdir()
        os.chmod(folder, 0o755)
    for layer in source.image.layers:
        where = f"layer {layer.descriptor.digest}"
        with opener(source.image.content, layer)() as tar:
            unpack(read(tar, where=where), folder, where=where, ownership=ownership(source), warn=source.warn)


def ownership(source: BundleSource) -> Ownership:
    """Return whose the files of a bundle are."""
    return Ownership(owners=not source.rootless, lenient=source.rootless)


def require_plain(rootfs: Path, paths: tuple[str, ...]) -> None:
    """Refuse a root filesystem in which a mount point is not a real directory, make those that are missing.

    Runtimes mount and create files there by path; runc 1.1 and crun 1.8 follow a link of the image
    to the host (CVE-2021-30465 and its successors). Raises BuildError.
    """
    with Root(rootfs) as root:
        for path in paths:
            try:
                plain = root.is_plain(os.fsencode(path.strip("/")))
            except OSError as error:
                raise StorageError(f"cannot look at {path} of the image: {error.strerror}") from error
            if plain is False:
                raise BuildError(
                    f"{path} of the image is, or leads through, something else than a directory: a symbolic link "
                    "there would let a runtime write outside the root filesystem"
                )
            if plain is None:
                root.make_folder(os.fsencode(path.strip("/")))
                fd = root.open(os.fsencode(path.strip("/")))
                os.fchmod(fd, 0o755)
                os.close(fd)


def write_volumes(source: BundleSource, rootfs: Path, folder: Path) -> list[tuple[str, str]]:
    """Make a directory in `folder` for each volume of the image, with what the image has there.

    Returns (name of the directory, canonical mount point) pairs, a parent before what is in it.
    """
    found = []
    fd = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, path in enumerate(volumes_of(source.image.config)):
            place = canonical(fd, path)
            if not place:
                raise BuildError(f"the volume {path} of the image leads to its root")
            name = f"{number}-{re.sub('[^A-Za-z0-9]+', '-', place).strip('-')[:40]}"
            with storage_errors(f"cannot make the volume {path}"):
                (folder / name).mkdir(parents=True)
                os.chmod(folder / name, 0o755)
            _seed(source, fd, rootfs / place, place, folder / name)
            found.append((name, "/" + place))
    except OSError as error:
        raise BuildError(f"a volume of the image cannot be there: {error.strerror}") from None
    finally:
        os.close(fd)
    if found:
        require_plain(rootfs, tuple(place for _, place in found))
    return found


def _seed(source: BundleSource, root: int, path: Path, place: str, target: Path) -> None:
    try:
        fd = open_beneath(root, os.fsencode(place), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    with storage_errors(f"cannot copy {path}"):
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        unpack(
            scan_upper(path, clamp=None, warn=source.warn),
            target,
            where=f"volume /{place}",
            ownership=ownership(source),
            warn=source.warn,
        )
        if not source.rootless:
            os.chown(target, status.st_uid, status.st_gid)
        os.chmod(target, stat.S_IMODE(status.st_mode))


def _database(rootfs: Path, name: str) -> bytes:
    """Read a file of the image, as far as it is one: a FIFO there must not hold us up, nor a link lead out."""
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, name.encode(), os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES):
            return b""
        raise StorageError(f"cannot read /{name} of the image: {error.strerror}") from error
    finally:
        os.close(root)
    with open(fd, "rb") as file:
        return file.read(limits.PASSWD_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


def write_text(path: Path, content: str, *, mode: int = 0o644) -> None:
    """Write a file of a bundle."""
    with storage_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
