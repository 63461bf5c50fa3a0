"""COPY and ADD of files: which paths are taken, and what they are called in the layer.

Source: Dockerfile reference, "COPY"; where builders differ, docs/reference/dockerfile.md says
what we do.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Protocol

from imagetool.build.chmod import Chmod
from imagetool.build.files import Files, Taken, TakenFiles, dressed
from imagetool.build.filestates import Fingerprint
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.sources import find_sources
from imagetool.dockerfile.ignore import IgnoreMatch, IgnoreRules
from imagetool.errors import BuildError
from imagetool.layer.entry import Entry, Item, Kind, display, parents
from imagetool.layer.whiteout import is_reserved
from imagetool.values import dataclass, field

Owner = tuple[int, int]


class Base(Protocol):
    """The root filesystem below the new layer, as far as COPY asks about it."""

    def kind(self, path: bytes, *, follow: bool) -> tuple[bytes, Kind | None]:
        """Resolve a path; return the name it comes down to and what is there, None for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """One COPY, everything expanded and resolved.

    dest: absolute path as written (a trailing "/" matters), already joined to WORKDIR.
    owner: for everything that is new; None keeps what the source says.
    time: of directories that are made on the way, nanoseconds.
    texts: heredocs as (file name, content).
    skip: paths that the sources stand for and that are left out all the same: ADD unpacks them.
    """

    sources: tuple[str, ...]
    dest: str
    owner: Owner | None = None
    chmod: Chmod | None = None
    parents: bool = False
    exclude: IgnoreRules = field(default_factory=IgnoreRules)
    time: int = 0
    texts: tuple[tuple[str, bytes], ...] = ()
    skip: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Plan:
    request: CopyRequest
    base: Base
    source: int = 0  # the number of the one that is taken
    taken: list[Taken | TakenFiles] = field(default_factory=list)
    names: set[bytes] = field(default_factory=set)  # of what was taken by itself
    filled: dict[bytes, int] = field(default_factory=dict)  # directories, and which source first put something there
    contested: set[bytes] = field(default_factory=set)  # directories that several sources put something into
    made: dict[bytes, Entry] = field(default_factory=dict)
    new: set[bytes] = field(default_factory=set)  # directories that the root below does not have
    present: set[bytes] = field(default_factory=lambda: {b""})  # directories that need not be made any more
    texts: dict[bytes, Item] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What a COPY puts into the layer: directories to make, paths that were taken, and heredocs."""

    made: list[Entry]
    taken: list[Taken | TakenFiles]
    texts: list[Item]

    def items(self, files: Files) -> Iterator[Item]:
        """Yield the entries of the layer.

        Directories that the copy needs and the root filesystem below it does not have come first,
        parents before children; then what was taken.
        """
        for entry in self.made:
            yield entry, ()
        yield from files.stream(self.taken)
        yield from self.texts

    def seen_items(self, files: FolderFiles, seen: Fingerprint) -> Iterator[Item]:
        """Yield the entries of the layer; after that, `seen` is what `fingerprint` would give."""
        self._begin(files, seen)
        for entry in self.made:
            yield entry, ()
        yield from files.stream(self.taken, seen)
        yield from self.texts

    def fingerprint(self, files: FolderFiles) -> Fingerprint:
        """Return what tells the layer's content from what `stat` says of the files; none of them is read."""
        seen = Fingerprint()
        self._begin(files, seen)
        files.fingerprint(self.taken, seen)
        return seen

    def _begin(self, files: FolderFiles, seen: Fingerprint) -> None:
        seen.times(*files.times_given)
        for entry in self.made:
            seen.entry(entry)
        for entry, chunks in self.texts:
            seen.entry(entry, b"".join(chunks))

    def sources(self) -> Iterator[bytes]:
        """Yield the name of each path that was taken."""
        for item in self.taken:
            if isinstance(item, Taken):
                yield item.source
            else:
                yield from (source for source, _ in item.names())


def copy_items(request: CopyRequest, files: Files, base: Base) -> Iterator[Item]:
    """Yield the entries of the layer a COPY makes; see `plan_copy`."""
    yield from plan_copy(request, files, base).items(files)


