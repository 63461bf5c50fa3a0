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

    sys.exit(run(args))


if __name__ == "__main__":
    main()
