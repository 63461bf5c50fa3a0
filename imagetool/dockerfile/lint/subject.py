"""A Dockerfile as the rules look at it: each instruction with what is known of the variables at that point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from imagetool import limits
from imagetool.dockerfile.ignore import IgnoreRules
from imagetool.dockerfile.instructions import Arg, Env, Instruction, Shell, Workdir
from imagetool.dockerfile.parser import Dockerfile, Stage
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.words import Expansion, expand_traced
from imagetool.errors import DockerfileError
from imagetool.oci.platform import Platform
from imagetool.values import dataclass, field

SCRATCH: Final = "scratch"
#: Set for every build, in FROM at once and in a stage after an ARG.
PLATFORM_ARGS: Final = (
    *(f"{side}{what}" for side in ("BUILD", "TARGET") for what in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")),
    "TARGETSTAGE",
)


@dataclass(frozen=True, slots=True)
class BaseImage:
    """What the lint wants to know of an image that a stage starts from; `platform` as its config says."""

    platform: str
    env: Mapping[str, str] = field(default_factory=dict)
    shell: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """The variables in force at one point of a stage.

    Attributes:
        values: of ENV and ARG, as far as they are known.
        declared: ARGs whose value nobody knows before the build.
        complete: whether there are no other variables; an image that is not at hand may bring some.
    """

    values: Mapping[str, str]
    declared: frozenset[str] = frozenset()
    complete: bool = True


def traced(source: Source, text: str, values: Mapping[str, str], *, is_body: bool = False) -> Expansion:
    """Expand a text of an instruction; raises DockerfileError with its place. A heredoc's body has no quotes."""
    try:
        return expand_traced(text, values, "\\" if is_body else source.escape, quotes=not is_body)
    except DockerfileError as error:
        raise source.placed(error) from None


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction and the variables in force before it."""

    instruction: Instruction
    scope: Scope

    def word(self, text: str) -> str | None:
        """Expand a word; None when a value that it needs is not known."""
        found = traced(self.instruction.source, text, self.scope.values)
        return None if found.unset else found.text


@dataclass(frozen=True, slots=True)
class StageView:
    """A stage: its steps, its FROM with global arguments put in, and what it begins with.

    Attributes:
        image: the name FROM means, None when a build argument without a default decides.
        base: what is known of that image; None when it is not at hand, or is an earlier stage.
        has_shell: whether a SHELL is in force from the start.
        has_workdir: whether an earlier stage that it starts from had a WORKDIR.
    """

    stage: Stage
    image: str | None
    base: BaseImage | None
    has_shell: bool
    has_workdir: bool
    steps: tuple[Step, ...]
    end: Scope


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked.

    Attributes:
        ignore: the rules of the context's ignore file, None when there is no context.
        platform: what is built for.
        global_values: the ARGs before the first FROM that have a value, and the platform arguments.
        default_values: the same without what the caller set.
        global_names: the names of all of them.
    """

    dockerfile: Dockerfile
    stages: tuple[StageView, ...]
    ignore: IgnoreRules | None
    platform: Platform
    global_values: Mapping[str, str]
    default_values: Mapping[str, str]
    global_names: frozenset[str]

    def steps(self) -> Iterator[tuple[StageView, Step]]:
        """Yield every instruction of every stage."""
        for stage in self.stages:
            for step in stage.steps:
                yield stage, step


def view(
    dockerfile: Dockerfile,
    *,
    ignore: IgnoreRules | None,
    build_args: Mapping[str, str],
    platform: Platform,
    bases: Callable[[str], BaseImage | None],
) -> Subject:
    """Look at a Dockerfile; raises DockerfileError for an expansion that can never work."""
    _check_size(dockerfile)
    predefined = _platform_values(platform)
    values = _global_values(dockerfile, predefined, build_args)
    names = frozenset(name for arg in dockerfile.global_args for name, _ in arg.pairs) | frozenset(PLATFORM_ARGS)
    views: list[StageView] = []
    for stage in dockerfile.stages:
        views.append(_stage_view(stage, views, values, build_args, bases))
    defaults = _global_values(dockerfile, predefined, {})
    return Subject(dockerfile, tuple(views), ignore, platform, values, defaults, names)


