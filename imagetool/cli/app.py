"""The program: from the command line to a command, and the one place where errors become text and exit codes."""

from __future__ import annotations

import sys

from imagetool.cli.commands import GLOBALS, Globals, call, find_command
from imagetool.cli.grammar import Wrong, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def run(args: list[str]) -> int:
    """Run a command line; return an exit code of docs/exit-codes.md."""
    if args[:1] == ["__complete"]:
        from imagetool.cli.completion import complete

        return _guarded(lambda: complete(args[1:]))
    try:
        parsed = parse(args, find_command, GLOBALS)
    except Wrong:
        from imagetool.cli.habits import in_our_words
        from imagetool.cli.typed import run_typed  # help, errors, and the commands of other packages

        known = in_our_words(args)
        return run(known) if known != args else _guarded(lambda: run_typed(args))
    return _guarded(lambda: call(parsed.command, Globals(**parsed.globals), parsed.values))


def _guarded(action: Callable[[], int]) -> int:
    """Call it; return its exit code, or that of the error that it raised. A bug's is raised again."""
    try:
        code = action()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _forget_stdout()
        return 141
    except Exception as error:  # noqa: BLE001 - what is no error of ours is raised again
        return _reported(error)
    return code


def _interrupted() -> int:
    """Say so, and hear of no more interrupts: told once more at its end, the interpreter would lose the status."""
    while True:
        try:
            import signal

            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            continue
        sys.stderr.write("imagetool: interrupted\n")
        return 130


def _forget_stdout() -> None:
    """Let nothing be written at exit to a reader that has gone."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reported(error: Exception) -> int:
    """Say what went wrong and return its exit code; raises it again when it is none of ours."""
    from imagetool.errors import ImagetoolError, StorageError

    if isinstance(error, OSError):  # a path that nobody foresaw: the system's own words say more than our stack does
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}"
        if isinstance(error, FileNotFoundError) and not where:  # what os.getcwd says
            text = "the current directory is not there any more: cd to another"
        error = StorageError(text)
    if not isinstance(error, ImagetoolError):
        raise error
    from imagetool.cli.render import report

    report(error, sys.stderr)
    return error.exit_code
