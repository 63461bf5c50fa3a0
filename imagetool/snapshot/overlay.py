"""Layers unpacked once each, stacked by overlayfs.

    FOLDER/HEX/fs        what the last layer of ChainID sha256:HEX changes, as an overlay layer
    FOLDER/HEX/bottom    present when that layer hides everything below it
    FOLDER/new-…/        one being made or a workspace in use, locked by its process
    FOLDER/boot          the start of the machine since which all of these were made
    FOLDER/empty         the lower directory of an image without layers

A snapshot appears by rename when it is complete. Nothing is ever mounted here: the executor
mounts the overlay inside the container's own mount namespace.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from imagetool.content.folders import BOOT, STAGED, boot_id, discard_folder, new_folder, of_these_ids, read_boot, sweep
from imagetool.content.staging import locked, replace_file, storage_errors
from imagetool.image.image import Layer
from imagetool.layer.merge import Opener
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, Unpacked, Whiteouts, unpack
from imagetool.oci.digest import Digest, chain_ids
from imagetool.snapshot.inherit import inherit, remove_stray_marks
from imagetool.snapshot.links import copy_up
from imagetool.snapshot.parallel import in_parallel
from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class Workspace:
    """A writable root in the making: lower directories, topmost first, and where changes go."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path


class Snapshotter(Protocol):
    """Root filesystems made of layers, each unpacked once and kept; layers are base first, and not trusted."""

    def prepare(
        self, layers: Sequence[Layer], opener: Callable[[Layer], Opener]
    ) -> contextlib.AbstractContextManager[Workspace]:
        """Open a workspace over an image's layers, unpacking those that are not yet; it is removed on exit."""
        ...

    def lowers(self, layers: Sequence[Layer], opener: Callable[[Layer], Opener]) -> tuple[Path, ...]:
        """Return an image's layers as the lower directories of an overlay, topmost first."""
        ...

    def adopt(self, workspace: Workspace, layers: Sequence[Layer]) -> None:
        """Keep a workspace's upper directory as the snapshot of `layers`, whose last one was made from it."""
        ...


