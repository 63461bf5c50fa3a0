"""`from`, `add`, `config`, `commit`, `debug`, and `run` and `copy` in working containers: build by hand."""

from __future__ import annotations

import sys

from imagetool.cli.options import told, workplace, write
from imagetool.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from imagetool.cli.commands import Globals
    from imagetool.image.image import Image
    from imagetool.oci.platform import Platform
    from imagetool.verbs.committing import Committing
    from imagetool.verbs.run import RunOptions


def begin(
    globals: Globals,
    *,
    reference: str,
    name: str | None,
    platform: str | None,
    arch: str | None,
    os: str | None,
    variant: str | None,
    pull: str,
    timestamp: str | None,
    timestamps: str,
    compression: str,
    cidfile: str | None,
    progress: str,
    quiet: bool,
    **runs: Any,
) -> None:
    """Make a working container; print its name. `runs` are options of `run`, for all that is run in it."""
    from pathlib import Path

    from imagetool.cli.runoptions import kept_options
    from imagetool.content.staging import write_file
    from imagetool.verbs.working import Beginning
    from imagetool.verbs.working import begin as make

    beginning = Beginning(
        name=name or "",
        platform=_platform(platform, arch, os, variant),
        pull=pull,
        epoch=_epoch(timestamp),
        preserve_times=timestamps == "preserve",
        compression=compression,
        runs=kept_options(runs),
    )
    with workplace(globals, "quiet" if quiet else progress) as place:
        made, identity = make(reference, beginning, place)
    if cidfile:
        write_file(Path(cidfile), identity.encode())
    sys.stdout.write(f"{made}\n")


def _platform(platform: str | None, arch: str | None, os: str | None, variant: str | None) -> Platform | None:
    """Return what --platform, or --os, --arch and --variant, say."""
    from os import uname

    from imagetool.oci.platform import Platform

    if platform is not None:
        if arch or os or variant:
            raise UsageError("--platform says what --arch, --os and --variant say; leave those away")
        return Platform.parse(platform)
    if not arch and not os and not variant:
        return None
    return Platform.parse("/".join(filter(None, [os or "linux", arch or uname().machine, variant])))


def _epoch(text: str | None) -> int | None:
    from imagetool.config.environment import source_date_epoch

    return source_date_epoch({"SOURCE_DATE_EPOCH": text}) if text else None


def add(globals: Globals, *, container: str, files: Sequence[str], **how: Any) -> None:
    """Copy files into a working container as ADD does."""
    _copy(globals, container, files, add=True, **how)


def copy_into(globals: Globals, container: str, files: Sequence[str], **how: Any) -> None:
    """Copy files into a working container as COPY does."""
    _copy(globals, container, files, add=False, **how)


def _copy(
    globals: Globals,
    container: str,
    files: Sequence[str],
    *,
    progress: str,
    quiet: bool,
    add_history: bool,
    contextdir: str | None,
    **how: Any,
) -> None:
    from imagetool.verbs.copyinto import Copying
    from imagetool.verbs.copyinto import copy_into as copy

    *sources, dest = files if len(files) > 1 else [files[0], ""]
    copying = Copying(sources, dest, context=contextdir, **how)
    with workplace(globals, progress) as place:
        digest = copy(container, copying, place)
    if digest and not quiet:
        sys.stdout.write(f"{digest}\n")


def run_in(globals: Globals, container: str, options: RunOptions, mounts: Sequence[str], progress: str) -> int:
    """Run a command in a working container; return its exit code."""
    from pathlib import Path

    from imagetool.runtime.session import Session
    from imagetool.verbs.byhand import HandMounts, HandRun
    from imagetool.verbs.byhand import run_in as run

    if options.readonly:
        raise UsageError("run --read-only: a working container keeps what is changed in it; run an image instead")
    if not options.wishes.args:
        raise UsageError(f"run {container}: name the command to run, as in run {container} -- COMMAND")
    wanted = HandRun(options, HandMounts.parse(mounts, folder=Path.cwd()), kept=False)
    stdin = sys.stdin.fileno() if sys.stdin is not None else None
    with workplace(globals, progress) as place, Session(source=stdin, terminal=options.terminal) as session:
        status = run(container, wanted, place, output=write, session=session)
    return told(status, options)


