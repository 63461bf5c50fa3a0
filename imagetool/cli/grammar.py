"""What the words of a command line mean: commands, options and arguments as data, and their parser.

The table of commands (`commands`) is written in these terms and is the one source of truth: a
right command line is parsed here in well under a millisecond; for help and for the explanation of
wrong ones `typed` makes the typer program from the same table. Plain classes, no typing module and
no dataclasses: this module is on the path of every start (docs/adr/0020).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_KEYWORDS = ("for", "from", "import", "in", "is", "with")


class Option:
    """An option.

    names: as written, the long one first; its name in the values is the long one's without dashes,
    with an underscore after it when that is a word of Python.
    kind: text, file (completed as a path), flag (takes no value), switch (--x and --no-x; --x=false too).
    many: may be given several times; the value is a list.
    choices: the only values there are, empty when any will do.
    bare: what it means without a value, "" when it must have one; one follows only if it is among the choices.
    """

    __slots__ = ("bare", "choices", "default", "help", "kind", "many", "name", "names")

    def __init__(
        self,
        *names: str,
        help: str,
        kind: str = "text",
        many: bool = False,
        default: Any = None,
        choices: Sequence[str] = (),
        bare: str = "",
    ) -> None:
        self.names = names
        name = names[0].lstrip("-").replace("-", "_")
        self.name = f"{name}_" if name in _KEYWORDS else name
        self.help = help
        self.kind = kind
        self.many = many
        self.default = False if kind == "flag" else [] if many else default
        self.choices = tuple(choices)
        self.bare = bare

    def is_bare(self, rest: Sequence[str]) -> bool:
        """Whether it has no value, when `rest` is what follows it."""
        return bool(self.bare) and (not rest or rest[0] not in self.choices)

    @property
    def takes_value(self) -> bool:
        """Whether a value follows."""
        return self.kind not in ("flag", "switch")

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every way to begin it."""
        return (*self.names, f"--no-{self.names[0][2:]}") if self.kind == "switch" else self.names


