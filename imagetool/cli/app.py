"""The program: global options, command look-up, and the one place where errors become text and exit codes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from imagetool.cli.render import printable
from imagetool.errors import DockerfileError, ImagetoolError, UsageError

#: Base of what click raises for a wrong command line; typer may carry a click of its own.
_ClickError: Any = typer.BadParameter.__mro__[2]


@dataclass(slots=True)
class Options:
    """The global options."""

    root: Path | None = None
    tls_verify: bool = True


class Suggesting(TyperGroup):
    """A group that says which command was probably meant, and finds commands of other packages."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List our commands and those of installed packages."""
        from importlib.metadata import entry_points

        return [*super().list_commands(ctx), *(point.name for point in entry_points(group="imagetool.commands"))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command; those of other packages are loaded by entry point."""
        found = super().get_command(ctx, cmd_name)
        if found is None:
            from importlib.metadata import entry_points  # costs as much as the rest of the look-up

            for point in entry_points(group="imagetool.commands", name=cmd_name):
                return typer.main.get_command(point.load())
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve, with a hint for a misspelt name."""
        from difflib import get_close_matches

        try:
            return super().resolve_command(ctx, args)
        except _ClickError:
            close = get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f"; did you mean {close[0]!r}?" if close else "; see imagetool --help"
            raise UsageError(f"there is no command {args[0][:80]!r}{hint}") from None


app = typer.Typer(
    name="imagetool",
    cls=Suggesting,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Build, move, convert and verify container images, without a daemon.",
)


@app.callback()
def options(
    ctx: typer.Context,
    root: Annotated[Path | None, typer.Option("--root", help="The local store. [env: IMAGETOOL_ROOT]")] = None,
    tls_verify: Annotated[
        bool, typer.Option("--tls-verify/--no-tls-verify", help="Require registries to prove who they are.")
    ] = True,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Build, move, convert and verify container images, without a daemon."""
    ctx.obj = Options(root, tls_verify)


def run() -> None:
    """Run the program and exit with a code of docs/exit-codes.md."""
    from imagetool.cli import building, images, moving

    for module in (building, images, moving):
        module.register(app)
    sys.exit(_guarded(_normal(sys.argv[1:])))


def _normal(args: list[str]) -> list[str]:
    """Accept skopeo's spelling --tls-verify=false."""
    spelt = {"--tls-verify=false": "--no-tls-verify", "--tls-verify=true": "--tls-verify"}
    moved = [spelt[arg] for arg in args if arg in spelt]
    return moved + [arg for arg in args if arg not in spelt]


def _guarded(args: list[str]) -> int:
    try:
        result: Any = app(args, standalone_mode=False)
    except ImagetoolError as error:
        _report(error)
        return error.exit_code
    except typer.Exit as error:
        if error.exit_code == 130:  # what typer makes of an interrupt
            sys.stderr.write("imagetool: interrupted\n")
        return error.exit_code
    except _ClickError as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("imagetool: interrupted\n")
        return 130
    except BrokenPipeError:
        return 141
    return result if isinstance(result, int) else 0


def _report(error: ImagetoolError) -> None:
    sys.stderr.write(f"imagetool: {printable(str(error))}\n")
    if isinstance(error, DockerfileError) and error.excerpt:
        sys.stderr.write(f"{error.excerpt}\n")
    for note in getattr(error, "__notes__", ()):
        sys.stderr.write(f"{note}\n")
