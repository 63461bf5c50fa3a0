"""Base images that many tests start from, made once for all of them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.image.image import load
from imagetool.layer.merge import flatten
from imagetool.layer.unpack import Ownership, unpack


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a store that `make` has filled; the first worker that asks makes it, the others wait. Only to be read."""
    place = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        place = place.parent
    root = place / name
    with open(place / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "made").exists():
            make(root)
            (root / "made").touch()
    return root


def store_with(base: Path, folder: Path) -> Path:
    """Return a fresh store that has the images of a store made by `made_once`."""
    (folder / "store").mkdir(parents=True)
    shutil.copytree(base / "layout", folder / "store/layout", copy_function=os.link)
    # The index is replaced, never written to, but links to it are not worth a thought.
    index = folder / "store/layout/index.json"
    raw = index.read_bytes()
    index.unlink()
    index.write_bytes(raw)
    return folder / "store"


def unpack_image(root: Path, name: str, folder: Path, *, warn: Callable[[str], None] | None = None) -> Path:
    """Unpack an image of a store with our own unpacker; what cannot be set fails the test."""

    def fail(text: str) -> None:
        raise AssertionError(text)

    folder.mkdir()
    with opened(name, Workplace(root)) as (store, descriptor):
        items = flatten(load(store, descriptor).openers())
        unpack(items, folder, where=name, ownership=Ownership(), warn=warn or fail)
    return folder
