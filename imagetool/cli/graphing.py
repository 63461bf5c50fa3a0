"""`graph`: draw the stages of a Dockerfile."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.cli.commands import Globals


def graph(
    globals: Globals,
    *,
    file: str | None,
    build_arg: Sequence[str],
    build_context: Sequence[str],
    target: str | None,
    platform: str | None,
    output: str | None,
    format: str,
    context: str,
) -> None:
    """Print the graph, or write it to a file; the file's name says the format unless --format does."""
    import json
    from pathlib import Path

    from imagetool import api
    from imagetool.cli.buildoptions import from_stdin
    from imagetool.cli.options import plain_workplace
    from imagetool.config.environment import build_argument
    from imagetool.content.staging import write_file
    from imagetool.oci.platform import Platform
    from imagetool.progress import silent

    options = api.BuildOptions(
        file=Path(file) if file and file != "-" else None,
        text=from_stdin() if file == "-" else None,
        build_args=dict(pair for text in build_arg if (pair := build_argument(text))),
        contexts={text.partition("=")[0]: text.partition("=")[2] for text in build_context},
        target=target,
        platform=Platform.parse(platform) if platform else None,
    )
    place = plain_workplace(globals, silent)
    drawn = api.graph(context, options, place, stdin=None if file == "-" else sys.stdin.buffer)
    if format == "auto":
        suffix = Path(output or "").suffix
        format = {".json": "json", ".dot": "dot", ".gv": "dot"}.get(suffix, "svg")
    if format == "json":
        text = json.dumps(drawn.tree(), indent=2) + "\n"
    elif format == "dot":
        text = "".join(f"{line}\n" for line in drawn.dot())
    else:
        from imagetool.cli.graphsvg import svg

        text = svg(drawn)
    if output is None:
        sys.stdout.write(text)
    else:
        write_file(Path(output), text.encode())
