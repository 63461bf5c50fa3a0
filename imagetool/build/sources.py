"""Which paths the sources of a COPY stand for: wildcards, `**`, and the pivot of --parents."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from imagetool.dockerfile.glob import has_wildcard, match
from imagetool.dockerfile.wording import did_you_mean
from imagetool.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.build.files import Files
    from imagetool.layer.entry import Kind


def find_sources(written: Sequence[str], files: Files, *, parents: bool, needed: bool) -> list[str]:
    """Return the paths that sources stand for, wildcards resolved, in the order written.

    parents: as with --parents, which knows `**` and the pivot. needed: that nothing matches is an error.
    Raises BuildError for that one, and for a path that is not there.
    """
    found: list[str] = []
    for source in written:
        cleaned = _clean(source, keep_pivot=parents)
        if has_wildcard(source):
            found += _glob(files, cleaned, deep=parents)
        elif files.lookup(cleaned.encode(errors="surrogateescape"))[1] is None:
            raise BuildError(f"{source!r} not found{_why_missing(files, cleaned)}", about=source)
        else:
            found.append(cleaned)
    if not found and needed:
        raise BuildError(f"no file matches {' '.join(written)!r}", about=written[0])
    return found


def _clean(source: str, *, keep_pivot: bool) -> str:
    """Make a source relative to its root, which ".." does not leave."""
    if keep_pivot and "/./" in source:
        left, _, right = source.partition("/./")
        return _clean(left, keep_pivot=False) + "/./" + _clean(right, keep_pivot=False)
    return posixpath.normpath("/" + source).lstrip("/") or "."


def _why_missing(files: Files, path: str) -> str:
    folder, _, base = path.rpartition("/")
    name, entry = files.lookup(folder.encode(errors="surrogateescape") or b".")
    if getattr(files, "is_ignored", lambda _: False)(path.encode(errors="surrogateescape")):
        return ": .dockerignore excludes it"
    if entry is None or entry.kind != "dir":
        return ""
    return did_you_mean(base, [child.base.decode(errors="replace") for child in files.children(name)])


def _glob(files: Files, pattern: str, *, deep: bool) -> list[str]:
    """Return the paths that match, component by component; "*" never crosses a "/".

    deep: whether a component "**" stands for any number of directories, none included, as with --parents.
    """
    found = [""]
    for part in pattern.split("/"):
        if part == "**" and deep:
            found = [below for folder in found for below in _folders(files, folder)]
            continue
        if part == ".":  # the pivot: it stays in the path, whose parts before it are then left out
            found = [f"{folder}/." for folder in found]
            continue
        deeper: list[str] = []
        for folder in found:
            for base, _ in _listed(files, folder):
                if base == part or match(part, base):
                    deeper.append(f"{folder}/{base}" if folder else base)
        found = deeper
    return list(dict.fromkeys(path for path in found if path))


def _listed(files: Files, folder: str) -> list[tuple[str, Kind]]:
    """Return name and kind of what is in a directory; nothing for what is none.

    A directory that is ignored is in it when something below it is not.
    """
    name, entry = files.lookup(posixpath.normpath(folder).encode(errors="surrogateescape"))
    if entry is None or entry.kind != "dir":
        return []
    return [
        (child.base.decode(errors="surrogateescape"), child.kind)
        for child in files.children(name)
        if not child.excluded or files.lookup(child.base if name == b"." else name + b"/" + child.base)[1] is not None
    ]


def _folders(files: Files, folder: str) -> list[str]:
    """Return a directory and all directories below it, no symlink followed."""
    found, waiting = [], [folder]
    while waiting:
        at = waiting.pop()
        found.append(at)
        below = [base for base, kind in _listed(files, at) if kind == "dir"]
        waiting += [f"{at}/{base}" if at else base for base in reversed(below)]
    return found
