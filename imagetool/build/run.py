"""RUN: a command in a fresh container over the stage's layers; what it changed becomes a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool.build.entitlements import check_device, check_entitled
from imagetool.build.graph import HOSTNAME_ARG, PROXY_ARGS
from imagetool.build.inputs import Inputs, Made, record, store
from imagetool.build.mounts import mount_inputs, step_mounts
from imagetool.build.root import Root
from imagetool.build.state import run_environment, run_history
from imagetool.dockerfile import ExecutableHeredoc, Run, script_of
from imagetool.errors import ImagetoolError, NotFound, StepFailed
from imagetool.image.image import Layer, opener
from imagetool.progress import Note, StepMeasured, StepOutput
from imagetool.runtime.users import User
from imagetool.values import dataclass

if TYPE_CHECKING:  # imported when a step is run; a cached one needs none of it
    from imagetool.runtime.cdi import Device
    from imagetool.runtime.executors import Usage
    from imagetool.runtime.network import Network
    from imagetool.runtime.spec import Mount, RuntimeSpec
    from imagetool.snapshot.overlay import Workspace

HOSTNAME = "buildkitsandbox"  # what steps have seen for years; some look at it
_SCRIPTS = "/dev/pipes"
_HINTS = {
    126: "hint: 126 says that a file was found but cannot be executed: is it executable, and for this architecture?",
    127: "hint: 127 says that a command was not found: is its package installed in this stage, and is it in PATH?",
    137: "hint: 137 says that the step was killed, often because memory ran out",
}


def run_step(inputs: Inputs, instruction: Run) -> Made:
    """Run the command unless the cache has its layer; raises StepFailed when it does not end with 0."""
    check_entitled(instruction, inputs.entitlements)
    devices = _devices(inputs, instruction) if instruction.devices else ()
    script = script_of(instruction)
    state = inputs.state
    argv: tuple[str, ...]
    if isinstance(script, ExecutableHeredoc):
        argv, text = (f"{_SCRIPTS}/{script.name}",), script.content
    else:
        argv, text = state.argv(script), ""
    history = run_history(state, argv)
    environment = run_environment(state, inputs.build_args)
    environment["SOURCE_DATE_EPOCH"] = str(inputs.worker.times.epoch)
    network, sandbox = _network(inputs, instruction), inputs.worker.sandbox
    hostname = inputs.build_args.get(HOSTNAME_ARG) or HOSTNAME
    mounted = [mount_inputs(inputs, instruction, mount) for mount in instruction.mounts]
    key = inputs.key(
        step="run",
        platform=str(state.platform),
        argv=argv,
        script=text,
        env={**state.run.environment, **state.args},
        cwd=state.run.working_dir,
        user=state.run.user,
        network=network,
        mounts=mounted,
        **({"ids": 1} if inputs.worker.single_id else {}),
        **({"hostname": hostname} if hostname != HOSTNAME else {}),
        **({"security": instruction.security} if instruction.security != "sandbox" else {}),
        **({"devices": [device.qualified for device in devices]} if devices else {}),
        **({"hosts": sandbox.names.hosts} if sandbox is not None and sandbox.names.hosts else {}),
    )
    if inputs.worker.single_id:  # there may be more ids the next time, which no record of the whole build tells of
        inputs.worker.witness.opaque()
    cached = inputs.lookup(key)
    if cached is not None:
        return Made(cached.layer, history, cached=True, key=key)
    command = StepCommand(argv, (argv[0], text) if text else None, environment, network, devices, hostname=hostname)
    with step_container(inputs, instruction, command) as (spec, workspace):
        steady = _is_steady(inputs, instruction, mounted)
        try:
            _execute(inputs, instruction, spec, workspace)
        except StepFailed as failed:
            if inputs.keeps:
                _keep_remains(inputs, instruction, command, workspace, failed)
            raise
        layer = commit_step(inputs, workspace)
        inputs.worker.snapshots().adopt(workspace, (*state.layers, layer))
    return record(inputs, key, layer, history, steady=steady)


@dataclass(frozen=True, slots=True)
class StepCommand:
    """What a step runs: the program and its arguments, its variables, its network.

    script: the path and the text of a program that the step brings along, None for none.
    devices: those that it was given.
    mounts, hostname, terminal: what a command run by hand may have beyond those of a Dockerfile.
    """

    argv: tuple[str, ...]
    script: tuple[str, str] | None
    environment: dict[str, str]
    network: str
    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hostname: str = HOSTNAME
    terminal: bool = False


@contextmanager
def step_container(inputs: Inputs, instruction: Run, command: StepCommand) -> Iterator[tuple[RuntimeSpec, Workspace]]:
    """Open a workspace over the stage's layers and yield the description of the step's container in it."""
    from imagetool.build.secretmounts import secret_mounts
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.runtime.spec import build_step_spec

    worker, state = inputs.worker, inputs.state
    worker.emulate(state.platform)
    connected = worker.network(command.network)
    user, home = _user(inputs)
    environment = dict(command.environment)
    environment.setdefault("HOME", home)
    with (
        worker.snapshots().prepare(state.layers, lambda layer: opener(worker.store, layer)) as workspace,
        ExitStack() as stack,
    ):
        mounts = [*_network_files(inputs, workspace, connected, command.hostname)]
        mounts += step_mounts(inputs, instruction, workspace, stack)
        mounts += secret_mounts(inputs, instruction.mounts, environment, stack)
        if command.script:
            mounts.append(_script(workspace, *command.script))
        spec = build_step_spec(
            args=command.argv,
            env=environment,
            cwd=state.run.working_dir or "/",
            user=user,
            hostname=command.hostname,
            mounts=[*mounts, *command.mounts],
            network=connected,
            sandbox=worker.sandbox or Sandbox(userns="default"),
            terminal=command.terminal,
        )
        yield _granted(spec, instruction, command.devices), workspace


def _devices(inputs: Inputs, instruction: Run) -> tuple[Device, ...]:
    """Return the devices that a step uses; those that are not there, and not required, are left out with a word."""
    from imagetool.runtime.cdi import read_devices

    inputs.worker.witness.opaque()  # it hangs on files of the host
    known = read_devices(inputs.worker.device_folders)
    found: dict[str, Device] = {}
    for wanted in instruction.devices:
        try:
            meant = known.find(wanted.name)
        except NotFound as error:
            if wanted.required:
                raise
            inputs.observer(Note(f"RUN --device={wanted.name} does without: {error}", "warning"))
            continue
        for device in meant:
            check_device(device, inputs.entitlements)
            found[device.qualified] = device
    return tuple(found.values())


def _granted(spec: RuntimeSpec, instruction: Run, devices: Sequence[Device]) -> RuntimeSpec:
    """Return the description of the step's container with what it was allowed beyond the usual."""
    if instruction.security == "insecure":
        from imagetool.runtime.grants import without_sandbox

        spec = without_sandbox(spec)
    if devices:
        from imagetool.runtime.cdi import Edits
        from imagetool.runtime.grants import with_devices

        spec = with_devices(spec, sum((device.edits for device in devices), Edits()))
    return spec


