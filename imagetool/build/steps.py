"""Instructions carried out one by one: what state each leaves.

COPY is in `copystep`, ADD in `adding`, RUN in `run`; the last two are imported when they are needed.
"""

from __future__ import annotations

from imagetool.build.copystep import copy
from imagetool.build.inputs import Inputs, Made, record, store
from imagetool.build.root import Root
from imagetool.build.state import ConfigInstruction, StageState, apply, with_defaults
from imagetool.dockerfile import Add, Copy, Run, Workdir
from imagetool.errors import BuildError
from imagetool.image.image import Image
from imagetool.layer.entry import Entry
from imagetool.oci.config import History, ImageConfig
from imagetool.values import replace

#: Instructions that `carry_out` does; ARG and FROM say what others see and begin from, which the caller knows.
Step = Run | Copy | Add | Workdir | ConfigInstruction


def carry_out(inputs: Inputs, instruction: Step, text: str) -> tuple[StageState, Made | None]:
    """Do one instruction; return the state after it, and what was made, None by one that only changes configuration.

    Args:
        instruction: its variables are expanded already.
        text: the line of history of one that only changes configuration.
    """
    state, created = inputs.state, inputs.worker.times.created
    match instruction:
        case Run():
            from imagetool.build.run import run_step

            made = run_step(inputs, instruction)
        case Copy():
            made = copy(inputs, instruction)
        case Add():
            from imagetool.build.adding import add

            made = add(inputs, instruction)
        case Workdir():
            made = _workdir(inputs, instruction)
            state = replace(state, run=replace(state.run, working_dir=state.path(instruction.path).rstrip("/") or "/"))
        case _:
            return apply(state, instruction).with_history(created, text), None
    return state.with_history(created, made.history, layer=made.layer), made


def _workdir(inputs: Inputs, instruction: Workdir) -> Made:
    """WORKDIR: make the directory when it is missing, owned by the current user."""
    path = inputs.state.path(instruction.path).rstrip("/") or "/"
    history = f"WORKDIR {path}"
    if path == "/":
        return Made(None, history)
    key = inputs.key(step="workdir", path=path, user=inputs.state.run.user)
    cached = inputs.lookup(key)
    if cached is not None:
        return Made(cached.layer, history, cached=True, key=key)
    root = Root(inputs.trees, inputs.state.layers)
    name, kind = root.kind(path.encode(errors="surrogateescape"), follow=True)
    if kind == "dir":
        return record(inputs, key, None, history)
    if kind is not None:
        raise BuildError(f"WORKDIR {path}: a {kind} is there", about=instruction.path)
    uid, gid = (0, 0)
    if inputs.state.run.user not in ("", "0", "root", "0:0", "root:root"):
        uid, gid = root.owner(inputs.state.run.user)  # a bare number is its own group, as with --chown
    made = inputs.worker.times.made
    parts = name.split(b"/")
    folders = [b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    items = [
        (Entry(folder, "dir", 0o755, uid, gid, 0, made), ())
        for folder in folders
        if root.kind(folder, follow=False)[1] is None
    ]
    return record(inputs, key, store(inputs, items), history)


def base_state(image: Image) -> StageState:
    """Return the state after the FROM of an image."""
    run = with_defaults(image.config.run)
    return StageState(
        platform=image.config.platform,
        run=run,
        layers=image.layers,
        base_layers=len(image.layers),
        history=complete_history(image.config),
        author=image.config.author,
        variables=run.environment,
    )


def complete_history(config: ImageConfig) -> tuple[History, ...]:
    """Return a base image's history; one without any gets an entry for each layer, so that counts still match."""
    if config.history or not config.diff_ids:
        return config.history
    return tuple(History(config.created, comment="layer of the base image") for _ in config.diff_ids)
