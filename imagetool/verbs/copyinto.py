"""`copy` and `add` for working containers: COPY and ADD by hand, of paths anywhere on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagetool import limits
from imagetool.build import steps
from imagetool.build.copystep import copy_history
from imagetool.content.staging import open_stored
from imagetool.dockerfile import Add, Copy, IgnoreRules, is_remote
from imagetool.errors import NotFound, StorageError, UsageError
from imagetool.values import dataclass, replace
from imagetool.verbs.bench import at_bench
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Copying:
    """What to copy into a container and how; see `imagetool copy --help`.

    sources: paths of the host, or below `context` where that is given; URLs. dest: "" for the working directory.
    add: whether local archives are unpacked.
    """

    sources: Sequence[str]
    dest: str = ""
    add: bool = False
    from_: str | None = None
    chown: str | None = None
    chmod: str | None = None
    exclude: Sequence[str] = ()
    parents: bool = False
    link: bool = False
    checksum: str | None = None
    keep_git_dir: bool = False
    unpack: bool | None = None
    context: str | None = None
    ignorefile: str | None = None


def copy_into(name: str, copying: Copying, place: Workplace) -> str:
    """Copy files into a container, as COPY and ADD do; return the new layer's digest, "" when it made none."""
    context, ignore = _context(copying)
    written = _instruction(copying, copying.sources)
    sources = copying.sources
    if copying.from_ is None and copying.context is None:
        sources = [source if is_remote(source) else _absolute(source) for source in sources]
    with at_bench(name, place, BuildOptions()) as bench, place.store.session():
        inputs = bench.inputs(context=context, ignore=ignore, use_cache=True)
        before = len(inputs.state.layers)
        state, _ = steps.carry_out(inputs, _instruction(copying, sources), "")
        # History says what was written, not where on this machine that was.
        line = copy_history("ADD" if copying.add else "COPY", written)
        last = replace(state.history[-1], created_by=line)
        bench.held.save(state=replace(state, history=(*state.history[:-1], last)))
        return str(state.layers[-1].descriptor.digest) if len(state.layers) > before else ""


def _absolute(source: str) -> str:
    """Return a path of the host in full; what a trailing slash says is kept."""
    path = os.path.abspath(source)
    return f"{path}/" if source.endswith("/") and path != "/" else path


def _context(copying: Copying) -> tuple[Path, IgnoreRules]:
    if copying.context is None:
        if copying.ignorefile is not None:
            raise UsageError("--ignorefile: its rules are about a directory; name that with --contextdir")
        return Path("/"), IgnoreRules()
    context = Path(copying.context).absolute()
    if not context.is_dir():
        raise NotFound(f"--contextdir {copying.context}: there is no such directory")
    return context, _rules(context, copying.ignorefile)


def _rules(context: Path, ignorefile: str | None) -> IgnoreRules:
    from imagetool.build.contexts import folder_ignore

    if ignorefile is None:
        return folder_ignore(context)
    try:
        with open_stored(Path(ignorefile)) as file:
            raw = file.read(limits.DOCKERFILE_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"--ignorefile {ignorefile}: there is no such file") from None
    except OSError as error:
        raise StorageError(f"cannot read {ignorefile}: {error.strerror}") from error
    return IgnoreRules.parse(raw, file=ignorefile)


def _instruction(copying: Copying, sources: Sequence[str]) -> Copy | Add:
    dest = copying.dest or "./"
    how: dict[str, Any] = {"chown": copying.chown, "chmod": copying.chmod, "exclude": tuple(copying.exclude)}
    remote = any(is_remote(source) for source in sources)
    if copying.from_ is None and (copying.add or remote):
        return Add(
            sources=tuple(sources),
            dest=dest,
            link=copying.link,
            checksum=copying.checksum,
            keep_git_dir=copying.keep_git_dir or None,
            unpack=copying.unpack if copying.add else False,
            **how,
        )
    return Copy(
        sources=tuple(sources), dest=dest, from_=copying.from_, link=copying.link, parents=copying.parents, **how
    )
