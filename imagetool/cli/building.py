"""`build` and `base`: make images."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.api import BuildOptions
    from imagetool.cli.app import Globals
    from imagetool.image.image import Image


def build(
    globals: Globals,
    *,
    context: str,
    tag: Sequence[str],
    file: str | None,
    build_arg: Sequence[str],
    label: Sequence[str],
    target: str | None,
    platform: str | None,
    no_cache: bool,
    output: Sequence[str],
    iidfile: str | None,
    metadata_file: str | None,
    timestamps: str,
    compression: str,
    runtime: str,
    network: str,
    progress: str,
    quiet: bool,
) -> None:
    """Build an image; print its ID, or nothing but the tar when an output is stdout."""
    from pathlib import Path

    from imagetool import api
    from imagetool.cli.options import workplace
    from imagetool.cli.outputs import Output
    from imagetool.config.environment import build_argument
    from imagetool.oci.platform import Platform
    from imagetool.streams.codecs import Codec

    outputs = [Output.parse(text) for text in output]
    place = workplace(globals, "quiet" if quiet else progress)
    options = api.BuildOptions(
        file=Path(file) if file and file != "-" else None,
        text=_from_stdin() if file == "-" else None,
        tags=tag,
        build_args=dict(pair for text in build_arg if (pair := build_argument(text))),
        labels=dict(_label(text) for text in label),
        target=target,
        platform=Platform.parse(platform) if platform else None,
        use_cache=not no_cache,
        preserve_times=timestamps == "preserve",
        codec=Codec.parse(compression),
        runtime=runtime,
        network=network,
    )
    image = api.build(Path(context), options, place)
    for wanted in outputs:
        wanted.write(image, place, name=tag[0] if tag else "")
    _record(image, options, iidfile, metadata_file)
    result = sys.stderr if any(wanted.is_stdout for wanted in outputs) else sys.stdout
    result.write(f"{image.config.descriptor.digest}\n")


def _from_stdin() -> bytes:
    from imagetool.errors import UsageError
    from imagetool.limits import DOCKERFILE_BYTES

    text = sys.stdin.buffer.read(DOCKERFILE_BYTES + 1)
    if not text.strip():
        raise UsageError("--file -: there is no Dockerfile on stdin")
    return text


def _record(image: Image, options: BuildOptions, iidfile: str | None, metadata_file: str | None) -> None:
    """Write --iidfile and --metadata-file, whole and only after everything else has worked."""
    if not iidfile and not metadata_file:
        return
    import json
    from pathlib import Path

    from imagetool.content.staging import replace_file

    identity = str(image.config.descriptor.digest)
    if iidfile:
        replace_file(Path(iidfile), identity.encode())
    if metadata_file:
        known = {
            "containerimage.config.digest": identity,
            "containerimage.digest": str(image.descriptor.digest),
            "containerimage.descriptor": image.descriptor.tree(),
            "image.name": ",".join(options.tags),
        }
        replace_file(Path(metadata_file), json.dumps(known, indent=2).encode() + b"\n")


def _label(text: str) -> tuple[str, str]:
    from imagetool.errors import UsageError

    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"--label {text!r}: write KEY=VALUE")
    return name, value


def base(globals: Globals, *, what: str, tag: str | None, progress: str) -> None:
    """Make a base image; print its name."""
    from imagetool import api
    from imagetool.cli.options import workplace

    name, _ = api.base(what, tag, workplace(globals, progress))
    sys.stdout.write(f"{name}\n")
