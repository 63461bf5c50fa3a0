"""Scratch space for transports that take a whole image in before they hand it on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagetool.transports.base import Surroundings


@contextmanager
def scratch_folder(around: Surroundings) -> Iterator[Path]:
    """Yield a directory of its own, which goes with everything in it; those of dead processes go too."""
    from imagetool.content import folders

    with folders.scratch_folder(around.scratch) as folder:
        yield folder