class Argument:
    """A positional argument. choices: as of `Option`.

    kind: text, image or file, for completion; command for what is another program's command line:
    after the argument before it, nothing is an option of ours any more.
    """

    __slots__ = ("choices", "default", "help", "kind", "many", "name", "required")

    def __init__(
        self,
        name: str,
        *,
        help: str,
        kind: str = "text",
        required: bool = True,
        many: bool = False,
        default: Any = None,
        choices: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.help = help
        self.kind = kind
        self.required = required
        self.many = many
        self.default = [] if many else default
        self.choices = tuple(choices)


class Command:
    """A command. `target` is MODULE:FUNCTION below imagetool.cli, called with the globals and the values by name."""

    __slots__ = ("arguments", "help", "name", "options", "target")

    def __init__(self, name: str, target: str, help: str, *parameters: Option | Argument) -> None:
        self.name = name
        self.target = target
        self.help = help
        self.options = [one for one in parameters if isinstance(one, Option)]
        self.arguments = [one for one in parameters if isinstance(one, Argument)]

    def ends_options(self, words: int) -> bool:
        """Whether all that follows so many arguments, one at least, is another program's command line."""
        return bool(self.arguments) and words >= len(self.arguments) - 1 and self.arguments[-1].kind == "command"

    def skipped(self, words: int) -> int:
        """Return how many arguments a `--` after so many leaves out, because another program's command line follows."""
        left = self.arguments[words:-1]
        ends = self.arguments and self.arguments[-1].kind == "command"
        return len(left) if ends and not any(one.required for one in left) else 0


class Parsed:
    """A right command line: the command, the global options and the command's values, by name."""

    __slots__ = ("command", "globals", "values")

    def __init__(self, command: Command, globals: dict[str, Any], values: dict[str, Any]) -> None:
        self.command = command
        self.globals = globals
        self.values = values


class Wrong(Exception):
    """A command line this parser does not take; `typed` finds out and says why."""


def parse(args: Sequence[str], find: Callable[[str], Command | None], shared: Sequence[Option]) -> Parsed:
    """Parse a command line; raises Wrong for one that is not right, or that asks for help.

    Options and arguments may be mixed; `--` ends the options, and where the command line of another
    program follows, also the arguments that may be left out: those are "". The shared (global) options may
    stand anywhere. `find` gives the command of a name.
    """
    command: Command | None = None
    options = {name: option for option in shared for name in option.spellings}
    values: dict[str, Any] = {}
    words: list[str] = []
    at, only_words = 0, False
    while at < len(args):
        text = args[at]
        at += 1
        if only_words or text == "-" or not text.startswith("-"):
            if command is None:
                command = find(text)
                if command is None:
                    raise Wrong
                options.update((name, option) for option in command.options for name in option.spellings)
            else:
                words.append(text)
                if command.ends_options(len(words)):
                    words += args[at:]
                    break
        elif text == "--":
            only_words = True
            words += [""] * (command.skipped(len(words)) if command else 0)
        else:
            name, value = _split(text)
            option = options.get(name)
            if option is None:
                raise Wrong
            if option.takes_value and value is None and option.is_bare(args[at : at + 1]):
                value = option.bare
            elif option.takes_value and value is None:
                if at == len(args):
                    raise Wrong
                value = args[at]
                at += 1
            _put(values, option, name, value)
    if command is None:
        raise Wrong
    chosen = {option.name: values.pop(option.name, option.default) for option in shared}
    for option in command.options:
        values.setdefault(option.name, option.default)
    _place(values, command, words)
    return Parsed(command, chosen, values)


def _split(text: str) -> tuple[str, str | None]:
    """Split `--name=value` and `-nvalue`; the value is None where none is attached."""
    if text.startswith("--"):
        name, equals, value = text.partition("=")
        return name, value if equals else None
    return text[:2], text[2:] or None


def _put(values: dict[str, Any], option: Option, name: str, value: str | None) -> None:
    if option.takes_value:
        if option.choices and value not in option.choices:
            raise Wrong
        if option.many:
            values.setdefault(option.name, []).append(value)
        else:
            values[option.name] = value
        return
    if value not in (None, "true", "false"):
        raise Wrong
    values[option.name] = (value != "false") != (name not in option.names)


def _place(values: dict[str, Any], command: Command, words: list[str]) -> None:
    """Give the words to the arguments, in order; the last may take several."""
    for argument in command.arguments:
        if argument.many:
            values[argument.name], words = words, []
            if argument.required and not values[argument.name]:
                raise Wrong
        elif words:
            values[argument.name] = words.pop(0)
        elif argument.required:
            raise Wrong
        else:
            values[argument.name] = argument.default
        if argument.choices and values[argument.name] not in argument.choices:
            raise Wrong
    if words:
        raise Wrong


def plain(args: Sequence[str], find: Callable[[str], Command | None], shared: Sequence[Option]) -> list[str]:
    """Return a command line in the narrower form that typer takes.

    Shared options come first, and `--flag=true` or `--switch=false` become `--flag` or
    `--no-switch`. What is not understood stays as it is.
    """
    front: list[list[str]] = []
    rest: list[list[str]] = []
    command: Command | None = None
    options = {name: option for option in shared for name in option.spellings}
    at = words = 0
    while at < len(args):
        text = args[at]
        at += 1
        if text == "--":
            skipped = [""] * (command.skipped(words) if command else 0)
            rest.append([*skipped, *args[at - 1 :]])
            break
        if text == "-" or not text.startswith("-"):
            rest.append([text])
            if command is None:
                command = find(text)
                if command is None:  # of another package, or wrong: not ours to read
                    rest.append([*args[at:]])
                    break
                options.update((name, option) for option in command.options for name in option.spellings)
            else:
                words += 1
                if command.ends_options(words):
                    rest.append(["--", *args[at:]])
                    break
            continue
        name, value = _split(text)
        option = options.get(name)
        target = front if option in shared else rest
        if option is None or (not option.takes_value and value not in (None, "true", "false")):
            target.append([text])
        elif option.takes_value and value is None and option.is_bare(args[at : at + 1]):
            target.append([name, option.bare])
        elif option.takes_value:
            target.append([text] if value is not None else [text, *args[at : at + 1]])
            at += value is None
        else:
            on = (value != "false") != (name not in option.names)
            for spelt in option.spellings:  # the last one counts
                while [spelt] in target:
                    target.remove([spelt])
            if on or option.kind == "switch":
                target.append([option.names[0] if on else option.spellings[-1]])
    return [text for part in front + rest for text in part]
