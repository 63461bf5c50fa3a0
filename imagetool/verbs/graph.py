"""`graph`: the stages of a Dockerfile as a graph, without building."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from imagetool.image.image import this_platform
from imagetool.verbs.buildoptions import BuildOptions, dockerfile_of, shown_name

if TYPE_CHECKING:
    from imagetool.build.stagegraph import StageGraph
    from imagetool.verbs.workplace import Workplace


def graph(context: Path | str, options: BuildOptions, place: Workplace, *, stdin: BinaryIO | None = None) -> StageGraph:
    """Return the stages of the Dockerfile of a context, and what they are made from. Nothing is built or pulled.

    Args:
        context, stdin: as of `build`.

    Of `options` count the Dockerfile, the build arguments, the platform, the target and the names of the contexts.
    Raises DockerfileError, and UsageError for an unknown target.
    """
    from imagetool.build.graph import plan
    from imagetool.build.stagegraph import stage_graph
    from imagetool.build.worker import Unwatched
    from imagetool.dockerfile import parse
    from imagetool.verbs.contexts import opened_context

    with opened_context(context, options, place, stdin=stdin) as opened:
        path, text = dockerfile_of(opened, options, Unwatched())
        name = shown_name(path, opened, options)
    host = this_platform()
    platform = options.platform or host
    planned = plan(
        parse(text, file=name),
        build_args=options.build_args,
        target=options.target,
        platform=platform,
        host=host,
        named=frozenset(name.lower() for name in options.contexts),
    )
    return stage_graph(planned, platform=str(platform))
