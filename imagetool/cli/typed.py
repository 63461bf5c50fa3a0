"""The typer program, made from the table of commands: help, what is wrong with a command line, other packages.

Nothing here is needed for a right command line of ours (`grammar` parses it), so the cost of
importing typer is paid only by who asks for help or mistypes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Literal

import typer
from typer.core import TyperGroup

from imagetool.cli.commands import GLOBALS, HELP, Globals, all_commands, call, find_command
from imagetool.cli.foreign import foreign_command, foreign_names
from imagetool.cli.grammar import Argument, Command, Option, plain
from imagetool.cli.habits import hint_for
from imagetool.cli.idioms import command_hint
from imagetool.config.environment import adjust_limits
from imagetool.errors import UsageError

#: Base of what click raises for a wrong command line; typer may carry a click of its own.
_ClickError: Any = typer.BadParameter.__mro__[2]


class Suggesting(TyperGroup):
    """A group that says which command was probably meant, and finds commands of other packages."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List our commands and those of installed packages."""
        return [*super().list_commands(ctx), *foreign_names()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command; those of other packages are loaded by entry point."""
        found = super().get_command(ctx, cmd_name)
        point = None if found else foreign_command(cmd_name)
        return typer.main.get_command(point.load()) if point else found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve, with a hint for a misspelt name."""
        try:
            return super().resolve_command(ctx, args)
        except _ClickError:
            close = get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = command_hint(args[0]) or (f"did you mean {close[0]!r}?" if close else "see imagetool --help")
            raise UsageError(f"there is no command {args[0][:80]!r}; {hint}") from None


def program() -> typer.Typer:
    """Return the whole program as typer sees it."""
    app = typer.Typer(
        name="imagetool",
        cls=Suggesting,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=HELP,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    version = Option("--version", kind="flag", help="Print the version.")
    app.callback()(_with_signature(_remember, [*GLOBALS, version]))
    for command in all_commands().values():
        function = _with_signature(_calling(command), [*command.arguments, *command.options])
        app.command(command.name, help=command.help, short_help=_brief(command.help))(function)
    return app


def _brief(text: str) -> str:
    """Return the first clause of a help text, for the list of commands; of a long one the first words of it."""
    for mark in (". ", "; ", ": "):
        text = text.partition(mark)[0]
    return (text if len(text) <= 70 else text.partition(", ")[0]).rstrip(".")


def run_typed(args: list[str]) -> int:
    """Run a command line through typer; return the exit code. Raises what the command raises."""
    try:
        result: Any = program()(plain(args, find_command, GLOBALS), prog_name="imagetool", standalone_mode=False)
    except typer.Exit as error:
        if error.exit_code == 130:  # what typer makes of an interrupt
            raise KeyboardInterrupt from None
        return error.exit_code
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click's own way to say so
            raise BrokenPipeError from None
        raise
    except typer.Abort:
        raise KeyboardInterrupt from None
    except _ClickError as error:
        raise UsageError(_explained(error)) from None
    return result if isinstance(result, int) else 0


def _explained(error: Any) -> str:
    """Say what is wrong with a command line, in the house's words."""
    where = error.ctx.command_path if getattr(error, "ctx", None) else "imagetool"
    command = f"{where.partition(' ')[2]}: ".removeprefix(": ")
    wrong = getattr(error, "option_name", None)
    if wrong and hasattr(error, "possibilities"):
        options = [name for option in error.ctx.command.params for name in (*option.opts, *option.secondary_opts)]
        close = get_close_matches(wrong, options, 1)
        hint = hint_for(command.rstrip(": "), wrong) or (
            f"did you mean {close[0]!r}?" if close else f"see {where} --help"
        )
        return f"{command}there is no option {wrong[:80]!r}; {hint}"
    text = error.format_message().rstrip(".")
    return f"{command}{text[:1].lower()}{text[1:]}; see {where} --help"


def _remember(ctx: typer.Context, version: bool, **values: Any) -> None:
    if version:
        from imagetool import __version__

        sys.stdout.write(f"imagetool {__version__}\n")
        raise typer.Exit
    ctx.obj = Globals(**values)
    if find_command(ctx.invoked_subcommand or "") is None:  # of another package; `call` does it for ours
        adjust_limits(ctx.obj.limit)


def _calling(command: Command) -> Callable[..., int]:
    def function(ctx: typer.Context, **values: Any) -> int:
        return call(command, ctx.obj, values)

    return function


def _with_signature(function: Callable[..., Any], parameters: list[Option | Argument]) -> Callable[..., Any]:
    """Give a function the signature from which typer reads the parameters."""
    made = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    for one in parameters:
        made.append(
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, annotation=_type_of(one), default=_info_of(one))
        )

    def wrapper(ctx: typer.Context, **values: Any) -> Any:
        return function(ctx, **values)

    wrapper.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in made}
    return wrapper


def _type_of(one: Option | Argument) -> Any:
    if isinstance(one, Option) and not one.takes_value:
        return bool
    if one.choices:
        return Literal[one.choices]
    return list[str] if one.many else str | None


def _info_of(one: Option | Argument) -> Any:
    if isinstance(one, Argument):
        default = ... if one.required else one.default
        return typer.Argument(default, help=one.help, metavar=one.name.upper(), show_default=False)
    names = [f"{one.names[0]}/{one.spellings[-1]}", *one.names[1:]] if one.kind == "switch" else list(one.names)
    metavar = {"file": "PATH", "text": "TEXT"}.get(one.kind) if not one.choices else None
    return typer.Option(
        one.default,
        *names,
        help=one.help,
        metavar=metavar,
        show_default=bool(one.default) and one.takes_value and not one.many,
    )
