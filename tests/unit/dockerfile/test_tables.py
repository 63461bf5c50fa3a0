"""Tables of expansions and of ignore rules, written out by hand in fixtures/dockerfiles/tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imagetool.dockerfile import IgnoreMatch, IgnoreRules, expand
from imagetool.errors import DockerfileError

TABLES = Path(__file__).parents[3] / "fixtures" / "dockerfiles" / "tables"


def expansions() -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Return the variables, and the words with `->` and a result or `!>` and a part of an error."""
    env: dict[str, str] = {}
    cases: list[tuple[str, str, str]] = []
    for line in (TABLES / "expansion.txt").read_text().split("\n"):
        variable = re.fullmatch(r"(\w+) := ?(.*)", line)
        case = re.fullmatch(r"(.*?) (->|!>) (.*)", line)
        if variable:
            env[variable[1]] = variable[2]
        elif case and not line.startswith("#"):
            cases.append((case[1], case[2], case[3]))
    return env, cases


ENV, EXPANSIONS = expansions()


def test_the_tables_are_large() -> None:
    assert len(EXPANSIONS) >= 250
    assert sum(relation == "!>" for _, relation, _ in EXPANSIONS) >= 40
    assert len(IGNORED) >= 100
    assert sum(len(verdicts) for _, verdicts in IGNORED) >= 250
    for operator in (":-", "-", ":+", "+", ":?", "?", "#", "##", "%", "%%", "/", "//"):
        assert sum(bool(re.search(rf"\w{re.escape(operator)}", word)) for word, _, _ in EXPANSIONS) >= 4, operator


@pytest.mark.parametrize(("word", "relation", "expected"), EXPANSIONS, ids=[word for word, _, _ in EXPANSIONS])
def test_a_word_expands_as_the_table_says(word: str, relation: str, expected: str) -> None:
    if relation == "->":
        assert expand(word, ENV) == expected
        return
    with pytest.raises(DockerfileError) as refused:
        expand(word, ENV)
    assert expected in refused.value.message


def ignored() -> list[tuple[str, list[str]]]:
    """Return the ignore files, each with its lines of verdicts."""
    blocks: list[tuple[list[str], list[str]]] = []
    for line in (TABLES / "ignore.txt").read_text().split("\n"):
        if line.startswith("|"):
            if not blocks or blocks[-1][1]:
                blocks.append(([], []))
            blocks[-1][0].append(line[1:])
        elif line[:2] in ("- ", "+ ", "! "):
            blocks[-1][1].append(line)
    return [("\n".join(rules), verdicts) for rules, verdicts in blocks]


IGNORED = ignored()


@pytest.mark.parametrize(("rules", "verdicts"), IGNORED, ids=[rules.replace("\n", " ") for rules, _ in IGNORED])
def test_an_ignore_file_leaves_out_what_the_table_says(rules: str, verdicts: list[str]) -> None:
    if verdicts[0].startswith("! "):
        with pytest.raises(DockerfileError, match=verdicts[0][2:]):
            IgnoreRules.parse(rules)
        return
    found = IgnoreRules.parse(rules)
    for verdict in verdicts:
        path = verdict[2:]
        assert found.excludes(path) == verdict.startswith("-"), verdict
        above = IgnoreMatch()
        for part in re.finditer(r"/|\Z", path):  # as a walk asks: directory by directory
            above = found.match(path[: part.start()], above)
        assert above.excluded == verdict.startswith("-"), verdict
