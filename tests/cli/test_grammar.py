"""The command line's own parser: it agrees with typer, which help and errors come from, on all it takes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.cli import typed
from imagetool.cli.commands import FAMILIES, GLOBALS, all_commands, find_command
from imagetool.cli.grammar import Argument, Command, Option, Wrong, parse, plain
from imagetool.runtime.executors import ISOLATIONS

COMMANDS = all_commands()
Seen = tuple[str, dict[str, Any], dict[str, Any]]
_WORDS = st.sampled_from(["x", "a=b", "dir/app:1", "oci:x:y", "-", "é", "", "1", "type=oci,dest=o"])


@pytest.fixture(scope="module")
def by_typer() -> Iterator[Any]:
    """Parse with the typer program; what a command would be called with comes back instead."""
    seen: list[Seen] = []

    def note(command: Command, globals: Any, values: dict[str, Any]) -> int:
        chosen = {option.name: getattr(globals, option.name) for option in GLOBALS}
        seen.append((command.name, chosen, {name: _listed(value) for name, value in values.items()}))
        return 0

    patched = pytest.MonkeyPatch()
    patched.setattr(typed, "call", note)
    program = typer.main.get_command(typed.program())

    def run(args: list[str]) -> Seen:
        program.main(plain(args, find_command, GLOBALS), prog_name="imagetool", standalone_mode=False)
        return seen.pop()

    yield run
    patched.undo()


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _by_us(args: list[str]) -> Seen:
    parsed = parse(args, find_command, GLOBALS)
    return parsed.command.name, parsed.globals, parsed.values


def _option(option: Option) -> st.SearchStrategy[list[str]]:
    if not option.takes_value:
        spelt = list(option.spellings) + [f"{option.names[0]}={value}" for value in ("true", "false")]
        return st.sampled_from(spelt).map(lambda text: [text])
    values = st.sampled_from(option.choices) if option.choices else _WORDS
    forms = [st.just([option.names[0]])] if option.bare else []
    for name in option.names:
        forms.append(st.tuples(st.just(name), values).map(list))
        glue = "=" if name.startswith("--") else ""
        forms.append(values.filter(bool).map(lambda value, start=name + glue: [f"{start}{value}"]))
    return st.one_of(forms)


def _argument(argument: Argument) -> st.SearchStrategy[list[list[str]]]:
    value = st.sampled_from(argument.choices) if argument.choices else _WORDS.filter(bool)
    least = 1 if argument.required else 0
    return st.lists(value.map(lambda text: [text]), min_size=least, max_size=3 if argument.many else 1)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Draw a right command line: options and arguments mixed, the global ones anywhere."""
    command = COMMANDS[draw(st.sampled_from(sorted(COMMANDS)))]
    before = draw(st.lists(st.one_of([_option(option) for option in GLOBALS]), max_size=2))
    options = draw(st.lists(st.one_of([_option(option) for option in (*command.options, *GLOBALS)]), max_size=4))
    words = [word for argument in command.arguments for word in draw(_argument(argument))]
    after = list(options)
    for word in words:  # in their order, at any places
        at = draw(st.integers(0, len(after)))
        after.insert(at, word) if not _has_word(after[at:]) else after.append(word)
    if draw(st.booleans()) and not words:
        after.append(["--"])
    return [text for part in (*before, [command.name], *after) for text in part]


def _has_word(parts: list[list[str]]) -> bool:
    return any(not part[0].startswith("-") or part[0] == "-" for part in parts)


@settings(max_examples=150, deadline=None)
@given(args=lines())
def test_a_right_command_line_means_the_same_to_typer(by_typer: Any, args: list[str]) -> None:
    assert _by_us(args) == by_typer(args)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--help"],
        ["build", "--help"],
        ["bild", "."],
        ["build"],
        ["build", ".", "more"],
        ["build", "-t"],
        ["build", "--tga", "x", "."],
        ["build", "--timestamps", "never", "."],
        ["build", "--no-cache=perhaps", "."],
        ["tag", "a"],
        ["completion", "csh"],
        ["registry", "serve", "--root", "x"],
        ["--tls-verify=maybe", "images"],
    ],
    ids=" ".join,
)
def test_what_is_not_right_is_left_to_typer(args: list[str]) -> None:
    with pytest.raises(Wrong):
        parse(args, find_command, GLOBALS)


@pytest.mark.parametrize("spelt", [["--tls-verify=false"], ["--no-tls-verify"]], ids=" ".join)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_registries_need_not_be_verified_in_either_spelling_at_any_place(spelt: list[str], place: int) -> None:
    args = ["push", "a", "b"]
    args[place:place] = spelt
    assert parse(args, find_command, GLOBALS).globals["tls_verify"] is False


def test_after_two_dashes_everything_is_an_argument() -> None:
    values = parse(["umount", "--", "-t", "--root"], find_command, GLOBALS).values
    assert values == {"all": False, "containers": ["-t", "--root"]}


def test_options_of_other_packages_are_not_ours_to_move() -> None:
    args = ["--tls-verify=false", "registry", "serve", "--root", "x", "--tls-verify=false"]
    assert plain(args, find_command, GLOBALS) == [
        "--no-tls-verify",
        "registry",
        "serve",
        "--root",
        "x",
        "--tls-verify=false",
    ]


@pytest.mark.parametrize("command", ["build", "run"])
def test_the_isolations_that_can_be_chosen_are_those_there_are(command: str) -> None:
    isolation = next(option for option in COMMANDS[command].options if option.name == "isolation")
    assert isolation.choices == tuple(ISOLATIONS)


def test_after_an_image_to_run_everything_is_the_commands_own() -> None:
    parsed = parse(["run", "-e", "A=1", "img", "sh", "-e", "--root", "--", "x"], find_command, GLOBALS)
    assert parsed.values["command"] == ["sh", "-e", "--root", "--", "x"]
    assert parsed.values["env"] == ["A=1"]
    assert parsed.globals["root"] is None


@pytest.mark.parametrize(
    ("args", "container", "command"),
    [
        (["debug"], None, []),
        (["debug", "--", "ls", "-l"], "", ["ls", "-l"]),
        (["debug", "-u", "1", "box", "ls", "-l"], "box", ["ls", "-l"]),
        (["debug", "box", "--", "ls"], "box", ["--", "ls"]),
    ],
)
def test_a_command_line_may_follow_in_place_of_what_may_be_left_out(
    by_typer: Any, args: list[str], container: str | None, command: list[str]
) -> None:
    seen = _by_us(args)
    assert (seen[2]["container"], seen[2]["command"]) == (container, command)
    assert by_typer(args) == seen


def test_each_family_has_the_commands_that_its_name_says_and_functions_for_them() -> None:
    for family, names in FAMILIES.items():
        module = import_module(f"imagetool.cli.commands.{family}")
        assert tuple(command.name for command in module.COMMANDS) == names
        for command in module.COMMANDS:
            target, _, function = command.target.partition(":")
            assert callable(getattr(import_module(f"imagetool.cli.{target}"), function))
            assert find_command(command.name) is command
    assert find_command("no-such-command") is None
