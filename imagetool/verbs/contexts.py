"""The build context that a user names, opened: for `build`, and for what only reads its Dockerfile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from imagetool.build.contexts import Opened, open_context
from imagetool.build.graph import KEEP_GIT_ARG
from imagetool.verbs.buildworker import download

if TYPE_CHECKING:
    from imagetool.verbs.buildoptions import BuildOptions
    from imagetool.verbs.workplace import Workplace


def opening(options: BuildOptions, place: Workplace) -> dict[str, Any]:
    """Return what `open_context` needs to open the contexts of a build."""
    token = options.secrets.git_token if options.secrets else b""
    return {"scratch": place.root / "scratch", "download": download, "token": token}


@contextmanager
def opened_context(
    context: Path | str, options: BuildOptions, place: Workplace, *, stdin: BinaryIO | None = None
) -> Iterator[Opened]:
    """Open a context; see `build.contexts.open_context` for what it may be, and for what is raised."""
    keep = options.is_on(KEEP_GIT_ARG)
    with open_context(str(context), stdin=stdin, keep_git_dir=keep, **opening(options, place)) as opened:
        yield opened
