"""Scratch space for transports that take a whole image in before they hand it on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagetool.content.staging import storage_errors
from imagetool.snapshot.folders import new_folder, sweep
from imagetool.transports import Surroundings


@contextmanager
def scratch_folder(around: Surroundings) -> Iterator[Path]:
    """Yield a directory of its own, which goes with everything in it; those of dead processes go too."""
    with storage_errors(f"cannot make a directory in {around.scratch}"):
        around.scratch.mkdir(parents=True, exist_ok=True)
        sweep(around.scratch)
    with new_folder(around.scratch) as folder:
        yield folder
