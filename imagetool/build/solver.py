"""Carry out a Dockerfile: stage by stage, instruction by instruction, from the cache where it can.

`solve` is the whole of it. What an instruction does to files is in `steps`, to the
configuration in `state`; this module decides the order, what variables are in force, and what
is written into the image's history.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from imagetool.build import graph as graphs
from imagetool.build import steps
from imagetool.build.cache import key_of
from imagetool.build.entitlements import Entitlements, check_entitled
from imagetool.build.explain import reason
from imagetool.build.files import FolderSource, Trees
from imagetool.build.finish import Finish, finished_image
from imagetool.build.graph import Graph, PlannedStage
from imagetool.build.inputs import Inputs, Made
from imagetool.build.schedule import Schedule
from imagetool.build.secrets import Secrets
from imagetool.build.state import StageState, declare, scratch_state
from imagetool.build.worker import Worker
from imagetool.dockerfile import (
    Arg,
    Dockerfile,
    From,
    IgnoreRules,
    Instruction,
    Run,
    expand_instruction,
    parse_trigger,
)
from imagetool.dockerfile.wording import did_you_mean, printable
from imagetool.errors import BuildError, DockerfileError, ImagetoolError, InvalidReference, UsageError
from imagetool.image.image import Image, Layer
from imagetool.oci.platform import Platform
from imagetool.progress import BuildPlanned, Note, Observer, StepAborted, StepFinished, StepStarted, silent
from imagetool.values import dataclass, field, replace

#: Steps wait more than they compute: for the network, for a lock, for a disk.
_LEAST_JOBS: Final = 4
#: What the parser warns of and the lint tells, unless it is told not to.
_OF_LINT: Final = ("NoEmptyContinuation",)


def default_jobs() -> int:
    """Return how many steps are done at once when nobody says: one for each processor, but at least four."""
    return max(os.cpu_count() or 1, _LEAST_JOBS)


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    context: the directory that COPY takes files from.
    ignore: what of it is not there (.dockerignore).
    host: the platform the build runs on.
    named: directories, or names of images, that --build-context gives; the keys are in lower case.
    uncached: labels of stages that are not taken from the cache.
    explain: tell of each step whether the cache had it, and if not, why.
    entitlements: what steps may have beyond the usual.
    keeps: whether what a failing RUN leaves goes with its error.
    jobs: how many steps, of stages that do not wait for each other, are done at once.
    """

    dockerfile: Dockerfile
    context: Path
    ignore: IgnoreRules = field(default_factory=IgnoreRules)
    build_args: Mapping[str, str] = field(default_factory=dict)
    finish: Finish = field(default_factory=Finish)
    target: str | None = None
    platform: Platform = field(default_factory=Platform)
    host: Platform = field(default_factory=Platform)
    use_cache: bool = True
    network: str = "default"
    uncached: frozenset[str] = frozenset()
    explain: bool = False
    named: Mapping[str, FolderSource | str] = field(default_factory=dict)
    jobs: int = field(default_factory=default_jobs)
    secrets: Secrets = field(default_factory=Secrets)
    entitlements: Entitlements = field(default_factory=Entitlements)
    keeps: bool = False


def solve(request: BuildRequest, worker: Worker, *, observer: Observer = silent) -> Image:
    """Build an image and return it; its config, manifest and layers are in the worker's store, without a name.

    Raises DockerfileError and StepFailed with the place in the Dockerfile, and whatever base
    images, files and the store make go wrong.
    """
    for warning in request.dockerfile.warnings:
        if warning.rule in _OF_LINT:
            continue
        observer(Note(f"{request.dockerfile.file}:{warning.line}: {warning.message}", "warning"))
    if unused := graphs.unused_args(request.dockerfile, request.build_args):
        declared = graphs.declared_args(request.dockerfile)
        named = ", ".join(f"{name}{did_you_mean(name, declared)}" for name in unused)
        observer(Note(f"build arguments that no ARG declares: {named}", "warning"))
    _check_syntax(request.dockerfile, request.build_args)
    graph = graphs.plan(
        request.dockerfile,
        build_args=request.build_args,
        target=request.target,
        platform=request.platform,
        host=request.host,
        named=frozenset(request.named),
    )
    labels = [planned.label for planned in graph.stages]
    if unknown := sorted(request.uncached - set(labels)):
        raise UsageError(f"--no-cache-filter: no stage is named {unknown[0]!r}{did_you_mean(unknown[0], labels)}")
    _check_entitlements(graph, request.entitlements)
    observer(BuildPlanned(str(request.platform), graph.steps, tuple(graphs.planned_steps(graph))))
    return _Build(request, graph, worker, observer).image(graph.target)


