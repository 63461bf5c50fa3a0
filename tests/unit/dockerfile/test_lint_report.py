"""The formats of findings: golden files, and what their readers insist on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagetool.dockerfile import parse
from imagetool.dockerfile.lint import FORMATS, RULES, Report, lint, render

SAMPLE = Path(__file__).parents[3] / "fixtures" / "dockerfiles" / "lint" / "sample.Dockerfile"


def report(text: str | bytes = SAMPLE.read_bytes(), file: str = "app/my Dockerfile") -> Report:
    return lint(parse(text, file=file))


def rendered(form: str) -> Any:
    return json.loads(render([report()], form, version="1.2.3"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_report_is_as_in_its_golden_file(form: str, request: pytest.FixtureRequest) -> None:
    golden = SAMPLE.with_suffix(f".{form}")
    found = render([report()], form, version="1.2.3")
    if request.config.getoption("--update-golden"):
        golden.write_text(found)
    assert found == golden.read_text(), "if this is meant: pytest --update-golden"


@pytest.mark.parametrize(
    ("form", "nothing"), [("text", ""), ("json", '{\n  "findings": []\n}\n'), ("github", ""), ("gitlab", "[]\n")]
)
def test_a_clean_file_makes_an_empty_report(form: str, nothing: str) -> None:
    assert render([report("FROM scratch\n")], form) == nothing


def test_sarif_results_point_at_their_rules_and_into_the_file() -> None:
    sarif = rendered("sarif")
    (run,) = sarif["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert sarif["version"] == "2.1.0"
    assert run["tool"]["driver"]["version"] == "1.2.3"
    assert [rule["id"] for rule in rules] == [rule.name for rule in RULES]
    lines = SAMPLE.read_text().splitlines()
    marks = set()
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "app/my%20Dockerfile"
        region = place["region"]
        assert 1 <= region["startLine"] <= region["endLine"] <= len(lines)
        assert 1 <= region["startColumn"] <= len(lines[region["startLine"] - 1]) + 1
        marks.add(result["partialFingerprints"]["imagetool/v1"])
    assert len(marks) == len(run["results"]) > 10


def test_gitlab_fingerprints_are_unique_and_do_not_move_with_the_lines() -> None:
    def marks(text: str) -> list[str]:
        return [row["fingerprint"] for row in json.loads(render([report(text)], "gitlab"))]

    text = "FROM a\nCMD x\nCMD x\nENV b c\n"
    assert len(set(marks(text))) == 4
    assert marks(text) == marks("# moved\n\n" + text)


def test_github_annotations_escape_what_github_reads() -> None:
    lines = render([report(file="a,b:c%.Dockerfile")], "github").splitlines()
    assert len(lines) == len(report().findings)
    assert all(line.startswith(("::warning ", "::notice ")) for line in lines)
    assert all("file=a%2Cb%3Ac%25.Dockerfile," in line for line in lines)


def test_control_characters_reach_no_terminal() -> None:
    hostile = report("FROM a\nWORKDIR \x1b[2Jx\nENV b c\x1b[2J\nCMD \x1b[2J\nEXPOSE 1/\x1b[2JX\n", file="Dockerfile")
    assert len(hostile.findings) > 2
    for form in ("text", "github"):
        assert "\x1b" not in render([hostile], form)


def test_several_files_make_one_report() -> None:
    files = [report("FROM a\nCMD x\n", file="one"), report("FROM a\nCMD x\n", file="two")]
    assert [row["file"] for row in json.loads(render(files, "json"))["findings"]] == ["one", "two"]
