"""Which stages a build needs, and what each starts from; pure.

Source: Dockerfile reference, "FROM", "ARG", "Understand how ARG and FROM interact".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from imagetool.dockerfile import (
    Add,
    Arg,
    Copy,
    Dockerfile,
    From,
    Instruction,
    Onbuild,
    Run,
    Stage,
    expand_instruction,
)
from imagetool.dockerfile.wording import did_you_mean
from imagetool.errors import DockerfileError, InvalidReference, UsageError
from imagetool.oci.platform import Platform
from imagetool.progress import PlannedStep
from imagetool.values import dataclass

SCRATCH = "scratch"
#: Proxy settings may be given to any build without an ARG; they never reach history or cache keys.
PROXY_ARGS = frozenset(
    name
    for lower in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (lower, lower.upper())
)
#: Arguments that tell the builder something, by BuildKit's names, and need no ARG; other names of its are not known.
HOSTNAME_ARG = "BUILDKIT_SANDBOX_HOSTNAME"
CACHE_MOUNT_ARG = "BUILDKIT_CACHE_MOUNT_NS"
KEEP_GIT_ARG = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
INLINE_CACHE_ARG = "BUILDKIT_INLINE_CACHE"
SYNTAX_ARG = "BUILDKIT_SYNTAX"
BUILDER_ARGS = frozenset(
    (HOSTNAME_ARG, CACHE_MOUNT_ARG, KEEP_GIT_ARG, INLINE_CACHE_ARG, SYNTAX_ARG, "BUILDKIT_DOCKERFILE_CHECK")
)
#: The moment of the build, which --build-arg may say as well as the environment.
EPOCH_ARG = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage with its FROM expanded.

    base: an earlier stage's number, or an image's name, `scratch` included.
    needs: numbers of the stages whose files it uses, its base included.
    """

    number: int
    stage: Stage
    base: int | str
    platform: Platform
    needs: frozenset[int]

    @property
    def label(self) -> str:
        """What people call the stage."""
        return self.stage.name or f"stage-{self.number}"


@dataclass(frozen=True, slots=True)
class Graph:
    """The stages of a build; only those that `target` reaches are in `needed`, in order.

    named: what --build-context names, in lower case; it beats stages and images.
    """

    stages: tuple[PlannedStage, ...]
    target: int
    global_args: Mapping[str, str]
    needed: tuple[int, ...]
    named: frozenset[str] = frozenset()

    @property
    def steps(self) -> int:
        """How many instructions will be carried out, FROMs and triggers of other stages included."""
        return sum(self.length(number) for number in self.needed)

    def length(self, number: int) -> int:
        """Return how many steps a stage has, as far as the Dockerfile tells: its base image may add triggers."""
        planned = self.stages[number]
        return 1 + self.triggers(planned) + len(planned.stage.instructions)

    def triggers(self, planned: PlannedStage) -> int:
        """Return how many ONBUILDs the stage that a stage begins with has left for it."""
        if not isinstance(planned.base, int):
            return 0
        return sum(isinstance(one, Onbuild) for one in self.stages[planned.base].stage.instructions)

    def first_step(self, number: int) -> int:
        """Return the number, from 1, of a stage's FROM among all steps, in the order of the Dockerfile."""
        return 1 + sum(self.length(before) for before in self.needed if before < number)


def plan(
    dockerfile: Dockerfile,
    *,
    build_args: Mapping[str, str],
    target: str | None,
    platform: Platform,
    host: Platform,
    named: frozenset[str] = frozenset(),
) -> Graph:
    """Resolve the stages of a Dockerfile.

    Args:
        target: a stage's name or number; None for the last.
        platform: what is built for, unless a FROM says otherwise.
        host: what the build runs on (BUILDPLATFORM).

    Raises DockerfileError for a FROM that cannot be, UsageError for an unknown target.
    """
    predefined = platform_args(platform, host, target)
    global_args = _global_args(dockerfile, predefined, build_args)
    stages: list[PlannedStage] = []
    for number, stage in enumerate(dockerfile.stages):
        base = expand_instruction(stage.base, {**predefined, **global_args}, dockerfile.directives.escape)
        earlier = None if base.image.lower() in named else find_stage(stages, base.image)
        wanted = _platform(base) if base.platform else platform
        needs = {earlier} if earlier is not None else set()
        for instruction in stage.instructions:
            needs |= _used(instruction, stages, number, named)
        stages.append(PlannedStage(number, stage, base.image if earlier is None else earlier, wanted, frozenset(needs)))
    chosen = _target(stages, target)
    return Graph(tuple(stages), chosen, global_args, tuple(sorted(_reach(stages, chosen))), named)


def _platform(base: From) -> Platform:
    try:
        return Platform.parse(base.platform or "")
    except InvalidReference as error:
        raise base.source.placed(DockerfileError(f"--platform is {error}")) from None


