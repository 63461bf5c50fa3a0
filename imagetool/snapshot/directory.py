"""An image's layers applied one after the other to one directory, and what was changed there since.

For where overlays cannot be mounted, and for root filesystems that somebody will edit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from imagetool.content.folders import new_folder, sweep
from imagetool.content.staging import storage_errors
from imagetool.image.image import Layer
from imagetool.layer.diff import diff_directory
from imagetool.layer.directory import Scan, scan_directory
from imagetool.layer.entry import Item
from imagetool.layer.idmap import OwnerMap
from imagetool.layer.merge import Opener, content_digests
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, unpack
from imagetool.streams.pump import in_thread
from imagetool.values import dataclass

Warn = Callable[[str], None]
_TICK: Final = 12_000_000  # nanoseconds, of a kernel with 100 ticks a second


def unpack_layers(
    layers: Sequence[tuple[Opener, str]],
    target: Path,
    *,
    ownership: Ownership,
    owners: OwnerMap | None = None,
    warn: Warn,
) -> Scan:
    """Apply layers, base first, to an empty directory; return what is there then.

    Decompression and verification run in a thread of their own.

    Args:
        owners: what the ids of the image are on the disk; None leaves them what they are.

    Raises InvalidArchive, StorageError or VerificationError; the target is then partly written.
    """
    attributed: set[int] = set()
    for opener, where in layers:
        with opener() as tar, in_thread(tar) as chunks:
            items = read(chunks, where=where)
            if owners is not None:
                items = owners.placed(items, where)
            unpack(items, target, where=where, ownership=ownership, attributed=attributed, warn=warn)
    scan = scan_directory(target, attributed=attributed)
    _settle(scan)
    return scan


def _settle(scan: Scan) -> None:
    """Wait until a change cannot get a ctime that the scan has already: kernels count them in ticks."""
    newest = max(record.ctime for record in scan.records.values())
    while 0 <= newest + _TICK - time.time_ns() <= _TICK:
        time.sleep(_TICK / 4e9)


@dataclass(frozen=True, slots=True)
class DirectoryWorkspace:
    """A root filesystem to change, and what it was before."""

    root: Path
    before: Scan
    layers: tuple[tuple[Opener, str], ...]
    rootless: bool = False

    def changes(self, *, clamp: int | None, warn: Warn) -> Iterator[Item]:
        """Yield what was changed, as the entries of a layer; see `layer.diff.diff_directory`."""
        after = scan_directory(self.root, known=self.before)
        return diff_directory(
            self.root,
            self.before,
            after,
            clamp=clamp,
            warn=warn,
            rootless=self.rootless,
            digests=partial(content_digests, self.layers),
        )


class DirectorySnapshotter:
    """Workspaces in a folder of their own, each unpacked anew; safe for several processes at once.

    Args:
        folder: made when missing, mode 0700: what is in it may be setuid.
        ownership: what may be set on unpacked files.
        warn: called with one line for what had to be left out.
    """

    def __init__(self, folder: Path, *, ownership: Ownership, warn: Warn) -> None:
        self._folder = folder
        self._ownership = ownership
        self._warn = warn
        with storage_errors(f"cannot make {folder}"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(folder)

    @contextmanager
    def prepare(self, layers: Sequence[Layer], opener: Callable[[Layer], Opener]) -> Iterator[DirectoryWorkspace]:
        """Open a workspace over an image's layers; it is removed on exit."""
        with new_folder(self._folder) as folder:
            root = folder / "fs"
            with storage_errors(f"cannot make a workspace in {self._folder}"):
                root.mkdir()
                os.chmod(root, 0o755)
            openers = [(opener(layer), f"layer {layer.descriptor.digest}") for layer in layers]
            before = unpack_layers(openers, root, ownership=self._ownership, warn=self._warn)
            yield DirectoryWorkspace(root, before, tuple(openers), self._ownership.recorded)
