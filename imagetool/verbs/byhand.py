"""`run` in a working container: a command as a RUN step is one, whose changes stay however it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagetool.build.files import FolderSource
from imagetool.build.run import HOSTNAME, StepCommand, commit_step, step_container
from imagetool.build.state import StageState, run_environment, run_history
from imagetool.dockerfile import ExecForm, Instruction, Run, RunMount
from imagetool.dockerfile.mounts import parse_mount
from imagetool.errors import DockerfileError, NotFound, UsageError
from imagetool.image.image import Layer
from imagetool.runtime.rootfs import Overlay
from imagetool.runtime.spec import Mount
from imagetool.values import dataclass, field, replace
from imagetool.verbs.bench import Bench, at_bench
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.kept import with_kept
from imagetool.verbs.run import RunOptions
from imagetool.verbs.volumes import shown
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.runtime.executors import ExitStatus, Output
    from imagetool.runtime.session import Session
    from imagetool.snapshot.overlay import Workspace


@dataclass(frozen=True, slots=True)
class HandMounts:
    """What --mount adds: `bound` of the host, and `steps` as a RUN step has them (cache, tmpfs, bind with from)."""

    bound: tuple[Mount, ...] = ()
    steps: tuple[RunMount, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str], *, folder: Path) -> HandMounts:
        """Read --mount options; the source of a bind without `from` is a path of the host. Raises UsageError."""
        bound: list[Mount] = []
        steps: list[RunMount] = []
        for text in texts:
            try:
                mount = parse_mount(text)
            except DockerfileError as error:
                raise UsageError(f"--mount {text[:80]!r}: {error.message}") from None
            if mount.type in ("secret", "ssh"):
                raise UsageError(f"--mount {text[:80]!r}: secrets and agents are for builds; bind a file instead")
            if mount.type == "bind" and mount.from_ is None:
                bound.append(_bound(mount, text, folder))
            else:
                steps.append(mount)
        return cls(tuple(bound), tuple(steps))


def _bound(mount: RunMount, text: str, folder: Path) -> Mount:
    if not mount.source or not (mount.target or "").startswith("/"):
        raise UsageError(f"--mount {text[:80]!r}: write type=bind,source=PATH,target=/PATH[,rw]")
    source = os.path.abspath(folder / mount.source)
    if not os.path.exists(source):
        raise NotFound(f"--mount {text[:80]!r}: {source} is not there")
    return Mount(mount.target or "", "bind", source, ("rbind", "ro" if mount.readonly else "rw"))


@dataclass(frozen=True, slots=True)
class HandRun:
    """How to run a command in a working container: as `run` does, and with further mounts and variables.

    script: path and text of a program that the container gets for the time. sources: what mounts mean by `from`,
    before containers and images of that name. context: what binds without `from` are of. kept: begin with the options
    that the container keeps; False for options that say all.
    """

    options: RunOptions
    mounts: HandMounts = field(default_factory=HandMounts)
    variables: Mapping[str, str] = field(default_factory=dict)
    script: tuple[str, str] | None = None
    sources: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    context: FolderSource | None = None
    kept: bool = True


def run_in(name: str, wanted: HandRun, place: Workplace, *, output: Output, session: Session | None) -> ExitStatus:
    """Run a command in a working container; return how it ended.

    What `from` and `config` said of its runs holds where `wanted` says nothing else; see `kept.with_kept`.
    What it changed becomes a layer of the container, whatever its exit code: only when imagetool itself
    is killed is nothing of it kept. A command that changed nothing leaves the container as it was.
    """
    options = wanted.options
    if wanted.kept:
        runs = place.containers.read(place.containers.named(name)).runs
        options = with_kept(options, runs) if runs else options
        wanted = replace(wanted, options=options)
    for volume in options.volumes:
        if not volume.source.exists():
            raise NotFound(f"--volume: {volume.source} is not there")
    how = BuildOptions(
        isolation=options.isolation,
        runtime=options.runtime,
        network_fallback=options.network_fallback,
        sandbox=options.sandbox,
    )
    with at_bench(name, place, how, root=True) as bench:
        return _run(bench, wanted, output, session)


def _run(bench: Bench, wanted: HandRun, output: Output, session: Session | None) -> ExitStatus:
    options, state = wanted.options, bench.held.record.state
    argv = (*(options.wishes.entrypoint or ()), *(options.wishes.args or ()))
    instruction = Run(command=ExecForm(argv), mounts=wanted.mounts.steps, network=options.network)
    inputs = bench.inputs(state=_as_wished(state, options), source=_source(bench, wanted))
    if wanted.context is not None:
        inputs = replace(inputs, context=wanted.context.folder, ignore=wanted.context.ignore)
    environment = run_environment(inputs.state, wanted.variables)
    environment |= {**wanted.variables, "SOURCE_DATE_EPOCH": str(bench.worker.times.epoch)}
    if options.terminal:
        environment.setdefault("TERM", "xterm")
    command = StepCommand(
        argv,
        wanted.script,
        environment | dict(options.wishes.env),
        options.network,
        mounts=(*wanted.mounts.bound, *shown(options.tmpfs, options.volumes)),
        terminal=options.terminal,
        hostname=options.hostname or HOSTNAME,
    )
    with step_container(inputs, instruction, command) as (spec, workspace):
        root = Overlay(workspace.lowers, workspace.upper, workspace.work, userxattr=bench.worker.user_namespace)
        before = _marks(workspace)
        status = bench.worker.executor().run(spec, root, output=output, session=session)
        if _marks(workspace) != before:
            keep(bench, workspace, run_history(state, argv))
    return status


def _source(bench: Bench, wanted: HandRun) -> Callable[[str, Instruction], tuple[Layer, ...] | FolderSource]:
    return lambda name, at: wanted.sources[name] if name in wanted.sources else bench.source(name, at)


def keep(bench: Bench, workspace: Workspace, line: str) -> None:
    """Make what was changed in a workspace a layer of the container."""
    with bench.place.store.session():
        layer = commit_step(bench.inputs(), workspace)
        state = bench.held.record.state.with_history(bench.worker.times.created, line, layer=layer)
        bench.held.save(state=state)
    bench.worker.snapshots().adopt(workspace, state.layers)


def _as_wished(state: StageState, options: RunOptions) -> StageState:
    run = state.run
    if options.wishes.user is not None:
        run = replace(run, user=options.wishes.user)
    if options.wishes.cwd is not None:
        run = replace(run, working_dir=state.path(options.wishes.cwd).rstrip("/") or "/")
    return replace(state, run=run)


def _marks(workspace: Workspace) -> tuple[object, ...]:
    """Return what tells that something was changed: what is in the upper directory, and its own attributes."""
    status = os.stat(workspace.upper)
    named = [name for name in os.listxattr(workspace.upper) if ".overlay." not in name]
    return os.listdir(workspace.upper), status.st_mode, status.st_uid, status.st_gid, named
