"""Entry point. `--version` is answered before anything else is imported."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Run the command line."""
    _fill_closed_streams()
    args = sys.argv[1:]
    if args in (["--version"], ["version"]):
        from imagetool import __version__

        try:
            sys.stdout.write(f"imagetool {__version__}\n")
            sys.stdout.flush()
        except OSError as error:
            _end(error)
        return
    from imagetool.cli.app import run

    try:
        code = run(args)
    except Exception:  # noqa: BLE001 - a bug; its traceback is for the report
        import traceback

        traceback.print_exc()
        sys.stderr.write("imagetool: this is a bug in imagetool; please report it with the lines above\n")
        code = 125
    sys.exit(code)


def _fill_closed_streams() -> None:
    """Have streams that were closed when the program began lead nowhere.

    Otherwise the next files to be opened, blobs and locks, would be what other programs take for their streams.
    """
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
            if number:
                setattr(sys, ("stdin", "stdout", "stderr")[number], open(number, "w", encoding="utf-8"))
            else:
                sys.stdin = open(number, encoding="utf-8")
        os.close(number)


def _end(error: OSError) -> NoReturn:
    """End when there is no room for a line, or nobody to read it; see docs/exit-codes.md."""
    if not isinstance(error, BrokenPipeError):
        sys.stderr.write(f"imagetool: {error.strerror}\n")
    os._exit(141 if isinstance(error, BrokenPipeError) else 8)


if __name__ == "__main__":
    main()
