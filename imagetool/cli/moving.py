"""`push`, `pull`, `copy` and `convert`: move images between places and formats."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from imagetool.cli.options import Progress, workplace

Source = Annotated[str, typer.Argument(help="An image: a local name, docker://…, oci:DIR[:TAG], oci-archive:FILE, …")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(push)
    app.command()(pull)
    app.command()(copy)
    app.command()(convert)


def push(
    ctx: typer.Context,
    source: Source,
    destination: Annotated[str | None, typer.Argument(help="Where to; default: the registry the name says.")] = None,
    progress: Progress = "auto",
) -> None:
    """Push an image to a registry; print its digest."""
    from imagetool import api

    report = api.push(source, destination, workplace(ctx, progress))
    sys.stdout.write(f"{report.root.digest}\n")


def pull(
    ctx: typer.Context,
    reference: Annotated[str, typer.Argument(help="The image's name in its registry.")],
    progress: Progress = "auto",
) -> None:
    """Pull an image into the local store; print its digest."""
    from imagetool import api

    report = api.pull(reference, workplace(ctx, progress))
    sys.stdout.write(f"{report.root.digest}\n")


def copy(
    ctx: typer.Context,
    source: Source,
    destination: Annotated[str, typer.Argument(help="Where to, in the same words.")],
    platform: Annotated[str | None, typer.Option("--platform", help="Copy only this platform's image.")] = None,
    progress: Progress = "auto",
) -> None:
    """Copy an image between any two places, byte for byte; print its digest."""
    from imagetool import api
    from imagetool.oci.platform import Platform

    wanted = Platform.parse(platform) if platform else None
    report = api.copy(source, destination, workplace(ctx, progress), platform=wanted)
    sys.stdout.write(f"{report.root.digest}\n")


def convert(
    ctx: typer.Context,
    source: Source,
    destination: Annotated[str, typer.Argument(help="Where to: aci:FILE, or any place of `copy`.")],
    progress: Progress = "auto",
) -> None:
    """Convert between OCI images and ACIs; print the image ID or digest. What cannot be carried is told on stderr."""
    from imagetool import api

    made = api.convert(source, destination, workplace(ctx, progress))
    for line in made.lost:
        sys.stderr.write(f"not carried: {line}\n")
    sys.stdout.write(f"{made.identity}\n")