def plan_copy(request: CopyRequest, files: Files, base: Base) -> CopyPlan:
    """Find out what a COPY takes and what it is called in the layer; no content is read.

    Raises BuildError for a source that is missing and for a destination that cannot be.
    """
    _check_length(request.dest)
    names = find_sources(request.sources, files, parents=request.parents, needed=not request.texts)
    plan = _Plan(request, base)
    many = len(names) + len(request.texts) > 1
    into = many or request.dest.endswith(("/", "/.")) or request.dest in ("", ".", "/")
    dest, there = base.kind(request.dest.encode(errors="surrogateescape"), follow=True)
    is_folder = into or there == "dir"
    if there not in (None, "dir") and into:
        raise BuildError(f"cannot copy to {request.dest!r}: it is not a directory", about=request.dest)
    for plan.source, name in enumerate(names):
        if name not in request.skip:
            _take(plan, files, name, dest, is_folder)
    for text_name, content in request.texts:
        _take_text(plan, text_name, content, dest, is_folder)
    return CopyPlan([plan.made[name] for name in sorted(plan.made)], _settled(plan), [*plan.texts.values()])


def _check_length(path: str) -> None:
    """Refuse a destination that no Linux can have: NAME_MAX bytes in a name, PATH_MAX in all."""
    raw = path.encode(errors="surrogateescape")
    if len(raw) >= 4096 or max(map(len, raw.split(b"/"))) > 255:
        raise BuildError(f"cannot copy to {path[:60]!r}…: the name is too long for a file system", about=path)


def _take(plan: _Plan, files: Files, source: str, dest: bytes, is_folder: bool) -> None:
    request = plan.request
    kept = ""
    if request.parents:
        kept = posixpath.dirname(source.partition("/./")[2] or source)
        source = posixpath.normpath(source)
    written = source.encode(errors="surrogateescape")
    name, entry = files.lookup(written)
    if entry is None:
        raise BuildError(f"{source!r} not found", about=source)
    below = _join(dest, kept.encode(errors="surrogateescape"))
    if kept:
        _take_parents(plan, files, written, kept, dest)
    base = posixpath.basename(source).encode(errors="surrogateescape")
    if entry.kind == "dir":
        target = _join(below, base) if request.parents else dest
        _need_folder(plan, target)
        _take_folder(plan, files, name, target)
    else:
        if request.exclude.excludes(base.decode(errors="surrogateescape")):
            return
        target = _join(below, base) if is_folder or kept else dest
        _put(plan, Taken(name, dressed(entry, target, request.owner, request.chmod)))


def _take_parents(plan: _Plan, files: Files, source: bytes, kept: str, dest: bytes) -> None:
    """With --parents, the directories above a source come along with their own attributes."""
    request = plan.request
    lead = source[: len(source) - len(posixpath.basename(source)) - 1]
    depth = kept.count("/") + 1
    for level in range(depth, 0, -1):
        folder = lead
        for _ in range(level - 1):
            folder = folder.rpartition(b"/")[0]
        name, entry = files.lookup(folder)
        target = _join(dest, b"/".join(kept.encode(errors="surrogateescape").split(b"/")[: depth - level + 1]))
        if entry is not None:
            _put(plan, Taken(name, dressed(entry, target, request.owner, request.chmod)))


def _take_folder(plan: _Plan, files: Files, folder: bytes, dest: bytes) -> None:
    """Take all that is in a directory; symlinks in it stay symlinks."""
    waiting = [(folder, dest, "", IgnoreMatch())]
    first_names: dict[object, bytes] = {}
    request = plan.request
    exclude = request.exclude
    while waiting:
        source, target, relative, above = waiting.pop()
        deeper: list[tuple[bytes, bytes, str, IgnoreMatch]] = []
        bases: list[bytes] = []  # of regular files that follow one another
        for child in files.children(source):
            below, found = "", above
            if exclude.rules:
                below = relative + child.base.decode(errors="surrogateescape")
                found = exclude.match(below, above)
            wanted = _join(target, child.base)
            if child.kind == "dir" and not exclude.prunes(below, found):
                deeper.append((_join(source, child.base), wanted, below + "/", found))
            if found.excluded or child.excluded:
                continue
            if child.entry is not None:
                taken = Taken(_join(source, child.base), dressed(child.entry, wanted, request.owner, request.chmod))
                _put(plan, _linked(taken, child.inode, first_names))
                bases = []
                continue
            if not bases:
                _enter(plan, wanted, target)
            _check_target(plan, wanted, child.kind)
            if not bases:
                plan.taken.append(TakenFiles(source, target, bases, plan.source, request.owner, request.chmod))
            bases.append(child.base)
        waiting += reversed(deeper)


