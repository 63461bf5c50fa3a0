"""Every command's help is pinned: a change of the command line shows in the golden files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.cli.commands import all_commands

COMMANDS = (*all_commands(), "registry", "registry serve", "registry gc")
GOLDEN = Path(__file__).parents[2] / "fixtures/golden/cli"
_PROGRAM = [sys.executable, "-m", "imagetool"]
_PLAIN = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


def golden_of(command: str) -> Path:
    return GOLDEN / f"{command.replace(' ', '-') or 'imagetool'}.txt"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_as_it_was(command: str, request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        [*_PROGRAM, *command.split(), "--help"], capture_output=True, text=True, env=_PLAIN, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    golden = golden_of(command)
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text(), "if this is meant: pytest --update-golden"


def test_no_golden_file_is_of_a_command_that_has_gone() -> None:
    assert set(GOLDEN.iterdir()) == {golden_of(command) for command in ("", *COMMANDS)}
