"""`push`, `pull`, `copy` and `convert`: move images between places and formats."""

from __future__ import annotations

import sys

from imagetool import api
from imagetool.cli.options import plain_workplace, wanted_codec, workplace
from imagetool.errors import UsageError
from imagetool.progress import silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from imagetool.cli.commands import Globals


def push(
    globals: Globals,
    *,
    source: str,
    destination: str | None,
    compression: str | None,
    reproducible_compression: bool,
    quiet: bool,
    progress: str,
) -> None:
    """Push an image to a registry; print its digest."""
    codec = wanted_codec(compression, reproducible_compression)
    with workplace(globals, "quiet" if quiet else progress) as place:
        report = api.push(source, destination, place, codec=codec)
    sys.stdout.write(f"{report.root.digest}\n")


def pull(
    globals: Globals, *, reference: str, platform: str | None, all_platforms: bool, quiet: bool, progress: str
) -> None:
    """Pull an image into the local store; print its digest."""
    from imagetool.oci.platform import Platform

    if platform and all_platforms:
        raise UsageError("--platform and --all-platforms exclude each other")
    wanted = Platform.parse(platform) if platform else None
    with workplace(globals, "quiet" if quiet else progress) as place:
        report = api.pull(reference, place, platform=wanted, all_platforms=all_platforms)
    sys.stdout.write(f"{report.root.digest}\n")


def copy(
    globals: Globals,
    *,
    source: str,
    destination: Sequence[str],
    platform: str | None,
    compression: str | None,
    reproducible_compression: bool,
    progress: str,
    quiet: bool,
    add_history: bool,
    **files: Any,
) -> None:
    """Copy an image between any two places, or files into a working container; print the digest.

    `files` are the options that only the second has.
    """
    from imagetool.cli.containers import container_named
    from imagetool.oci.platform import Platform

    container = container_named(globals, source)
    if container is not None:
        if platform or compression or reproducible_compression:
            raise UsageError(f"copy {source}: it is a working container, for which there is no --platform or codec")
        from imagetool.cli.stepping import copy_into

        copy_into(globals, container, destination, progress=progress, quiet=quiet, add_history=add_history, **files)
        return
    if len(destination) > 1 or any(files.values()):
        _refuse_files(globals, source)
    wanted = Platform.parse(platform) if platform else None
    codec = wanted_codec(compression, reproducible_compression)
    with workplace(globals, "quiet" if quiet else progress) as place:
        report = api.copy(source, destination[0], place, platform=wanted, codec=codec)
    if not quiet:
        sys.stdout.write(f"{report.root.digest}\n")


def _refuse_files(globals: Globals, source: str) -> NoReturn:
    """Say that files go into working containers, and that this is none."""
    error = plain_workplace(globals, silent).containers.unknown(source)
    error.add_note("copy IMAGE DESTINATION copies an image; copy CONTAINER FILE… [PATH] copies files into a container")
    raise error


def convert(globals: Globals, *, source: str, destination: str, progress: str) -> None:
    """Convert between OCI images and ACIs; print the image ID or digest. What is lost is told on stderr."""
    with workplace(globals, progress) as place:
        identity = api.convert(source, destination, place)
    sys.stdout.write(f"{identity}\n")


def load(globals: Globals, *, input: str | None, quiet: bool, progress: str) -> None:
    """Take the images of an archive into the local store; print their names."""
    from imagetool.cli.lines import printable

    if input in (None, "-") and sys.stdin.isatty():
        raise UsageError("load: there is a terminal on stdin; name the archive with --input, or redirect stdin")
    path = "/dev/stdin" if input is None or input == "-" else input
    with workplace(globals, "quiet" if quiet else progress) as place:
        names = api.load(path, place)
    for name in names:
        sys.stdout.write(f"{printable(name)}\n")


def tags(globals: Globals, *, repository: str, json: bool) -> None:
    """List the tags of a repository in a registry."""
    found = api.tags(repository, plain_workplace(globals, silent))
    if json:
        from json import dumps

        sys.stdout.write(dumps(list(found), indent=2) + "\n")
        return
    for tag in found:
        sys.stdout.write(f"{tag}\n")


def delete(globals: Globals, *, reference: str) -> None:
    """Delete an image from its registry; print its digest."""
    sys.stdout.write(f"{api.delete(reference, plain_workplace(globals, silent))}\n")