class OverlaySnapshotter:
    """Snapshots in a folder of their own; safe for several processes at once.

    Args:
        folder: made when missing, mode 0700: what is in it may be setuid. In a user namespace it
            is one beside it, FOLDER-HEX, for the ids that are mapped there.
        user_xattr: overlay marks go to user.* attributes, as mounts inside a user namespace need.
        ownership: what may be set on unpacked files.
        warn: called with one line for what had to be left out.
    """

    def __init__(self, folder: Path, *, user_xattr: bool, ownership: Ownership, warn: Callable[[str], None]) -> None:
        self._folder = folder = of_these_ids(folder)
        self._whiteouts: Whiteouts = "overlay-user" if user_xattr else "overlay"
        self._opaque = b"user.overlay.opaque" if user_xattr else b"trusted.overlay.opaque"
        self._ownership = ownership
        self._warn = warn
        self._unpacking = threading.Lock()
        with storage_errors(f"cannot make {folder}"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "empty").mkdir(exist_ok=True)
        sweep(folder)
        self._forget_other_boots()

    def _forget_other_boots(self) -> None:
        """Discard what was made before the machine last started.

        Snapshots are not synced, which would cost more than to make them; so a power cut may have
        emptied files of those that look complete.
        """
        with locked(self._folder):
            boot = boot_id()
            if read_boot(self._folder) != boot:
                self.discard()
                replace_file(self._folder / BOOT, boot.encode())

    @contextmanager
    def prepare(self, layers: Sequence[Layer], opener: Callable[[Layer], Opener]) -> Iterator[Workspace]:
        """Open a workspace; see `Snapshotter`."""
        lowers = self.lowers(layers, opener)
        with new_folder(self._folder) as folder:
            with storage_errors(f"cannot make a workspace in {self._folder}"):
                (folder / "work").mkdir()
                (folder / "fs").mkdir()
                os.chmod(folder / "fs", 0o755)  # whatever the umask: it is the container's /
            yield Workspace(lowers, folder / "fs", folder / "work")

    def lowers(self, layers: Sequence[Layer], opener: Callable[[Layer], Opener]) -> tuple[Path, ...]:
        """Return the lower directories; see `Snapshotter`. Layers that are not yet unpacked are so in parallel."""
        chains = list(chain_ids(layer.diff_id for layer in layers))
        with self._unpacking:  # each layer once, though several stages begin with it at the same time
            lowers = self._unpacked(layers, chains, opener)
        return tuple(reversed(lowers)) or (self._folder / "empty",)

    def adopt(self, workspace: Workspace, layers: Sequence[Layer]) -> None:
        """Keep a workspace's upper directory; see `Snapshotter`."""
        *_, chain = chain_ids(layer.diff_id for layer in layers)
        with new_folder(self._folder) as folder:
            with storage_errors(f"cannot keep the snapshot {chain}"):
                os.rename(workspace.upper, folder / "fs")
            self._publish(folder, chain)

    def discard(self, keep: frozenset[Digest] = frozenset()) -> int:
        """Remove snapshots but those of the ChainIDs in `keep`; return how many went."""
        names = {chain.hex for chain in keep} | {"empty", BOOT}
        gone = [name for name in os.listdir(self._folder) if name not in names and not name.startswith(STAGED)]
        for name in gone:
            discard_folder(self._folder, name)
        return len(gone)

    def _unpacked(
        self, layers: Sequence[Layer], chains: Sequence[Digest], opener: Callable[[Layer], Opener]
    ) -> list[Path]:
        """Return the layers as overlay directories, bottom first.

        Each layer has a directory of its own, so all can be written at once; only what a layer
        leaves unsaid about directories is taken from those below it, one layer after the other.
        """
        snapshots = [self._folder / chain.hex for chain in chains]
        missing = [at for at, snapshot in enumerate(snapshots) if not snapshot.is_dir()]
        lowers: list[Path] = []
        with contextlib.ExitStack() as stack:
            made: dict[int, tuple[Path, Unpacked]] = {}
            if missing:
                folders = [stack.enter_context(new_folder(self._folder)) for _ in missing]
                jobs = [
                    partial(self._unpack, folder, layers[at], opener)
                    for folder, at in zip(folders, missing, strict=True)
                ]
                made = dict(zip(missing, zip(folders, in_parallel(jobs), strict=True), strict=True))
            for at, (snapshot, chain) in enumerate(zip(snapshots, chains, strict=True)):
                if at in made:
                    folder, unpacked = made[at]
                    below = [] if unpacked.hides_all else lowers[::-1]
                    with storage_errors(f"cannot finish {chain}"):
                        unpacked = copy_up(
                            folder / "fs",
                            unpacked,
                            below,
                            opaque=self._opaque,
                            where=f"layer {layers[at].descriptor.digest}",
                            whiteouts=self._whiteouts,
                            ownership=self._ownership,
                            warn=self._warn,
                        )
                        inherit(folder / "fs", unpacked.implied, frozenset(unpacked.hidden), below, opaque=self._opaque)
                        remove_stray_marks(folder / "fs", unpacked.hidden, unpacked.implied, below, opaque=self._opaque)
                    self._publish(folder, chain)
                if (snapshot / "bottom").exists():
                    lowers.clear()
                lowers.append(snapshot / "fs")
        return lowers

    def _unpack(self, folder: Path, layer: Layer, opener: Callable[[Layer], Opener]) -> Unpacked:
        where = f"layer {layer.descriptor.digest}"
        target = folder / "fs"
        with storage_errors(f"cannot unpack {where}"):
            target.mkdir()
            os.chmod(target, 0o755)
        with opener(layer)() as tar:
            unpacked = unpack(
                read(tar, where=where),
                target,
                where=where,
                whiteouts=self._whiteouts,
                ownership=self._ownership,
                warn=self._warn,
            )
        if unpacked.hides_all:
            (folder / "bottom").touch()
        return unpacked

    def _publish(self, folder: Path, chain: Digest) -> None:
        with storage_errors(f"cannot keep the snapshot {chain}"):
            try:
                os.rename(folder, self._folder / chain.hex)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was first
                    raise
