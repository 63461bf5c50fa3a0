"""`bundle` and `save`: an image as what other systems run or load."""

from __future__ import annotations

import sys
from pathlib import Path

from imagetool.cli.options import workplace
from imagetool.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.cli.commands import Globals
    from imagetool.runtime.imageprocess import Wishes


def bundle(
    globals: Globals,
    *,
    for_: str,
    entrypoint: str | None,
    cmd: str | None,
    env: Sequence[str],
    user: str | None,
    workdir: str | None,
    platform: str | None,
    rootless: bool | None,
    ctid: str,
    progress: str,
    reference: str,
    destination: str,
) -> None:
    """Write an image as a bundle for another system."""
    from imagetool.oci.platform import Platform
    from imagetool.verbs.bundle import BundleOptions
    from imagetool.verbs.bundle import bundle as write

    options = BundleOptions(
        wishes(words(cmd, "--cmd"), entrypoint, env, user, workdir),
        Platform.parse(platform) if platform else None,
        rootless,
        number(ctid, "--ctid"),
    )
    with workplace(globals, progress) as place:
        write(reference, Path(destination), for_, place.surroundings, options, observer=place.observer)


def save(globals: Globals, *, output: str | None, format: str, progress: str, references: Sequence[str]) -> None:
    """Write images as one archive, to stdout when no file is named."""
    from imagetool.cli.outputs import to_stdout
    from imagetool.verbs.bundle import save as write

    if output in (None, "-") and sys.stdout.isatty():
        raise UsageError("save: an archive is not for a terminal; name a file with --output, or redirect stdout")
    with workplace(globals, progress) as place:

        def written(path: Path) -> None:
            write(references, path, place.surroundings, format=format, observer=place.observer)

        if output is None or output == "-":
            to_stdout(written, place)
        else:
            written(Path(output))


def wishes(
    args: Sequence[str] | None, entrypoint: str | None, env: Sequence[str], user: str | None, workdir: str | None
) -> Wishes:
    """Return what the command line wants otherwise than the image."""
    from imagetool.config.environment import build_argument
    from imagetool.runtime.imageprocess import Wishes

    pairs = dict(pair for text in env if (pair := build_argument(text)))
    return Wishes(args, program(entrypoint), pairs, user, workdir)


def program(text: str | None) -> tuple[str, ...] | None:
    """Read --entrypoint: one program, or a JSON array; an empty one is none at all."""
    if text is None or not text.startswith("["):
        return None if text is None else tuple(filter(None, [text]))
    import json

    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--entrypoint {text[:80]!r}: {error}") from None
    if not all(isinstance(word, str) for word in found):
        raise UsageError(f"--entrypoint {text[:80]!r}: it must be an array of strings")
    return tuple(found)


def words(text: str | None, option: str) -> tuple[str, ...] | None:
    """Split a command as a shell would."""
    import shlex

    try:
        return None if text is None else tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}") from None


def number(text: str, option: str) -> int:
    """Read a whole number of at least 1."""
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 10 and int(text)):
        raise UsageError(f"{option} {text[:40]!r} is not a number of at least 1")
    return int(text)
