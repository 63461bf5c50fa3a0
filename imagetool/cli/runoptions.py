"""The options of `run` that a working container keeps: `from` gives them, and every `run` in it begins with them."""

from __future__ import annotations

from pathlib import Path

from imagetool.cli.commands import find_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def kept_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that were given, so that they mean the same wherever `run` is called.

    Raises UsageError for wrong ones, and what `parse_sandbox` does.
    """
    from imagetool.runtime.sandbox import parse_sandbox
    from imagetool.verbs.volumes import Volume

    parse_sandbox(**{name: value for name, value in given.items() if name not in _NO_SANDBOX})
    volumes = [Volume.parse(text, folder=Path.cwd()) for text in given["volume"]]
    whole = {
        **given,
        "volume": [f"{one.source}:{one.target}:{one.mode}" for one in volumes],
        "security_opt": [_whole(text) for text in given["security_opt"]],
    }
    if whole["runtime"] and "/" in whole["runtime"]:
        whole["runtime"] = str(Path(whole["runtime"]).absolute())
    return {name: value for name, value in whole.items() if value != _defaults()[name]}


_NO_SANDBOX = ("volume", "network", "isolation", "runtime")


def _whole(text: str) -> str:
    name, _, value = text.partition("=")
    return f"{name}={Path(value).absolute()}" if name == "seccomp" and value != "unconfined" else text


def _defaults() -> dict[str, Any]:
    run = find_command("run")
    return {option.name: option.default for option in (run.options if run else ())}


def with_kept(kept: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a `run`: lists go on from those that are kept, others stand where none are given."""
    merged, defaults = dict(given), _defaults()
    for name, value in kept.items():
        if isinstance(value, list):
            merged[name] = [*value, *given.get(name, ())]
        elif given.get(name) == defaults.get(name):
            merged[name] = value
    return merged
