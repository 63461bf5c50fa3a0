"""`push`, `pull`, `copy` and `convert`: move images between places and formats."""

from __future__ import annotations

import sys

from imagetool import api
from imagetool.cli.options import wanted_codec, workplace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.cli.app import Globals


def push(
    globals: Globals,
    *,
    source: str,
    destination: str | None,
    compression: str | None,
    reproducible_compression: bool,
    progress: str,
) -> None:
    """Push an image to a registry; print its digest."""
    codec = wanted_codec(compression, reproducible_compression)
    with workplace(globals, progress) as place:
        report = api.push(source, destination, place, codec=codec)
    sys.stdout.write(f"{report.root.digest}\n")


def pull(globals: Globals, *, reference: str, progress: str) -> None:
    """Pull an image into the local store; print its digest."""
    with workplace(globals, progress) as place:
        report = api.pull(reference, place)
    sys.stdout.write(f"{report.root.digest}\n")


def copy(
    globals: Globals,
    *,
    source: str,
    destination: str,
    platform: str | None,
    compression: str | None,
    reproducible_compression: bool,
    progress: str,
) -> None:
    """Copy an image between any two places; print its digest."""
    from imagetool.oci.platform import Platform

    wanted = Platform.parse(platform) if platform else None
    codec = wanted_codec(compression, reproducible_compression)
    with workplace(globals, progress) as place:
        report = api.copy(source, destination, place, platform=wanted, codec=codec)
    sys.stdout.write(f"{report.root.digest}\n")


def convert(globals: Globals, *, source: str, destination: str, progress: str) -> None:
    """Convert between OCI images and ACIs; print the image ID or digest. What is lost is told on stderr."""
    with workplace(globals, progress) as place:
        identity = api.convert(source, destination, place)
    sys.stdout.write(f"{identity}\n")
