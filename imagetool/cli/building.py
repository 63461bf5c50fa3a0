"""`build` and `base`: make images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from imagetool.cli.options import Progress, workplace
from imagetool.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(build)
    app.command()(base)


def build(
    ctx: typer.Context,
    context: Annotated[Path, typer.Argument(help="Directory that COPY takes files from.")],
    tag: Annotated[
        list[str] | None, typer.Option("--tag", "-t", help="Name the image; may be given several times.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The Dockerfile. [default: CONTEXT/Dockerfile]")
    ] = None,
    build_arg: Annotated[
        list[str] | None, typer.Option("--build-arg", help="KEY=VALUE, or KEY for the environment's value.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE to put on the image.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="The stage to build. [default: the last]")] = None,
    platform: Annotated[str | None, typer.Option("--platform", help="Build for os/arch.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do every step anew.")] = False,
    output: Annotated[
        list[str] | None, typer.Option("--output", "-o", help="type=oci|docker|local|tar,dest=PATH[,tar=true]")
    ] = None,
    iidfile: Annotated[Path | None, typer.Option("--iidfile", help="Write the image ID to a file.")] = None,
    metadata_file: Annotated[Path | None, typer.Option("--metadata-file", help="Write digests to a JSON file.")] = None,
    timestamps: Annotated[
        str, typer.Option("--timestamps", help="clamp (to SOURCE_DATE_EPOCH) or preserve.")
    ] = "clamp",
    compression: Annotated[str, typer.Option("--compression", help="gzip[:0-9], zstd[:1-22] or none.")] = "gzip",
    runtime: Annotated[str, typer.Option("--runtime", help="What runs RUN steps: embedded.")] = "embedded",
    network: Annotated[str, typer.Option("--network", help="Network of RUN steps: default, host or none.")] = "default",
    progress: Progress = "auto",
) -> None:
    """Build an image from a Dockerfile; print its ID."""
    from imagetool import api
    from imagetool.config.environment import build_argument
    from imagetool.oci.platform import Platform
    from imagetool.streams.codecs import Codec

    if timestamps not in ("clamp", "preserve"):
        raise UsageError(f"--timestamps {timestamps!r}: there are clamp and preserve")
    if network not in ("default", "host", "none"):
        raise UsageError(f"--network {network!r}: there are default, host and none")
    outputs = [_output(text) for text in output or ()]
    place = workplace(ctx, progress)
    options = api.BuildOptions(
        file=file,
        tags=tag or (),
        build_args=dict(pair for text in build_arg or () if (pair := build_argument(text))),
        labels=dict(_pair(text) for text in label or ()),
        target=target,
        platform=Platform.parse(platform) if platform else None,
        use_cache=not no_cache,
        preserve_times=timestamps == "preserve",
        codec=Codec.parse(compression),
        runtime=runtime,
        network=network,
    )
    image = api.build(context, options, place)
    for wanted in outputs:
        archive = wanted.get("tar") == "true"
        name = (tag or [""])[0]
        api.export(image, wanted["type"], wanted["dest"], place, name=name, archive=archive)
    identity = str(image.config.descriptor.digest)
    if iidfile:
        _write(iidfile, identity)
    if metadata_file:
        known: dict[str, Any] = {
            "containerimage.config.digest": identity,
            "containerimage.digest": str(image.descriptor.digest),
            "containerimage.descriptor": image.descriptor.tree(),
            "image.name": ",".join(tag or ()),
        }
        _write(metadata_file, json.dumps(known, indent=2) + "\n")
    sys.stdout.write(f"{identity}\n")


def _write(path: Path, text: str) -> None:
    from imagetool.content.staging import replace_file

    replace_file(path, text.encode())


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _output(text: str) -> dict[str, str]:
    """Read `type=…,dest=…`; a bare path is a directory, as with docker."""
    if "=" not in text:
        return {"type": "local", "dest": text}
    fields = dict(_pair(part) for part in text.split(","))
    if "type" not in fields or not fields.get("dest"):
        raise UsageError(f"--output {text!r}: write type=oci|docker|local|tar,dest=PATH")
    return fields


def base(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(help="busybox, debian[:SUITE], a directory, or a root filesystem's tarball.")],
    tag: Annotated[str | None, typer.Option("--tag", "-t", help="Name of the image.")] = None,
    progress: Progress = "auto",
) -> None:
    """Make a base image from what this machine has, without a registry; print its name."""
    from imagetool import api

    name, _ = api.base(what, tag, workplace(ctx, progress))
    sys.stdout.write(f"{name}\n")
