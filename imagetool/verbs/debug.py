"""What a failed build leaves to look into: `build --keep-on-failure` keeps it, `debug` opens it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool.build.contexts import folder_ignore
from imagetool.build.files import FolderSource
from imagetool.build.working import FailedStep, Remains, WorkingContainer, new_identity
from imagetool.config.environment import store_root
from imagetool.dockerfile import RunMount, expand
from imagetool.dockerfile.mounts import parse_mount
from imagetool.errors import ImagetoolError, NotFound, StepFailed
from imagetool.progress import Note
from imagetool.runtime.imageprocess import Wishes
from imagetool.values import replace
from imagetool.verbs.byhand import HandMounts, HandRun, run_in
from imagetool.verbs.run import RunOptions
from imagetool.verbs.working import now
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.build.contexts import Opened
    from imagetool.build.worker import Worker
    from imagetool.runtime.executors import ExitStatus, Output
    from imagetool.runtime.session import Session
    from imagetool.verbs.buildoptions import BuildOptions

#: The variable that holds the failed command, for the shell to read again.
COMMAND_VARIABLE = "FAILED_STEP"


def keep_remains(failed: StepFailed, opened: Opened, options: BuildOptions, worker: Worker, place: Workplace) -> None:
    """Make a working container of what a failed step left, and say on its error how to enter it.

    The store's session is the caller's. When this fails, too, the error says so and stays what it is.
    """
    remains = failed.remains
    if not isinstance(remains, Remains):
        return
    state = remains.state
    record = WorkingContainer(
        identity=new_identity(),
        image=options.tags[0] if options.tags else opened.folder.resolve().name,
        digest="",
        state=state,
        created=now(),
        epoch=worker.times.epoch,
        preserve=worker.times.preserve,
        base_history=len(state.history) - 1,
        failed=replace(remains.step, context="" if opened.foreign else remains.step.context),
    )
    stem = record.image.rpartition("/")[2].partition(":")[0].lower() or "build"
    try:
        name = place.containers.make(record, stem=f"{stem}-failed")
    except ImagetoolError as error:
        failed.add_note(f"what the step left cannot be kept: {error}")
        return
    root = "" if place.root == store_root(None) else f"--root {shlex.quote(str(place.root))} "
    failed.add_note(f"to look into what the step left: imagetool {root}debug {name}")


def last_failed(place: Workplace) -> str:
    """Return the container of the failed step that was kept last. Raises NotFound."""
    found = [name for name, record in place.containers.records() if record.failed]
    if not found:
        raise NotFound("there is no container of a failed step; build --keep-on-failure leaves one")
    return found[-1]


def told(name: str, record: WorkingContainer) -> str:
    """Return what somebody who enters a container wants to know."""
    lines = [f"container {name} of {record.image}"]
    if record.failed is not None:
        step = record.failed
        lines = [f"container {name}, left by {step.place}, which ended with exit code {step.status}:"]
        lines += [f"  {line}" for line in step.text.splitlines()[:20]]
        lines.append(f'to try that again: eval "${COMMAND_VARIABLE}"')
    lines.append("what you change stays in the container, until imagetool rm")
    return "\n".join(lines)


def debug(
    name: str,
    command: Sequence[str],
    options: RunOptions,
    place: Workplace,
    *,
    output: Output,
    session: Session | None,
) -> ExitStatus:
    """Run a command, or the stage's shell, in a working container as its failed step ran; return how it ended.

    It has the step's variables, user, directory and mounts, but no secrets. A bind of the build
    context is as the context is now, and left out when that is gone.
    """
    record = place.containers.read(name)
    step = record.failed
    argv = tuple(command) or record.state.shell[:1]
    wanted = HandRun(replace(options, wishes=replace(options.wishes, args=argv)))
    if step is not None:
        environment = {COMMAND_VARIABLE: shlex.join(step.argv), **options.wishes.env}
        wishes = Wishes(argv, None, environment, options.wishes.user, options.wishes.cwd)
        network: Any = step.network if options.network == "default" else options.network
        wanted = HandRun(
            replace(options, wishes=wishes, network=network),
            HandMounts((), _mounts(record, step, place)),
            variables=step.proxies,
            script=step.script,
            sources=step.sources,
            context=_context(step),
        )
    return run_in(name, wanted, place, output=output, session=session)


def _context(step: FailedStep) -> FolderSource | None:
    folder = Path(step.context)
    return FolderSource(folder, folder_ignore(folder)) if step.context and folder.is_dir() else None


def _mounts(record: WorkingContainer, step: FailedStep, place: Workplace) -> tuple[RunMount, ...]:
    """Return the step's mounts; those whose files are not to be had any more are told and left out."""
    found = []
    for text in step.mounts:
        mount = parse_mount(text, lambda word: expand(word, record.state.variables))
        if mount.type == "bind" and (mount.from_ not in step.sources if mount.from_ else _context(step) is None):
            place.observer(Note(f"--mount={text}: its files are not here any more; left out", "warning"))
            continue
        found.append(mount)
    return tuple(found)
