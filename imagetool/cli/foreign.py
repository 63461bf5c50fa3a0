"""Commands that other installed packages bring, by entry point in the group imagetool.commands."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

_GROUP = "imagetool.commands"


def foreign_names() -> list[str]:
    """Return their names, sorted."""
    return sorted({point.name for point in entry_points(group=_GROUP)})


def foreign_command(name: str) -> EntryPoint | None:
    """Return where a command is, a typer program; None when there is none of the name."""
    return next(iter(entry_points(group=_GROUP, name=name)), None)
