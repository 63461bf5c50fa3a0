"""Entry point. `--version` is answered before anything else is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    args = sys.argv[1:]
    if args in (["--version"], ["version"]):
        from imagetool import __version__

        sys.stdout.write(f"imagetool {__version__}\n")
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


if __name__ == "__main__":
    main()
