"""`lint` and `build --check`: look a Dockerfile over without building."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.cli.commands import Globals
    from imagetool.dockerfile.lint import Report


def lint(
    globals: Globals, *, files: Sequence[str], format: str, build_arg: Sequence[str], platform: str | None
) -> None:
    """Print what is found in the files; a directory stands for the Dockerfile in it."""
    from pathlib import Path

    reports = []
    for name in files or ["."]:
        path = Path(name)
        if name == "-":
            context, file = ".", "-"
        elif path.is_dir():
            context, file = name, None
        else:
            context, file = str(path.parent), name
        reports.append(_report(globals, context, file, build_arg, platform))
    finish(reports, format)


def check(globals: Globals, *, context: str, file: str | None, build_arg: Sequence[str], platform: str | None) -> None:
    """Print what is found in the Dockerfile of a build, instead of building."""
    finish([_report(globals, context, file, build_arg, platform)], "text")


def _report(globals: Globals, context: str, file: str | None, build_arg: Sequence[str], platform: str | None) -> Report:
    from pathlib import Path

    from imagetool import api
    from imagetool.cli.buildoptions import from_stdin
    from imagetool.cli.options import plain_workplace
    from imagetool.config.environment import build_argument
    from imagetool.oci.platform import Platform
    from imagetool.progress import silent

    options = api.BuildOptions(
        file=Path(file) if file and file != "-" else None,
        text=from_stdin() if file == "-" else None,
        build_args=dict(pair for text in build_arg if (pair := build_argument(text))),
        platform=Platform.parse(platform) if platform else None,
    )
    stdin = None if file == "-" else sys.stdin.buffer
    return api.check(context, options, plain_workplace(globals, silent), stdin=stdin)


def finish(reports: Sequence[Report], form: str) -> None:
    """Print the findings; raises ChecksFailed when there are any."""
    from imagetool import __version__
    from imagetool.dockerfile.lint import render
    from imagetool.errors import ChecksFailed

    sys.stdout.write(render(reports, form, version=__version__))
    sys.stdout.flush()
    found = {report.file: len(report.findings) for report in reports if report.findings}
    if found:
        total = sum(found.values())
        counted = f"{total} finding{'s' if total > 1 else ''}"
        raise ChecksFailed(f"{counted} in {', '.join(found)}; docs/reference/lint.md explains the rules")