def config(
    globals: Globals,
    *,
    container: str,
    env: Sequence[str],
    annotation: Sequence[str],
    workingdir: str | None,
    created_by: str | None,
    comment: str | None,
    history_comment: str | None,
    arch: str | None,
    os: str | None,
    variant: str | None,
    os_version: str | None,
    hostname: str | None,
    domainname: str | None,
    add_history: bool,
    **settings: Any,
) -> None:
    """Set what the image of a working container will say."""
    from imagetool.build.settings import Settings
    from imagetool.config.environment import build_argument
    from imagetool.verbs.working import Configuration, configure

    about = {"architecture": arch, "os": os, "variant": variant, "os_version": os_version}
    checks = [name for name in settings if name.startswith("healthcheck_")]
    check = {name.removeprefix("healthcheck_"): settings.pop(name) for name in checks}
    variables = [text if "=" in text or text.endswith("-") else build_argument(text) for text in env]
    wanted = Configuration(
        Settings(
            env=["=".join(one) if isinstance(one, tuple) else one for one in variables if one is not None],
            check={name: text for name, text in check.items() if text is not None},
            platform={name: text for name, text in about.items() if text is not None},
            **settings,
        ),
        workdir=workingdir,
        annotations=annotation,
        created_by=created_by,
        comment=history_comment if comment is None else comment,
        hostname=hostname,
    )
    with workplace(globals, "plain") as place:
        configure(container, wanted, place)


def commit(
    globals: Globals,
    *,
    container: str,
    reference: str | None,
    format: str,
    output: Sequence[str],
    iidfile: str | None,
    metadata_file: str | None,
    progress: str,
    quiet: bool,
    **wanted: Any,
) -> None:
    """Make an image of a working container; print its ID, or nothing but the tar when an output is stdout.

    `wanted` are those of `_committing`.
    """
    from imagetool import api
    from imagetool.build.unchanged import Answer
    from imagetool.cli.outputs import Output
    from imagetool.cli.resultfiles import record
    from imagetool.transports import find
    from imagetool.transports.local import Local
    from imagetool.verbs.committing import commit as make

    outputs = [Output.parse(text) for text in output]
    is_local = not reference or isinstance(find(reference)[0], Local)
    name = reference if reference and is_local else ""
    with workplace(globals, "quiet" if quiet else progress) as place:

        def after(image: Image) -> None:
            if reference and not is_local:
                api.copy(str(image.descriptor.digest), reference, place)
            for one in outputs:
                one.write(image, place, name=name)

        image = make(container, _committing(name, **wanted), place, after=after)
    answer = Answer(str(image.config.descriptor.digest), image.descriptor.tree(), [])
    record(answer, [name] if name else [], iidfile, metadata_file)
    result = sys.stderr if any(one.is_stdout for one in outputs) else sys.stdout
    result.write(f"{answer.identity}\n")


def _committing(
    name: str,
    *,
    squash: bool,
    squash_new: bool,
    timestamp: str | None,
    change: Sequence[str],
    label: Sequence[str],
    annotation: Sequence[str],
    unsetenv: Sequence[str],
    unsetlabel: Sequence[str],
    omit_history: bool,
    rm: bool,
) -> Committing:
    from imagetool.build.finish import Finish
    from imagetool.cli.buildoptions import pair
    from imagetool.config.environment import source_date_epoch
    from imagetool.verbs.committing import Committing

    return Committing(
        name=name,
        finish=Finish(
            labels=dict(pair(text, "--label") for text in label),
            annotations=dict(pair(text, "--annotation") for text in annotation),
            unset_env=frozenset(unsetenv),
            unset_labels=frozenset(unsetlabel),
            squash="all" if squash else "new" if squash_new else "",
        ),
        epoch=_epoch(timestamp) if timestamp else source_date_epoch(),
        changes=change,
        omit_history=omit_history,
        remove=rm,
    )


def debug(
    globals: Globals,
    *,
    container: str | None,
    command: Sequence[str],
    env: Sequence[str],
    user: str | None,
    workdir: str | None,
    network: str,
    isolation: str,
    runtime: str | None,
    progress: str,
    **sandbox: Any,
) -> int:
    """Open a shell in a working container, or run a command there; return its exit code."""
    from imagetool.cli.lines import printable
    from imagetool.cli.systems import wishes
    from imagetool.config.environment import network_fallback
    from imagetool.runtime.sandbox import parse_sandbox
    from imagetool.runtime.session import Session
    from imagetool.verbs import debug as verb
    from imagetool.verbs.run import RunOptions

    if command[:1] == ["--"]:
        command = command[1:]
    stdin = sys.stdin.fileno() if sys.stdin is not None else None
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    with workplace(globals, progress) as place, Session(source=stdin, terminal=terminal) as session:
        name = place.containers.named(container) if container else verb.last_failed(place)
        options = RunOptions(
            wishes=wishes(None, None, env, user, workdir),
            terminal=terminal,
            network=network,  # type: ignore[arg-type]
            network_fallback=network_fallback(),
            sandbox=parse_sandbox(**sandbox),
            isolation=isolation,
            runtime=runtime,
        )
        if terminal or not command:
            for line in verb.told(name, place.containers.read(name)).splitlines():
                sys.stderr.write(f"imagetool: {printable(line)}\n")
        status = verb.debug(name, command, options, place, output=write, session=session)
    return told(status, options)