def _is_steady(inputs: Inputs, instruction: Run, mounted: Sequence[dict[str, Any]]) -> bool:
    """Say whether the context's files, which the step sees copies of, are still those that its key tells of."""
    return all(
        mount_inputs(inputs, instruction, mount) == known
        for mount, known in zip(instruction.mounts, mounted, strict=True)
        if mount.type == "bind" and mount.from_ is None
    )


def _network(inputs: Inputs, instruction: Run) -> str:
    return inputs.network if instruction.network == "default" else instruction.network


def _user(inputs: Inputs) -> tuple[User, str]:
    """Return who runs the step and the home directory; root needs no look into the image."""
    text = inputs.state.run.user
    if text in ("", "0", "root", "0:0", "root:root"):
        return User(0, 0, ()), "/root"
    return Root(inputs.trees, inputs.state.layers).user(text)


def _execute(inputs: Inputs, instruction: Run, spec: RuntimeSpec, workspace: Workspace) -> None:
    from imagetool.runtime.rootfs import Overlay

    number, observer = inputs.number, inputs.observer
    root = Overlay(workspace.lowers, workspace.upper, workspace.work, userxattr=inputs.worker.user_namespace)
    redactors = {stream: inputs.secrets.redactor() for stream in (1, 2)}

    def output(stream: int, data: bytes) -> None:
        if shown := redactors[stream].feed(data):
            observer(StepOutput(number, stream, shown))

    status = inputs.worker.executor().run(spec, root, output=output)
    for stream, redactor in redactors.items():
        if rest := redactor.end():
            observer(StepOutput(number, stream, rest))
    used = status.usage
    observer(StepMeasured(number, used.cpu_seconds, used.peak_memory, used.written))
    if spec.measured:
        inputs.worker.witness.opaque()  # what a step used is not told again when it is not carried out
        observer(Note(_used(number, used)))
    if status.code != 0:
        how = f"was ended by signal {status.code - 128}" if status.code > 128 else f"returned exit code {status.code}"
        if status.limit:
            how += f": it met {status.limit}"
        text = instruction.source.text.partition("\n")[0]
        failed = StepFailed(f"{text!r} {how}", status=status.code)
        if status.code in _HINTS and not status.limit:
            failed.add_note(_HINTS[status.code])
        raise failed