def platform_args(target: Platform, host: Platform, stage: str | None = None) -> dict[str, str]:
    """Return the build arguments that describe the platforms, and the stage that --target names."""
    args = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", host)):
        args[f"{prefix}PLATFORM"] = str(platform)
        args[f"{prefix}OS"] = platform.os
        args[f"{prefix}ARCH"] = platform.architecture
        args[f"{prefix}VARIANT"] = platform.variant
        args[f"{prefix}OSVERSION"] = platform.os_version
    return args


def _global_args(
    dockerfile: Dockerfile, predefined: Mapping[str, str], build_args: Mapping[str, str]
) -> dict[str, str]:
    values: dict[str, str] = {}
    for instruction in dockerfile.global_args:
        for pair in instruction.pairs:
            single = Arg(pairs=(pair,), source=instruction.source)
            ((name, default),) = expand_instruction(
                single, {**predefined, **values}, dockerfile.directives.escape
            ).pairs
            value = build_args.get(name, default)
            if value is not None:
                values[name] = value
    return values


def find_stage(stages: Sequence[PlannedStage], name: str) -> int | None:
    """Return the number of the last stage so far that has a name (in any case), or None."""
    for planned in reversed(stages):
        if planned.stage.name is not None and planned.stage.name == name.lower():
            return planned.number
    return None


def source_stage(
    stages: Sequence[PlannedStage], name: str, number: int, at: Instruction, *, named: frozenset[str]
) -> int | None:
    """Return the stage that `--from=name` means in stage `number`, or None for an image or what `named` has.

    Raises DockerfileError for a number that is not an earlier stage's.
    """
    if name.lower() in named:
        return None
    if name.isascii() and name.isdigit():
        index = int(name)
        if index >= number:
            raise at.source.error(f"--from={name}: stage {name} does not come before this one", about=f"={name}")
        return index
    return find_stage(stages[:number], name)


def _used(instruction: Instruction, stages: Sequence[PlannedStage], number: int, named: frozenset[str]) -> set[int]:
    names: list[str] = []
    if isinstance(instruction, Copy) and instruction.from_ is not None:
        names = [instruction.from_]
    elif isinstance(instruction, Run):
        names = [mount.from_ for mount in instruction.mounts if mount.from_]
    found = (source_stage(stages, name, number, instruction, named=named) for name in names)
    return {index for index in found if index is not None}


def needs_of(instruction: Instruction, planned: PlannedStage, graph: Graph) -> list[int]:
    """Return the stages that an instruction of a stage waits for, a FROM for its base; ONBUILD's triggers too."""
    if isinstance(instruction, From):
        return [planned.base] if isinstance(planned.base, int) else []
    return sorted(_used(instruction, graph.stages, planned.number, graph.named))


def _target(stages: list[PlannedStage], target: str | None) -> int:
    if target is None:
        return len(stages) - 1
    index = find_stage(stages, target)
    if index is None and target.isascii() and target.isdigit() and int(target) < len(stages):
        index = int(target)
    if index is None:
        names = [planned.stage.name for planned in stages if planned.stage.name]
        raise UsageError(
            f"no stage is named {target!r}{did_you_mean(target, names)}; the stages are: {', '.join(names)}"
        )
    return index


def _reach(stages: list[PlannedStage], number: int) -> set[int]:
    found: set[int] = set()
    waiting = [number]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += stages[index].needs
    return found


def unused_args(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> list[str]:
    """Return the build arguments that no ARG declares; those for the builder itself need none."""
    return sorted(build_args.keys() - BUILDER_ARGS - declared_args(dockerfile) - PROXY_ARGS - {EPOCH_ARG})


def declared_args(dockerfile: Dockerfile) -> set[str]:
    """Return the names that ARGs declare, before the first stage and in all of them."""
    declared = {name for arg in dockerfile.global_args for name, _ in arg.pairs}
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, Arg):
                declared |= {name for name, _ in instruction.pairs}
    return declared


def planned_steps(graph: Graph) -> Iterator[PlannedStep]:
    """Yield the steps of a build in the order of their numbers, as far as the Dockerfile tells.

    A step waits for the one before it in its stage, and for the last of each stage it uses.
    """
    for number in graph.needed:
        planned = graph.stages[number]
        first = graph.first_step(number)
        triggers: list[Instruction] = []
        if isinstance(planned.base, int):
            base = graph.stages[planned.base].stage.instructions
            triggers = [one for one in base if isinstance(one, Onbuild)]
        for step, instruction in enumerate((planned.stage.base, *triggers, *planned.stage.instructions), first):
            needs = {graph.first_step(used) + graph.length(used) - 1 for used in needs_of(instruction, planned, graph)}
            if step > first:
                needs.add(step - 1)
            yield PlannedStep(step, planned.label, step_name(instruction), tuple(sorted(needs)))


def step_name(instruction: Instruction) -> str:
    """Return what people call a step: its text, with its heredocs."""
    text = instruction.source.text or type(instruction).__name__.upper()
    heredocs = instruction.heredocs if isinstance(instruction, (Run, Copy, Add)) else ()
    return "\n".join([text, *(f"{heredoc.content}{heredoc.name}" for heredoc in heredocs)])