def _linked(taken: Taken, inode: object, first_names: dict[object, bytes]) -> Taken:
    """Make every name of a file but the first a hard link to that."""
    if inode is None or taken.entry.kind == "dir":
        return taken
    first = first_names.setdefault(inode, taken.entry.name)
    if first == taken.entry.name:
        return taken
    return taken._replace(entry=taken.entry._replace(kind="link", linkname=first, size=0))


def _take_text(plan: _Plan, name: str, content: bytes, dest: bytes, is_folder: bool) -> None:
    target = _join(dest, name.encode()) if is_folder else dest
    owner = plan.request.owner or (0, 0)
    entry = Entry(target, "file", 0o644, *owner, len(content), plan.request.time)
    if plan.request.chmod is not None:
        entry = entry._replace(mode=plan.request.chmod.apply(entry.mode, is_folder=False))
    _need_parents(plan, target)
    _check_target(plan, target, entry.kind)
    plan.texts[target] = entry, (content,) if content else ()


def _join(folder: bytes, name: bytes) -> bytes:
    if not name or name == b".":
        return folder
    return name if folder == b"." else folder + b"/" + name


def _put(plan: _Plan, taken: Taken) -> None:
    name = taken.entry.name
    if name == b".":
        return
    _enter(plan, name, name.rpartition(b"/")[0] or b".")
    _check_target(plan, name, taken.entry.kind)
    if taken.entry.kind == "dir" and _is_new(plan, name):
        plan.new.add(name)
    if taken.entry.kind == "dir":
        plan.present.add(name)
    plan.taken.append(taken)
    plan.names.add(name)
    plan.made.pop(name, None)


def _enter(plan: _Plan, name: bytes, folder: bytes) -> None:
    """Make the directories above a path, and note which source puts something into the one that it is in."""
    _need_parents(plan, name)
    if plan.filled.setdefault(folder, plan.source) != plan.source:
        plan.contested.add(folder)


def _settled(plan: _Plan) -> list[Taken | TakenFiles]:
    """Return what was taken: what a later source puts in an earlier one's place stands there instead."""
    settled: dict[bytes, Taken | TakenFiles] = {}
    for item in plan.taken:
        if isinstance(item, Taken):
            settled[item.entry.name] = item
        elif item.target in plan.contested:
            settled |= {_join(item.target, base): item._replace(bases=[base]) for base in item.bases}
        else:
            settled[_join(item.target, item.bases[0])] = item
    return list(settled.values())


def _check_target(plan: _Plan, name: bytes, kind: Kind) -> None:
    if is_reserved(name):
        raise BuildError(f"cannot copy {display(name)}: names that begin with .wh. mean a deletion in a layer")
    if name.rpartition(b"/")[0] in plan.new:
        return  # below a directory that is new, nothing can be in the way
    _, there = plan.base.kind(name, follow=False)
    if there is not None and there != "dir" and kind == "dir":
        raise BuildError(f"cannot copy a directory to {display(name)}: a {there} is there", about=plan.request.dest)
    if there == "dir" and kind != "dir":
        raise BuildError(f"cannot copy a file to {display(name)}: a directory is there")


def _is_new(plan: _Plan, name: bytes) -> bool:
    return name.rpartition(b"/")[0] in plan.new or plan.base.kind(name, follow=False)[1] is None


def _need_parents(plan: _Plan, name: bytes) -> None:
    if name.rpartition(b"/")[0] not in plan.present:
        for above in parents(name):
            _need_folder(plan, above)


def _need_folder(plan: _Plan, name: bytes) -> None:
    """Make a directory of the destination unless it is there already."""
    if name in plan.present:
        return
    plan.present.add(name)
    if name == b"." or name in plan.names:
        return
    there = plan.base.kind(name, follow=False)[1]
    if there == "dir":
        return
    if there is not None:
        raise BuildError(f"cannot copy below {display(name)}: a {there} is there", about=plan.request.dest)
    for above in parents(name):
        _need_folder(plan, above)
    uid, gid = plan.request.owner or (0, 0)
    mode = plan.request.chmod.apply(0o755, is_folder=True) if plan.request.chmod else 0o755
    plan.new.add(name)
    plan.made[name] = Entry(name, "dir", mode, uid, gid, 0, plan.request.time)
