"""Layers unpacked once each, stacked by overlayfs.

    FOLDER/HEX/fs        what the last layer of ChainID sha256:HEX changes, as an overlay layer
    FOLDER/HEX/bottom    present when that layer hides everything below it
    FOLDER/new-…/        one being made or a workspace in use, locked by its process
    FOLDER/empty         the lower directory of an image without layers

A snapshot appears by rename when it is complete. Nothing is ever mounted here: the executor
mounts the overlay inside the container's own mount namespace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagetool.content.staging import storage_errors
from imagetool.image.image import Layer
from imagetool.layer.merge import Opener
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, unpack
from imagetool.oci.digest import Digest, chain_ids
from imagetool.safefs.root import remove_tree


@dataclass(frozen=True, slots=True)
class Workspace:
    """A writable root in the making: lower directories, topmost first, and where changes go."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path


class Snapshotter(Protocol):
    def prepare(
        self, layers: Sequence[Layer], opener: Callable[[Layer], Opener]
    ) -> contextlib.AbstractContextManager[Workspace]:
        """Open a workspace over an image's layers, unpacking those that are not yet; it is removed on exit."""
        ...

    def adopt(self, workspace: Workspace, layers: Sequence[Layer]) -> None:
        """Keep a workspace's upper directory as the snapshot of `layers`, whose last one was made from it."""
        ...


class OverlaySnapshotter:
    """Snapshots in a folder of their own; safe for several processes at once.

    Args:
        folder: made when missing, mode 0700: what is in it may be setuid.
        user_xattr: overlay marks go to user.* attributes, as mounts inside a user namespace need.
        ownership: what may be set on unpacked files.
        warn: called with one line for what had to be left out.
    """

    def __init__(self, folder: Path, *, user_xattr: bool, ownership: Ownership, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._user_xattr = user_xattr
        self._ownership = ownership
        self._warn = warn
        with storage_errors(f"cannot make {folder}"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "empty").mkdir(exist_ok=True)
        self._sweep()

    @contextmanager
    def prepare(self, layers: Sequence[Layer], opener: Callable[[Layer], Opener]) -> Iterator[Workspace]:
        """Open a workspace; see `Snapshotter`."""
        lowers: list[Path] = []
        for layer, chain in zip(layers, chain_ids(layer.diff_id for layer in layers), strict=True):
            snapshot = self._folder / chain.hex
            if not snapshot.is_dir():
                self._unpack(layer, chain, opener(layer))
            if (snapshot / "bottom").exists():
                lowers.clear()
            lowers.append(snapshot / "fs")
        with self._new() as folder:
            with storage_errors(f"cannot make a workspace in {self._folder}"):
                (folder / "work").mkdir()
                (folder / "fs").mkdir()
                os.chmod(folder / "fs", 0o755)  # whatever the umask: it is the container's /
            yield Workspace(tuple(reversed(lowers)) or (self._folder / "empty",), folder / "fs", folder / "work")

    def adopt(self, workspace: Workspace, layers: Sequence[Layer]) -> None:
        """Keep a workspace's upper directory; see `Snapshotter`."""
        *_, chain = chain_ids(layer.diff_id for layer in layers)
        with self._new() as folder:
            with storage_errors(f"cannot keep the snapshot {chain}"):
                os.rename(workspace.upper, folder / "fs")
            self._publish(folder, chain)

    def discard(self, keep: frozenset[Digest] = frozenset()) -> int:
        """Remove snapshots but those of the ChainIDs in `keep`; return how many went."""
        names = {chain.hex for chain in keep} | {"empty"}
        gone = [name for name in os.listdir(self._folder) if name not in names and not name.startswith("new-")]
        for name in gone:
            self._remove(name)
        return len(gone)

    def _unpack(self, layer: Layer, chain: Digest, opener: Opener) -> None:
        where = f"layer {layer.descriptor.digest}"
        with self._new() as folder:
            target = folder / "fs"
            with storage_errors(f"cannot unpack {where}"):
                target.mkdir()
                os.chmod(target, 0o755)
            with opener() as tar:
                bottom = unpack(
                    read(tar, where=where),
                    target,
                    where=where,
                    whiteouts="overlay-user" if self._user_xattr else "overlay",
                    ownership=self._ownership,
                    warn=self._warn,
                )
            if bottom:
                (folder / "bottom").touch()
            self._publish(folder, chain)

    def _publish(self, folder: Path, chain: Digest) -> None:
        with storage_errors(f"cannot keep the snapshot {chain}"):
            try:
                os.rename(folder, self._folder / chain.hex)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was first
                    raise

    @contextmanager
    def _new(self) -> Iterator[Path]:
        folder = self._folder / f"new-{secrets.token_hex(8)}"
        with storage_errors(f"cannot make a snapshot in {self._folder}"):
            folder.mkdir(mode=0o700)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            self._remove(folder.name)
            os.close(fd)

    def _remove(self, name: str) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Remove what processes that no longer exist left behind."""
        for name in os.listdir(self._folder):
            if not name.startswith("new-"):
                continue
            try:
                fd = os.open(self._folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove(name)
            except BlockingIOError:
                continue
            finally:
                os.close(fd)
