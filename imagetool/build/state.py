"""A stage as it stands after some of its instructions, and what configuration instructions do to it; pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final, assert_never

from imagetool.build.graph import PROXY_ARGS
from imagetool.dockerfile import (
    Arg,
    Cmd,
    Command,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    ShellForm,
    Stopsignal,
    User,
    Volume,
)
from imagetool.image.image import Layer
from imagetool.oci.config import History, RunConfig
from imagetool.oci.digest import Digest, chain_id
from imagetool.oci.platform import Platform
from imagetool.values import dataclass, field, replace

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL: Final = ("/bin/sh", "-c")
COMMENT: Final = "imagetool"

#: Instructions that change the image's configuration and nothing else.
ConfigInstruction = (
    Cmd | Entrypoint | Env | Expose | Healthcheck | Label | Maintainer | Onbuild | Shell | Stopsignal | User | Volume
)


@dataclass(frozen=True, slots=True)
class StageState:
    """All that a later instruction of the stage can see.

    variables: ARG and ENV values in force, the later one winning.
    args: values of declared build arguments, in order of declaration; they mark history and cache keys.
    base_layers: how many of the layers are those of the image that the build began with.
    cmd_set: whether CMD was set in this stage, so that ENTRYPOINT leaves it alone.
    """

    platform: Platform
    run: RunConfig
    layers: tuple[Layer, ...] = ()
    history: tuple[History, ...] = ()
    author: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    args: Mapping[str, str] = field(default_factory=dict)
    cmd_set: bool = False
    base_layers: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chain(self) -> Digest | None:
        """The ChainID of the layers, None for none."""
        return chain_id(layer.diff_id for layer in self.layers)

    @property
    def shell(self) -> tuple[str, ...]:
        """The shell of shell forms."""
        return self.run.shell or DEFAULT_SHELL

    def argv(self, command: Command) -> tuple[str, ...]:
        """Return what a command runs: a shell form gets the stage's shell in front."""
        match command:
            case ShellForm(line=line):
                return (*self.shell, line)
            case ExecForm(argv=argv):
                return argv
            case _:
                assert_never(command)

    def path(self, path: str) -> str:
        """Join a path to WORKDIR and clean it; a trailing "/" is kept, because COPY asks for it."""
        joined = posixpath.normpath("/" + posixpath.join(self.run.working_dir or "/", path)).replace("//", "/")
        return joined + "/" if path.endswith(("/", "/.")) and joined != "/" else joined

    def with_history(self, created: str, created_by: str, *, layer: Layer | None = None) -> StageState:
        """Return the state with one more history entry, and the layer that goes with it."""
        entry = History(created, created_by, comment=COMMENT, empty_layer=layer is None)
        layers = (*self.layers, layer) if layer else self.layers
        return replace(self, layers=layers, history=(*self.history, entry))


def with_defaults(run: RunConfig) -> RunConfig:
    """Return a base's configuration with the PATH that every container has."""
    if "PATH" in run.environment:
        return run
    return replace(run, env=(*run.env, f"PATH={DEFAULT_PATH}"))


def scratch_state(platform: Platform) -> StageState:
    """Return the state after FROM scratch."""
    run = with_defaults(RunConfig(working_dir="/"))
    return StageState(platform, run, variables=run.environment)


def apply(state: StageState, instruction: ConfigInstruction) -> StageState:
    """Return the state after an instruction that only changes configuration; its variables are expanded already."""
    run = state.run
    match instruction:
        case Env(pairs=pairs):
            for name, value in pairs:
                run = replace(run, env=run.with_env(name, value))
            return replace(state, run=run, variables={**state.variables, **dict(pairs)})
        case Label(pairs=pairs):
            return replace(state, run=replace(run, labels={**run.labels, **dict(pairs)}))
        case User(user=user):
            return replace(state, run=replace(run, user=user))
        case Cmd(command=command):
            cmd = replace(run, cmd=state.argv(command) or None, args_escaped=isinstance(command, ShellForm))
            return replace(state, run=cmd, cmd_set=True)
        case Entrypoint(command=command):
            inherited = run.cmd if state.cmd_set else None
            return replace(state, run=replace(run, entrypoint=state.argv(command) or None, cmd=inherited))
        case Expose(ports=ports):
            return replace(state, run=replace(run, exposed_ports=tuple(dict.fromkeys((*run.exposed_ports, *ports)))))
        case Volume(paths=paths):
            return replace(state, run=replace(run, volumes=tuple(dict.fromkeys((*run.volumes, *paths)))))
        case Stopsignal(signal=signal):
            return replace(state, run=replace(run, stop_signal=signal))
        case Healthcheck():
            return replace(state, run=replace(run, healthcheck=_healthcheck(instruction)))
        case Shell(argv=argv):
            return replace(state, run=replace(run, shell=argv))
        case Onbuild(trigger=trigger):
            return replace(state, run=replace(run, on_build=(*run.on_build, trigger)))
        case Maintainer(name=name):
            return replace(state, author=name)
        case _:
            assert_never(instruction)


def _healthcheck(instruction: Healthcheck) -> dict[str, Any]:
    timing = {
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    return {"Test": list(instruction.test)} | {name: value for name, value in timing.items() if value}


def declare(
    state: StageState, instruction: Arg, *, build_args: Mapping[str, str], inherited: Mapping[str, str]
) -> StageState:
    """Return the state after one ARG of one pair, already expanded.

    The value is what --build-arg says, else the default, else that of a global ARG or predefined
    argument of the name; without any the argument is declared but has no value.
    """
    ((name, default),) = instruction.pairs
    value = build_args.get(name, inherited.get(name) if default is None else default)
    if value is None:
        return state
    return replace(state, variables={**state.variables, name: value}, args={**state.args, name: value})


def run_environment(state: StageState, build_args: Mapping[str, str]) -> dict[str, str]:
    """Return what a RUN step sees, apart from HOME and SOURCE_DATE_EPOCH: ENV, ARG and the proxy settings."""
    proxies = {name: value for name, value in build_args.items() if name in PROXY_ARGS}
    return {**proxies, **state.run.environment, **state.variables}


def run_history(state: StageState, argv: tuple[str, ...]) -> str:
    """Return the history text of a RUN, with the build arguments that were in force."""
    args = [f"{name}={value}" for name, value in state.args.items() if name not in PROXY_ARGS]
    counted = f"|{len(args)} {' '.join(args)} " if args else ""
    return f"RUN {counted}{' '.join(argv)}"