def _check_syntax(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> None:
    """Refuse a file whose author says that it is not in the language of Dockerfiles; a frontend is never fetched."""
    name = build_args.get(graphs.SYNTAX_ARG) or dockerfile.directives.syntax or ""
    name = name.partition(" ")[0]
    if name and not name.partition("@")[0].rpartition("/")[2].startswith("dockerfile"):
        raise UsageError(
            f"{dockerfile.file}: syntax={printable(name)} is another language, and the program that reads it is not "
            "fetched: without that directive the file is read as a Dockerfile"
        )


def _check_entitlements(graph: Graph, entitlements: Entitlements) -> None:
    """Refuse what is not allowed before anything is pulled or run."""
    for number in graph.needed:
        for instruction in graph.stages[number].stage.instructions:
            if isinstance(instruction, Run):
                try:
                    check_entitled(instruction, entitlements)
                except DockerfileError as error:
                    raise instruction.source.placed(error) from None


class _Build:
    """One run of `solve`: what its stages share. Stages are carried out in threads; see `schedule`."""

    def __init__(self, request: BuildRequest, graph: Graph, worker: Worker, observer: Observer) -> None:
        self._request = request
        self._graph = graph
        self._worker = worker
        self._observer = observer
        self._schedule: Schedule[StageState] = Schedule(self._run_stage, jobs=request.jobs, stop=worker.stop)
        self._trees = Trees(worker.store)
        self._known = worker.known(request.context) if worker.known else None
        self._lock = threading.Lock()
        self._images: dict[tuple[str, str], Image] = {}
        self._pulling: dict[tuple[str, str], threading.Lock] = {}
        self._done: dict[int, list[bool]] = {}  # by stage: which of its steps are as they were

    def image(self, number: int) -> Image:
        """Build a stage, and those it needs, and write it as an image."""
        others = [needed for needed in self._graph.needed if needed != number]
        state = self._schedule.run(number, others)
        if self._known:
            self._known.save()
        secrets = self._request.secrets
        secrets.refuse_in((entry.created_by for entry in state.history), "its history")
        secrets.refuse_in([str(state.run.tree())], "its configuration")
        return finished_image(state, self._request.finish, self._trees, self._worker)

    def source(self, name: str, planned: PlannedStage, at: Instruction) -> tuple[Layer, ...] | FolderSource:
        """Return what `--from=name` means; a stage of that name has been waited for."""
        given = self._request.named.get(name.lower())
        if isinstance(given, FolderSource):
            return given
        if given is not None:
            return self._image(given, planned.platform).layers
        index = graphs.source_stage(self._graph.stages, name, planned.number, at, named=self._graph.named)
        if index is not None:
            return self._schedule.result(index).layers
        try:
            return self._image(name, planned.platform).layers
        except ImagetoolError as error:
            stages = [stage.stage.name or "" for stage in self._graph.stages[: planned.number]]
            if hint := did_you_mean(name, stages):
                error.add_note(f"no stage before this one is named {name!r}{hint}")
            raise

    def _image(self, name: str, platform: Platform) -> Image:
        """Return an image, pulled once however many stages name it."""
        key = name, str(platform)
        with self._lock:
            pulling = self._pulling.setdefault(key, threading.Lock())
        with pulling:
            if key not in self._images:
                self._images[key] = self._worker.base(name, platform)
            return self._images[key]

    def _run_stage(self, number: int) -> StageState:
        planned = self._graph.stages[number]
        first = self._graph.first_step(number)
        state = self._step(planned, planned.stage.base, first, lambda: (self._base(planned), None))
        if state.run.on_build:
            triggers, state = state.run.on_build, replace(state, run=replace(state.run, on_build=()))
            start = (
                first + 1 if isinstance(planned.base, int) else self._graph.steps + 1 + self._triggers_before(number)
            )
            for at, text in enumerate(triggers, start):
                instruction = parse_trigger(text, file=f"ONBUILD of {planned.base}")
                state = self._carry_out(planned, state, instruction, at)
        start = first + 1 + self._graph.triggers(planned)
        for at, instruction in enumerate(planned.stage.instructions, start):
            state = self._carry_out(planned, state, instruction, at)
        return state

    def _triggers_before(self, number: int) -> int:
        """Return how many triggers the base images of earlier stages have: their steps are counted first.

        They are pulled for that, as they will be anyway; what goes wrong is told by the stage that it is of.
        """
        count = 0
        for before in self._graph.needed:
            planned = self._graph.stages[before]
            if before < number and isinstance(planned.base, str) and planned.base != graphs.SCRATCH:
                given = self._request.named.get(planned.base.lower(), planned.base)
                with contextlib.suppress(ImagetoolError):
                    if isinstance(given, str):
                        count += len(self._image(given, planned.platform).config.run.on_build)
        return count

    def _base(self, planned: PlannedStage) -> StageState:
        if isinstance(planned.base, int):
            base = self._schedule.result(planned.base)
            return replace(base, cmd_set=False)
        if planned.base == graphs.SCRATCH:
            return scratch_state(planned.platform)
        given = self._request.named.get(planned.base.lower(), planned.base)
        if isinstance(given, FolderSource):
            text = f"FROM {planned.base}: that build context is a directory, not an image; COPY --from takes it"
            raise planned.stage.base.source.error(text)
        image = self._image(given, planned.platform)
        if not planned.platform.runs(image.config.platform):
            text = f"{planned.base} is an image for {image.config.platform}, not for {planned.platform}"
            self._observer(Note(text, "warning"))
        return steps.base_state(image)

    def _carry_out(self, planned: PlannedStage, state: StageState, instruction: Instruction, number: int) -> StageState:
        def action() -> tuple[StageState, Made | None]:
            return self._do(planned, state, instruction, number)

        return self._step(planned, instruction, number, action, before=state)

    def _step(
        self,
        planned: PlannedStage,
        instruction: Instruction,
        number: int,
        action: Callable[[], tuple[StageState, Made | None]],
        *,
        before: StageState | None = None,
    ) -> StageState:
        """Do one instruction when the stages it needs are there, between its two events.

        `action` returns the state after it, and what was made. Errors without a place get this one.
        """
        for needed in graphs.needs_of(instruction, planned, self._graph):
            self._schedule.result(needed)
        with self._schedule.turn():
            name = graphs.step_name(instruction)
            self._observer(StepStarted(number, max(self._graph.steps, number), name, planned.label))
            started = time.monotonic()
            try:
                state, made = self._placed(instruction, name, action)
            except BaseException as error:  # whatever it is, the step is over
                why = str(error) if isinstance(error, ImagetoolError) and not self._schedule.failed else ""
                self._observer(StepAborted(number, why, time.monotonic() - started))
                raise
            spent = time.monotonic() - started
            layer = state.layers[-1].descriptor if before and len(state.layers) > len(before.layers) else None
            digest, size = (str(layer.digest), layer.size) if layer else ("", 0)
            self._observer(
                StepFinished(number, bool(made and made.cached), digest, spent, size, made.key if made else "")
            )
        return state

    @staticmethod
    def _placed(
        instruction: Instruction, name: str, action: Callable[[], tuple[StageState, Made | None]]
    ) -> tuple[StageState, Made | None]:
        try:
            return action()
        except DockerfileError as error:
            raise instruction.source.placed(error) from error.__cause__
        except InvalidReference as error:
            raise instruction.source.error(str(error)) from error
        except BuildError as error:
            if instruction.source.first_line:
                error.add_note(instruction.source.error("", about=error.about).excerpt)
                error.add_note(f"at {instruction.source.file}:{instruction.source.first_line}")
            raise
        except ImagetoolError as error:
            error.add_note(
                f"at {instruction.source.file}:{instruction.source.first_line}: {name.partition(chr(10))[0]}"
            )
            raise

    def _do(
        self, planned: PlannedStage, state: StageState, written: Instruction, number: int
    ) -> tuple[StageState, Made | None]:
        escape = self._request.dockerfile.directives.escape
        if isinstance(written, Arg):
            return self._declare(state, written, escape), None
        instruction = expand_instruction(written, state.variables, escape)
        if isinstance(instruction, From):
            raise instruction.source.error("FROM cannot stand here")
        inputs = self._inputs(planned, state, number)
        text = f"{type(instruction).__name__.upper()} {written.source.text.partition(' ')[2].strip()}".strip()
        state, made = steps.carry_out(inputs, instruction, text)
        if made is not None:
            self._remember(planned, written, inputs, cached=made.cached)
        return state, made

    def _remember(self, planned: PlannedStage, written: Instruction, inputs: Inputs, *, cached: bool) -> None:
        """Keep what a step's key was made of, so that the next build can tell why it is another; tell it now."""
        done = self._done.setdefault(planned.number, [])
        slot = "explained-" + key_of(
            explained=[written.source.file, str(self._request.context), planned.label, len(done)]
        )
        before = self._worker.cache.facts(slot)
        now = json.loads(self._request.secrets.redacted(json.dumps(inputs.asked, ensure_ascii=False)))
        if self._request.explain:
            text = f"cache: HIT  {written.source.text.partition(chr(10))[0]}"
            if not cached:
                why = reason(before, now, base=all(done)) if inputs.use_cache else "the cache is not to be used"
                text = f"cache: MISS {written.source.text.partition(chr(10))[0]}: {why}"
            self._observer(Note(text))
        now.pop("changed", None)
        done.append(cached and now == before)
        if now != before:
            self._worker.cache.record_facts(slot, now)

    def _declare(self, state: StageState, written: Arg, escape: str) -> StageState:
        predefined = graphs.platform_args(self._request.platform, self._request.host, self._request.target)
        inherited = {**predefined, **self._graph.global_args}
        for pair in written.pairs:
            single = Arg(pairs=(pair,), source=written.source)
            expanded = expand_instruction(single, state.variables, escape)
            state = declare(state, expanded, build_args=self._request.build_args, inherited=inherited)
        text = f"ARG {written.source.text.partition(' ')[2].strip()}"
        return state.with_history(self._worker.times.created, text)

    def _inputs(self, planned: PlannedStage, state: StageState, number: int) -> Inputs:
        return Inputs(
            worker=self._worker,
            state=state,
            number=number,
            context=self._request.context,
            ignore=self._request.ignore,
            build_args=self._request.build_args,
            use_cache=self._request.use_cache and planned.label not in self._request.uncached,
            network=self._request.network,
            source=lambda name, at: self.source(name, planned, at),
            trees=self._trees,
            observer=self._observer,
            secrets=self._request.secrets,
            entitlements=self._request.entitlements,
            known=self._known,
            keeps=self._request.keeps,
        )