def _used(number: int, usage: Usage) -> str:
    peak, written = (f"{count / (1 << 20):.1f} MiB" for count in (usage.peak_memory, usage.written))
    return f"step {number} used {usage.cpu_seconds:.2f} s of CPU time, {peak} of memory at most, and wrote {written}"


def commit_step(inputs: Inputs, workspace: Workspace) -> Layer:
    """Make a layer of what a step changed."""
    from imagetool.layer.scan import scan_upper

    def warn(text: str) -> None:
        inputs.observer(Note(text, "warning"))

    times = inputs.worker.times
    items = scan_upper(workspace.upper, clamp=times.clamp, warn=warn, pretended=inputs.worker.single_id)
    return store(inputs, items)


def _keep_remains(
    inputs: Inputs, instruction: Run, command: StepCommand, workspace: Workspace, failed: StepFailed
) -> None:
    """Put what a failed step left behind, its secrets apart, on its error; say so there when that cannot be."""
    from imagetool.build.working import FailedStep, Remains

    state, source = inputs.state, instruction.source
    try:
        layer = commit_step(inputs, workspace)
    except ImagetoolError as error:  # as a secret in a file of the step; the failure itself is what counts
        failed.add_note(f"what the step left cannot be kept: {error}")
        return
    mounts = [mount for mount in instruction.mounts if mount.type not in ("secret", "ssh")]
    named = {mount.from_ for mount in mounts if mount.from_}
    sources = {name: found for name in named if isinstance(found := inputs.source(name, instruction), tuple)}
    step = FailedStep(
        text=source.text,
        place=f"{source.file}:{source.first_line}",
        argv=command.argv,
        status=failed.status,
        script=command.script,
        network=command.network,
        mounts=tuple(mount.text for mount in mounts),
        context=str(inputs.context.absolute()),
        sources=sources,
        proxies={name: value for name, value in inputs.build_args.items() if name in PROXY_ARGS},
    )
    line = f"{run_history(state, command.argv)} # exit code {failed.status}"
    failed.remains = Remains(state.with_history(inputs.worker.times.created, line, layer=layer), step)


def _script(workspace: Workspace, target: str, text: str) -> Mount:
    from imagetool.runtime.spec import Mount

    path = workspace.work.parent / "script"
    path.write_text(text)
    path.chmod(0o755)
    return Mount(target, "bind", str(path), ("bind", "ro"))


def _network_files(inputs: Inputs, workspace: Workspace, network: Network, hostname: str) -> Iterator[Mount]:
    """Yield the mounts of the files that tell a container its name servers and names; never committed."""
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.runtime.spec import Mount

    folder = workspace.work.parent
    names = (inputs.worker.sandbox or Sandbox()).names
    host = _host_file("/etc/resolv.conf")
    for name, text in (
        ("resolv.conf", names.resolv_conf_text(host, own_network=network.own, server=network.server)),
        ("hosts", names.hosts_text(hostname)),
    ):
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
        yield Mount(f"/etc/{name}", "bind", str(path), ("bind", "ro"))


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # a host without name servers: the container has none either
        return ""
