"""An image unpacked to be edited, and the layer that the edits make.

    FOLDER/rootfs            the root filesystem
    FOLDER/imagetool.scan    which image it was, and what every path was (`layer.scanfile`)

The scan is written last, when the tree is on the disk: a folder without it is not a bundle. What a later
difference costs is one lstat a path, and reading what changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from imagetool import limits
from imagetool.content.staging import locked, new_file, replace_file, storage_errors
from imagetool.errors import InvalidDocument, LimitExceeded, NotFound, UsageError
from imagetool.image.image import Image
from imagetool.layer.directory import Scan, scan_directory
from imagetool.layer.entry import Item
from imagetool.layer.idmap import OwnerMap, namespace_ids
from imagetool.layer.scanfile import parse, render
from imagetool.layer.unpack import Ownership
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.document import get
from imagetool.safefs.root import remove_tree
from imagetool.snapshot.directory import unpack_layers
from imagetool.values import dataclass

ROOTFS: Final = "rootfs"
SCAN: Final = "imagetool.scan"
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An unpacked image.

    source: where the image was found, in the words of the command line. image: its manifest.
    rootless: whether owners are recorded in attributes rather than set.
    ids: of whom the owners on the disk are the ids: the maps of a user namespace (`layer.idmap.namespace_ids`).
    owners: what the ids of the image are outside of all namespaces, where they are not what they are.
    """

    folder: Path
    source: str
    image: Descriptor
    rootless: bool
    ids: str
    owners: OwnerMap | None
    before: Scan

    @property
    def rootfs(self) -> Path:
        """The root filesystem."""
        return self.folder / ROOTFS

    def scan(self) -> Scan:
        """Return what is there now."""
        return scan_directory(self.rootfs, known=self.before)

    def changes(self, after: Scan, image: Image, *, clamp: int | None, warn: Warn) -> Iterator[Item]:
        """Yield what was edited, as the entries of a layer; see `layer.diff.diff_directory`.

        image: what was unpacked; it is read only where a file was touched and put back.
        """
        from imagetool.layer.diff import diff_directory
        from imagetool.layer.merge import content_digests

        digests = partial(content_digests, image.openers())
        return diff_directory(
            self.rootfs,
            self.before,
            after,
            clamp=clamp,
            warn=warn,
            rootless=self.rootless,
            owners=_on_disk(self.owners, self.ids),
            digests=digests,
        )

    def save(self) -> None:
        """Write the scan beside the root filesystem, durably."""
        replace_file(self.folder / SCAN, self.render())

    def render(self) -> bytes:
        """Return the scan's file."""
        notes = {
            "kind": "bundle",
            "source": self.source,
            "image": self.image.tree(),
            "rootless": self.rootless,
            "ids": self.ids,
        }
        if self.owners is not None:
            notes["owners"] = f"{self.owners.users}/{self.owners.groups}"
        return render(self.before, notes)


def unpack_bundle(
    image: Image,
    folder: Path,
    *,
    source: str,
    rootless: bool,
    lenient: bool,
    ids: str,
    owners: OwnerMap | None = None,
    sync: bool = True,
    warn: Warn,
) -> Bundle:
    """Unpack an image into a folder that is empty, or new, or where an unpacking was killed.

    The folder is closed to others, because what is in it may be setuid. After an error nothing
    of the root filesystem is left. With `sync` all of it is on the disk before the scan is; without
    it a power cut may leave files empty that the scan takes for whole. Raises UsageError for a
    folder that is in use, and for ids that `owners` says nothing of.
    """
    placed = _on_disk(owners, ids)
    with storage_errors(f"cannot make {folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = folder / ROOTFS
    with locked(folder):
        _check_free(folder)
        try:
            # The scan stands beside it, unfinished, from here on: so the next start knows what this left.
            with new_file(folder / SCAN) as file:
                owner = _make_rootfs(folder, placed)
                ownership = Ownership(
                    owners=not rootless,
                    lenient=lenient or rootless,
                    recorded=rootless,
                    root=owner,
                )
                before = unpack_layers(image.openers(), root, ownership=ownership, owners=placed, warn=warn)
                if sync:
                    _sync(root)
                bundle = Bundle(folder, source, image.descriptor, rootless, ids, owners, before)
                file.write(bundle.render())
        except BaseException:
            with contextlib.suppress(OSError):  # what was the matter is told; the next start takes what is left
                _remove(folder, SCAN)
                _remove(folder, ROOTFS)
            raise
    return bundle


def _make_rootfs(folder: Path, placed: OwnerMap | None) -> tuple[int, int]:
    """Make the root filesystem, empty, in place of what a killed unpacking left; return the ids of its root user."""
    root = folder / ROOTFS
    with storage_errors(f"cannot make {root}"):
        os.chmod(folder, 0o700)
        _remove(folder, ROOTFS)
        root.mkdir()
        os.chmod(root, 0o755)
        if placed is None:
            return 0, 0
        os.chown(root, *placed.root)
        return placed.root


def _on_disk(owners: OwnerMap | None, ids: str) -> OwnerMap | None:
    """Return what the ids of an image are to whom the ids of a namespace are."""
    return None if owners is None else owners.within(namespace_ids(ids))


def sync_filesystem(fd: int) -> None:
    """Wait until the whole file system of an open file is on the disk. Raises OSError.

    In one go, because a sync of every single file costs more than to write them.
    """
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _sync(root: Path) -> None:
    with storage_errors(f"cannot write {root} to the disk"):
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_filesystem(fd)
        finally:
            os.close(fd)


def _check_free(folder: Path) -> None:
    names = set(os.listdir(folder))
    unfinished = {name for name in names if name.startswith(f".{SCAN}.")}
    if names - unfinished - {ROOTFS} or (ROOTFS in names and not unfinished):
        raise UsageError(f"{folder} is not empty; unpack into a directory of its own")


def _remove(folder: Path, name: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(fd, os.fsencode(name))
    finally:
        os.close(fd)


def open_bundle(folder: Path) -> Bundle:
    """Read what `unpack_bundle` left. Raises NotFound, InvalidDocument or LimitExceeded."""
    path = folder / SCAN
    with storage_errors(f"cannot read {path}"):
        try:
            with open(path, "rb") as file:
                raw = file.read(limits.SCAN_BYTES + 1)
        except FileNotFoundError:
            raise NotFound(f"{folder} has no {SCAN}: it is not what `imagetool unpack` made") from None
    if len(raw) > limits.SCAN_BYTES:
        raise LimitExceeded(f"{path}: larger than {limits.named('SCAN_BYTES')}")
    before, notes = parse(raw, where=str(path))
    return _bundle(folder, before, notes, str(path))


def _bundle(folder: Path, before: Scan, notes: dict[str, Any], what: str) -> Bundle:
    if get(notes, "kind", str, "", path="$", what=what) != "bundle":
        raise InvalidDocument(f"{what}: is the scan of something else than a bundle")
    source = get(notes, "source", str, None, path="$", what=what)
    image = Descriptor.read(notes.get("image"), path="$.image", what=what)
    rootless = get(notes, "rootless", bool, None, path="$", what=what)
    ids = get(notes, "ids", str, "", path="$", what=what)
    users, slash, groups = get(notes, "owners", str, "", path="$", what=what).partition("/")
    try:
        owners = OwnerMap.parse(users.split(","), groups.split(",")) if slash else None
    except UsageError as error:
        raise InvalidDocument(f"{what}: {error}") from None
    return Bundle(folder, source, image, rootless, ids, owners, before)
