"""The whole root filesystem as one gzipped tarball, reproducible."""

from __future__ import annotations

import os
from pathlib import Path

from imagetool.content.staging import storage_errors
from imagetool.layer.merge import flatten
from imagetool.layer.tarcodec import write
from imagetool.runtime.bundles.parts import BundleSource
from imagetool.streams.codecs import Codec


def write_tarball(source: BundleSource, path: Path) -> None:
    """Write the flattened layers; owners are those of the image, whoever runs this."""
    with storage_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            for chunk in Codec(reproducible=True).compress(write(flatten(source.image.openers()))):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
