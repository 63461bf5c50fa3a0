"""An image's merged root filesystem, as a tarball or a directory; what `build --output` writes."""

from __future__ import annotations

import os
from pathlib import Path

from imagetool.content.staging import new_file, storage_errors
from imagetool.image.image import Image
from imagetool.layer.merge import flatten
from imagetool.layer.tarcodec import write
from imagetool.progress import Note, Observer, advancing, phase


def write_tar(image: Image, path: Path, observer: Observer) -> None:
    """Write one tar of the merged layers; it appears whole or not at all. Raises StorageError."""
    name = f"writing {path.name}"
    with phase(observer, name), new_file(path) as file:
        for chunk in advancing(write(flatten(image.openers())), observer, name):
            file.write(chunk)


def write_folder(image: Image, folder: Path, observer: Observer) -> None:
    """Unpack the merged layers into a directory, made when missing; without root all files belong to the user.

    Raises StorageError.
    """
    from imagetool.layer.unpack import Ownership, unpack

    with storage_errors(f"cannot make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    rootless = os.geteuid() != 0

    def warn(text: str) -> None:
        observer(Note(text, "warning"))

    ownership = Ownership(owners=not rootless, lenient=rootless)
    with phase(observer, f"unpacking to {folder}"):
        unpack(flatten(image.openers()), folder, where="image", ownership=ownership, warn=warn)
