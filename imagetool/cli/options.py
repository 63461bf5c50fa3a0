"""What several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imagetool.api import Workplace

Progress = Annotated[str, typer.Option("--progress", help="auto, tty, plain, json or quiet.")]


def workplace(ctx: typer.Context, progress: str = "auto") -> Workplace:
    """Return the local store and the rest, as the global options say."""
    from imagetool.api import Workplace
    from imagetool.cli.render import observer
    from imagetool.config.environment import store_root

    return Workplace(store_root(ctx.obj.root), ctx.obj.tls_verify, observer(progress))
