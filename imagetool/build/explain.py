"""Why a step was not in the cache: the first of its inputs that is not as it was; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_SHOWN: Final = 60
#: What is looked at, in this order, and how people call it.
_PARTS: Final = {
    "step": "it is another instruction",
    "argv": "the command changed",
    "script": "the heredoc changed",
    "texts": "a heredoc changed",
    "env": "",
    "mounts": "",
    "source": "what --from names was made anew",
    "changed": "",
    "content": "files changed",
    "times": "the moment of the build changed",
    "codec": "the compression changed",
}
#: What only leads to other inputs, or tells nothing by itself.
_SILENT: Final = frozenset({"skeleton", "parent", "changed"})


def reason(before: Mapping[str, Any] | None, now: Mapping[str, Any], *, base: bool) -> str:
    """Return what differs first between a step's inputs in an earlier build and now.

    Args:
        before: None when no earlier build of the step is known.
        now: `changed` says what files differ, where that is known.
        base: all steps before this one, in its stage, are as they were: another parent is another base.
    """
    if before is None:
        return "no earlier build of this step is known"
    if before.get("parent") != now.get("parent") and not base:
        return "a step before it is another"
    if before.get("parent") != now.get("parent"):
        return "base digest moved"
    own = sorted((set(before) | set(now)) - set(_PARTS))  # what the instruction says, before what follows from it
    names = list(_PARTS)
    at = names.index("changed")
    for name in (*names[:at], *own, *names[at:]):
        old, new = before.get(name), now.get(name)
        if name == "changed" and new:
            return str(new)
        if old == new or name in _SILENT:
            continue
        if name == "env":
            return _variables(old or {}, new or {})
        if name == "mounts":
            return _mounts(old or [], new or [])
        return _PARTS.get(name) or f"{name} {_short(old)} → {_short(new)}"
    return "the cache has it no more"


def _variables(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    for name in dict.fromkeys((*new, *old)):
        if old.get(name) != new.get(name):
            if name not in new:
                return f"ENV or ARG {name} is gone"
            if name not in old:
                return f"ENV or ARG {name} is new"
            return f"ENV or ARG {name} {_short(old[name])} → {_short(new[name])}"
    return "the order of variables changed"


def _mounts(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    for left, right in zip(old, new, strict=False):
        if left.get("text") == right.get("text") and left != right:
            return f"--mount={right['text']}: files changed"
    return "the mounts changed"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else "none" if value in (None, (), []) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
