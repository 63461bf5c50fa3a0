"""Large hostile files are parsed or refused in bounded time: our own, whatever else the machine does."""

from __future__ import annotations

import time

import pytest

from imagetool.dockerfile import IgnoreRules, expand_instruction, parse
from imagetool.dockerfile.lint import FORMATS, lint, render
from imagetool.errors import DockerfileError

LINE = 60_000
#: A logical line of about 2 MB out of lines that are each short enough.
LONG = " \\\n".join


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("# syntax=a" + " " * LINE + "b\nFROM a\n", id="spaces in a directive"),
        pytest.param("FROM a\nRUN " + "\\ " * (LINE // 2), id="escapes and spaces"),
        pytest.param("FROM a\nRUN <<" + " " * LINE + "<", id="spaces after a heredoc operator"),
        pytest.param("FROM a\nRUN <<" + " \\\n".join([" " * 1000] * 2000) + "<", id="more spaces after it"),
        pytest.param("FROM a\nRUN " + "<<a " * 10_000, id="heredocs without an end"),
        pytest.param("FROM a\nRUN [" + "[" * LINE, id="nested arrays"),
        pytest.param("FROM a\nRUN [" + "1" * LINE + "]", id="a long number"),
        pytest.param("FROM a\nCOPY " + LONG(["--exclude=a " * 4000] * 40) + "b /c", id="flags"),
        pytest.param("FROM a\nENV " + LONG(["a=$b " * 10_000] * 40), id="pairs"),
        pytest.param("FROM a\nENV a=" + '"' * LINE, id="quotes"),
        pytest.param("FROM a\nENV a=" + "${a:-" * (LINE // 5), id="substitutions"),
        pytest.param("FROM a\nEXPOSE " + "0-65535 " * 7000, id="ports"),
        pytest.param("FROM a\nHEALTHCHECK --interval=" + "1" * LINE + " CMD a", id="digits of a duration"),
        pytest.param("FROM a\n" + "RUN a \\\n\n" * 200_000, id="blank continuations"),
        pytest.param("FROM a\n" + "RUN <<X\nX\n" * 40_000, id="many heredocs"),
        pytest.param("FROM a\nRUN --mount=" + "a," * (LINE // 2), id="mount options"),
        pytest.param('FROM a\nRUN --mount=\\"' + '\\"\\"' * (LINE // 4), id="quotes in mount options"),
    ],
)
def test_a_hostile_file_takes_bounded_time(text: str) -> None:
    before = time.process_time()
    try:
        for instruction in parse(text).stages[0].instructions:
            expand_instruction(instruction, {"b": "c"})
    except DockerfileError as error:
        assert len(str(error)) < 500  # noqa: PT017 some are refused, some are read
    assert time.process_time() - before < 10


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("FROM scratch\n" + "".join(f"ENV v{n}=$w{n}\n" for n in range(4900)), id="unknown variables"),
        pytest.param("FROM scratch\nUSER " + "".join(f"$v{n}" for n in range(9000)), id="unknown variables in a word"),
        pytest.param("FROM scratch\nEXPOSE " + LONG(["1:1/TCP " * 5000] * 10), id="ports"),
        pytest.param("FROM scratch\nENV " + LONG([f"a{n}_KEY=1" for n in range(4900)]), id="secrets"),
        pytest.param("FROM scratch\nCOPY " + LONG(["a " * 20_000] * 20) + " /", id="sources"),
        pytest.param("".join(f"FROM s{n} AS s{n + 1}\nENV a{n}=1\n" for n in range(2400)), id="stages"),
        pytest.param("FROM scratch\n" + "RUN a \\\n\n" * 4900, id="blank continuations"),
        pytest.param("FROM scratch\n" + "RUN a\n" * 20_000, id="instructions"),
        pytest.param("FROM scratch\n" + "# check=skip=a\n" * 100_000 + "CMD a\n", id="comments"),
    ],
)
def test_a_hostile_file_is_linted_in_bounded_time(text: str) -> None:
    before = time.process_time()
    try:
        report = lint(parse(text), ignore=IgnoreRules.parse("a\n"))
        for form in FORMATS:
            render([report], form)
    except DockerfileError as error:
        assert "not checked" in str(error)  # noqa: PT017 most are checked
    assert time.process_time() - before < 20


def test_a_hostile_ignore_file_takes_bounded_time() -> None:
    before = time.process_time()
    rules = IgnoreRules.parse("\n".join(["*a" * 1000 + "[a-z]" * 1000, "**/" * 1000 + "x", "../" * LINE + "a"]))
    assert not rules.excludes("a/" * 50 + "b")
    assert time.process_time() - before < 10