def _check_size(dockerfile: Dockerfile) -> None:
    """Refuse a file for which remembering the variables of each step would take forever."""
    instructions = [
        *dockerfile.global_args,
        *(i for stage in dockerfile.stages for i in (stage.base, *stage.instructions)),
    ]
    variables = sum(len(i.pairs) for i in instructions if isinstance(i, Arg | Env))
    if max(len(instructions), variables) > limits.DOCKERFILE_CHECKED:
        message = f"not checked: it has more instructions or variables than {limits.named('DOCKERFILE_CHECKED')}"
        raise DockerfileError(message, file=dockerfile.file)


def _platform_values(platform: Platform) -> dict[str, str]:
    what = {
        "PLATFORM": str(platform),
        "OS": platform.os,
        "OSVERSION": platform.os_version,
        "ARCH": platform.architecture,
        "VARIANT": platform.variant,
    }
    return {f"{side}{name}": value for side in ("BUILD", "TARGET") for name, value in what.items()} | {
        "TARGETSTAGE": "default"
    }


def _global_values(
    dockerfile: Dockerfile, predefined: Mapping[str, str], build_args: Mapping[str, str]
) -> dict[str, str]:
    values = dict(predefined)
    for arg in dockerfile.global_args:
        for name, default in arg.pairs:
            value = build_args.get(name)
            if value is None and default is not None:
                value = traced(arg.source, default, values).text
            if value is not None:
                values[name] = value
    return values


def _stage_view(
    stage: Stage,
    earlier: list[StageView],
    global_values: Mapping[str, str],
    build_args: Mapping[str, str],
    bases: Callable[[str], BaseImage | None],
) -> StageView:
    found = traced(stage.base.source, stage.base.image, global_values)
    image = None if found.unset else found.text
    parent = next((v for v in reversed(earlier) if image and v.stage.name == image.lower()), None)
    base = bases(image) if image and not parent and image != SCRATCH else None
    scope = (
        parent.end
        if parent
        else Scope({"PATH": "", **(base.env if base else {})}, complete=bool(base) or image == SCRATCH)
    )
    steps: list[Step] = []
    for instruction in stage.instructions:
        steps.append(Step(instruction, scope))
        scope = _after(steps[-1], global_values, build_args)
    return StageView(
        stage,
        image,
        base,
        has_shell=_has(parent, Shell) or (parent.has_shell if parent else bool(base and base.shell)),
        has_workdir=_has(parent, Workdir) or (parent is not None and parent.has_workdir),
        steps=tuple(steps),
        end=scope,
    )


def _has(stage: StageView | None, kind: type) -> bool:
    return stage is not None and any(isinstance(instruction, kind) for instruction in stage.stage.instructions)


def _after(step: Step, global_values: Mapping[str, str], build_args: Mapping[str, str]) -> Scope:
    """Return the variables after an instruction; a value that cannot be known is declared only."""
    scope = step.scope
    values: dict[str, str | None] = {}
    match step.instruction:
        case Env(pairs=pairs):
            for name, value in pairs:
                values[step.word(name) or name] = step.word(value)
        case Arg(pairs=options):
            for name, default in options:
                # Each pair sees those before it.
                seen = Step(step.instruction, _with(scope, values))
                known = build_args.get(name)
                if known is None:
                    known = global_values.get(name) if default is None else seen.word(default)
                values[name] = scope.values.get(name) if known is None and default is None else known
        case _:
            return scope
    return _with(scope, values)


def _with(scope: Scope, values: Mapping[str, str | None]) -> Scope:
    known = {name: value for name, value in values.items() if value is not None}
    unknown = values.keys() - known.keys()
    kept = {name: value for name, value in scope.values.items() if name not in unknown}
    return Scope({**kept, **known}, (scope.declared | unknown) - known.keys(), scope.complete)
