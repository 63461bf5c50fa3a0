"""`run`: a command in a container of an image. `doctor`: whether this host can."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from imagetool import limits
from imagetool.cli.options import plain_workplace, told, workplace, write
from imagetool.errors import HostError, NetworkError, NotFound, UsageError
from imagetool.progress import silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from imagetool.cli.commands import Globals
    from imagetool.verbs.run import RunOptions


def run(
    globals: Globals,
    *,
    mount: Sequence[str],
    interactive: bool,
    tty: bool,
    rm: bool,
    progress: str,
    add_history: bool,
    reference: str,
    command: Sequence[str],
    **wanted: Any,
) -> int:
    """Run a command; return its exit code, or 128+n when signal n ended it. `wanted` are those of `_options`."""
    from imagetool.cli.containers import container_named

    container = container_named(globals, reference)
    if container is not None:
        from imagetool.cli.runoptions import with_kept

        wanted = with_kept(plain_workplace(globals, silent).containers.read(container).runs, wanted)
        command = command[1:] if command[:1] == ["--"] else command
        # As with buildah, a terminal that we have is the container's too.
        tty = tty or (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty())
    stdin = sys.stdin.fileno() if interactive and sys.stdin is not None else None  # it may have been closed
    if tty and interactive and (stdin is None or not os.isatty(stdin)):
        raise UsageError("run -i -t: stdin is not a terminal; leave -t away")
    options = _options(command, terminal=tty, mount=() if container else mount, **wanted)
    if container is not None:
        from imagetool.cli.stepping import run_in

        return run_in(globals, container, options, mount, progress)
    return _run_image(globals, reference, options, stdin, progress)


def _run_image(globals: Globals, reference: str, options: RunOptions, stdin: int | None, progress: str) -> int:
    from imagetool.dockerfile.wording import did_you_mean
    from imagetool.runtime.session import Session
    from imagetool.verbs.run import run

    with (
        workplace(globals, progress) as place,
        Session(source=stdin, terminal=options.terminal) as session,
    ):
        try:
            status = run(
                reference,
                place.surroundings,
                options,
                snapshots=place.root / "snapshots",
                output=write,
                session=session,
                observer=place.observer,
            )
        except (NotFound, NetworkError) as error:
            if hint := did_you_mean(reference.rpartition("/")[2], place.containers.names()):
                error.add_note(f"no working container is named {reference[:80]!r}{hint}")
            raise
    return told(status, options)


def _options(
    command: Sequence[str],
    *,
    terminal: bool,
    env: Sequence[str],
    env_file: Sequence[str],
    user: str | None,
    workdir: str | None,
    entrypoint: str | None,
    volume: Sequence[str],
    mount: Sequence[str],
    tmpfs: Sequence[str],
    read_only: bool,
    hostname: str | None,
    network: str | None,
    platform: str | None,
    isolation: str,
    runtime: str | None,
    **sandbox: Any,
) -> RunOptions:
    from imagetool.cli.systems import wishes
    from imagetool.config.environment import network_fallback
    from imagetool.oci.platform import Platform
    from imagetool.verbs.kept import container_sandbox
    from imagetool.verbs.run import RunOptions
    from imagetool.verbs.volumes import Volume, volume_or_tmpfs

    folder = Path.cwd()
    mounted = [volume_or_tmpfs(text, folder=folder) for text in mount]
    return RunOptions(
        wishes(command or None, entrypoint, [*_lines(env_file), *env], user, workdir),
        Platform.parse(platform) if platform else None,
        [*(Volume.parse(text, folder=folder) for text in volume), *(one for found, _ in mounted for one in found)],
        [*tmpfs, *(text for _, found in mounted for text in found)],
        readonly=read_only,
        terminal=terminal,
        hostname=hostname or "",
        network=network or "default",  # type: ignore[arg-type]
        network_fallback=network_fallback(),
        sandbox=container_sandbox(**sandbox),
        isolation=isolation,
        runtime=runtime,
    )


def _lines(paths: Sequence[str]) -> Iterator[str]:
    """Yield the variables of files: empty lines and those that begin with # are none."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                raw = file.read(limits.ENV_FILE_BYTES + 1)
        except OSError as error:
            raise NotFound(f"--env-file {path}: {error.strerror}") from None
        if len(raw) > limits.ENV_FILE_BYTES:
            raise UsageError(f"--env-file {path}: larger than {limits.named('ENV_FILE_BYTES')}")
        text = raw.decode("utf-8", "surrogateescape")  # as the command line's own
        yield from (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def doctor(globals: Globals, *, json: bool) -> int:
    """Print what was found; return 9 when something that is needed is missing."""
    from imagetool.cli.lines import printable
    from imagetool.config.environment import store_root
    from imagetool.verbs.doctor import diagnose

    diagnosis = diagnose(store_root(globals.root))
    if json:
        import json as encoder

        sys.stdout.write(encoder.dumps(diagnosis.tree(), indent=2) + "\n")
        return 0 if diagnosis.healthy else HostError.exit_code
    for finding in diagnosis.findings:
        sys.stdout.write(f"{finding.state:<8} {finding.name:<15} {printable(finding.detail)}\n")
        if finding.fix:
            sys.stdout.write(f"{'':<24} fix: {printable(finding.fix)}\n")
    sys.stdout.write("\n")
    for name, what in diagnosis.used.items():
        sys.stdout.write(f"{'uses':<8} {name:<15} {printable(what)}\n")
    return 0 if diagnosis.healthy else HostError.exit_code
