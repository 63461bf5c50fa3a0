"""The lint: every rule by the examples of its documentation, and the edges that those do not show."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imagetool.dockerfile import IgnoreRules, parse
from imagetool.dockerfile.lint import RULES, BaseImage, Report, lint
from imagetool.dockerfile.span import Span
from imagetool.errors import DockerfileError
from imagetool.oci.platform import Platform

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "lint.md"


@dataclass
class Section:
    """What the documentation has about one rule."""

    ignore: str = ""
    bad: list[str] = field(default_factory=list)
    good: list[str] = field(default_factory=list)


def documented() -> dict[str, Section]:
    sections: dict[str, Section] = {}
    _, *parts = re.split(r"(?m)^## ", DOCUMENT.read_text())
    for part in parts:
        name, _, body = part.partition("\n")
        section = sections[name] = Section()
        for before, kind, text in re.findall(r"(?s)(\S+)\n```(\w+)\n(.*?)```", body):
            if kind == "dockerignore":
                section.ignore = text
            else:
                {"Bad:": section.bad, "Good:": section.good}[before].append(text)
    return sections


DOCUMENTED = documented()


def checked(text: str, ignore: str = "", **options: object) -> Report:
    def bases(image: str) -> BaseImage | None:
        platform = re.search(r"(?:only|for)-(\w+)", image)
        return BaseImage(f"linux/{platform[1]}") if platform else None

    rules = IgnoreRules.parse(ignore) if ignore else None
    return lint(parse(text), ignore=rules, bases=bases, **options)  # type: ignore[arg-type]


def found(text: str, ignore: str = "", **options: object) -> list[str]:
    return [finding.rule.name for finding in checked(text, ignore, **options).findings]


def test_code_and_documentation_have_the_same_rules_in_the_same_order() -> None:
    assert list(DOCUMENTED) == [rule.name for rule in RULES]
    assert len(RULES) == 22
    assert all(section.bad and section.good for section in DOCUMENTED.values())


@pytest.mark.parametrize("name", DOCUMENTED)
def test_each_bad_example_triggers_its_rule_and_each_good_one_nothing(name: str) -> None:
    section = DOCUMENTED[name]
    for text in section.bad:
        assert name in found(text, section.ignore), text
    for text in section.good:
        assert found(text, section.ignore) == [], text


@pytest.mark.parametrize("name", DOCUMENTED)
def test_each_rule_can_be_skipped_for_the_file_and_for_the_instruction(name: str) -> None:
    section = DOCUMENTED[name]
    for text in section.bad:
        whole = re.sub(r"# check=.*\n", "", text)
        assert name not in found(f"# check=skip={name};experimental=all\n{whole}", section.ignore)
        everywhere = re.sub(r"(?m)^(?=[A-Za-z]+ .*)", f"# check=skip={name}\n", whole)
        assert name not in found(f"# check=experimental={name}\n\n{everywhere}", section.ignore)


def test_a_finding_says_where_what_and_why() -> None:
    (finding,) = checked("FROM a\nCOPY x y\nEXPOSE 443 \\\n  80/Tcp\n").findings
    assert (finding.rule.name, finding.level, finding.file, finding.line) == (
        "ExposeProtoCasing", "warning", "Dockerfile", 4,
    )  # fmt: skip
    assert finding.span == Span(4, 3, 4, 9)
    assert "80/Tcp" in finding.detail
    assert finding.rule.anchor == "docs/reference/lint.md#exposeprotocasing"


def test_findings_come_in_order_of_lines() -> None:
    lines = [finding.line for finding in checked("from a as B\nCMD x\nENV a b\nCMD y\n").findings]
    assert lines == sorted(lines)
    assert len(lines) > 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # casing: the majority wins, upper case when there is none
        ("from a\nRUN b\n", ["ConsistentInstructionCasing"]),
        ("from a\nrun b\nUSER c\n", ["ConsistentInstructionCasing"]),
        ("arg X=1\nFROM a\nRUN b\n", []),
        ("From a as b\n", ["ConsistentInstructionCasing"]),
        # stages
        ("FROM a AS x\nFROM b AS X\n", ["DuplicateStageName", "StageNameCasing"]),
        ("FROM a AS Context\n", ["ReservedStageName", "StageNameCasing"]),
        # commands
        ('FROM a\nSHELL ["x"]\nFROM a\nCMD b\n', ["JSONArgsRecommended"]),
        ('FROM a AS x\nSHELL ["x"]\nFROM x\nCMD b\n', []),
        ("FROM a\nCMD\n", []),
        ("FROM a\nENTRYPOINT x\nRUN y\n", ["JSONArgsRecommended"]),
        ("FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\n", ["MultipleInstructionsDisallowed"]),
        ('FROM a\nCMD ["x"]\nFROM a\nCMD ["y"]\n', []),
        # WORKDIR
        ("FROM a AS x\nWORKDIR /y\nFROM x\nWORKDIR z\n", []),
        ("FROM a\nWORKDIR x\nWORKDIR y\n", ["WorkdirRelativePath"]),
        ("FROM a\nARG d\nWORKDIR $d\n", []),
        ("FROM a\nARG d=x\nWORKDIR $d\n", ["WorkdirRelativePath"]),
        ("# escape=`\nFROM a\nWORKDIR C:\\x\n", []),
        # variables in FROM
        ("FROM a:${TARGETARCH}\n", []),
        ("ARG a\nFROM x:1$a\nFROM y:$b-1\n", ["InvalidDefaultArgInFrom", "UndefinedArgInFrom"]),
        ("FROM --platform=$BUILDPLAFORM a\n", ["UndefinedArgInFrom"]),
        ("FROM --platform=${TARGETPLATFORM:-linux/amd64} a\n", ["RedundantTargetPlatform"]),
        ("FROM --platform=$TARGETOS/$TARGETARCH a\n", []),
        ("FROM --platform=nonsense/a/b/c a\n", []),
        ("FROM --platform=linux/arm64 a AS for-linux\n", []),
        # variables in instructions
        ("FROM scratch\nENV a=1 b=$a\n", ["UndefinedVar"]),
        ("FROM scratch\nENV a=1\nENV b=$a\n", []),
        ("FROM scratch\nARG a=1 b=$a\n", []),
        ("FROM scratch\nARG b=$a\n", ["UndefinedVar"]),
        ("ARG a=1\nFROM scratch\nENV b=$a\n", ["UndefinedVar"]),
        ("ARG a=1\nFROM scratch\nARG a\nENV b=$a\n", []),
        ("FROM scratch AS x\nARG a\nFROM x\nENV b=$a\n", []),
        ("FROM scratch AS x\nARG a\nFROM scratch\nENV b=$a\n", ["UndefinedVar"]),
        ("FROM scratch\nRUN echo $a\nCMD [\"$a\"]\nLABEL x='$a'\nENV y=\\$a z=$1$@\n", []),
        ("FROM scratch\nRUN --mount=type=cache,target=$a x\n", ["UndefinedVar"]),
        ("FROM scratch\nCOPY <<X <<'Y' /\n$a\nX\n$b\nY\n", ["UndefinedVar"]),
        ("FROM scratch\nUSER ${a:-b}\n", ["UndefinedVar"]),
        ("FROM unknown\nUSER $NAME\nWORKDIR $GOPATH\n", []),
        ("FROM unknown\nUSER $name\n", ["UndefinedVar"]),
        ("FROM unknown\nENV VERSION=1\nUSER $VERSIO\n", ["UndefinedVar"]),
        ("FROM for-amd64\nUSER $NAME\n", ["UndefinedVar"]),
        ("FROM scratch\nONBUILD USER $a\n", []),
        # secrets
        ("FROM a\nENV MONKEY=1 AUTHOR=2 PUBLIC_KEY=3 KEYS=4 token_version=5\n", []),
        ("FROM a\nENV API_KEY=1\nARG db_passwd AUTH\n", ["SecretsUsedInArgOrEnv"] * 3),
        ("ARG TOKEN\nFROM a\n", []),
        # old syntax
        ("FROM a\nLABEL a b\nENV c=d\n", ["LegacyKeyValueFormat"]),
        # EXPOSE
        ("FROM a\nARG p=80/UDP\nARG q\nEXPOSE $p $q 8080:80\n", ["ExposeInvalidFormat", "ExposeProtoCasing"]),
        # checks
        ("# check=skip=all\nFROM a as B\nCMD x\n", []),
        ("#check = skip = StageNameCasing , FromAsCasing\nFROM a as B\n", []),
        ("FROM a\n# check=skip=JSONArgsRecommended\n\n# why\nCMD x\n", []),
        ("FROM a\n# check=skip=JSONArgsRecommended\nRUN y\nCMD x\n", ["JSONArgsRecommended"]),
        ("FROM a\n# check = is what this does\nCMD x\n", ["JSONArgsRecommended"]),
        ("FROM a\nRUN <<X\n# check=skip=all\nX\nCMD x\n", ["JSONArgsRecommended"]),
    ],
)
def test_a_file_has_just_these_findings(text: str, expected: list[str]) -> None:
    assert sorted(found(text)) == expected


@pytest.mark.parametrize(
    ("text", "ignore", "expected"),
    [
        ("COPY a /", "a\n", 1),
        ("COPY a b/c /", "a\nb\n", 2),
        ("ADD ./a /", "a\n", 1),
        ("COPY ../a /", "a\n", 1),
        ("COPY . /", "a\n", 0),
        ("COPY . /", "*\n", 1),
        ("COPY / /", "**\n", 1),
        ("COPY a /", "*\n!b\n", 0),
        ("COPY --from=x a /", "a\n", 0),
        ("ADD https://a/a /", "**\n", 0),
        ("ARG f\nCOPY $f /", "*\n", 0),
        ("ARG f=a\nCOPY $f /", "a\n", 1),
        ("COPY *.txt /", "*.txt\n", 1),
        ("COPY <<a /b\na\n", "a\n", 0),
    ],
)
def test_ignored_files_are_found_as_the_build_finds_them(text: str, ignore: str, expected: int) -> None:
    assert found(f"FROM scratch\n{text}\n", ignore).count("CopyIgnoredFile") == expected


def test_nothing_is_said_about_ignored_files_without_a_context() -> None:
    assert found("FROM scratch\nCOPY a /\n") == []


def test_the_platform_of_a_base_image_is_compared_with_that_of_the_build() -> None:
    arm = Platform.parse("linux/arm64")
    assert found("FROM only-arm64\n") == ["InvalidBaseImagePlatform"]
    assert found("FROM only-arm64\n", platform=arm) == []
    assert found("ARG P=linux/arm64\nFROM --platform=$P only-arm64\n") == []


def test_build_arguments_are_put_in() -> None:
    text = "ARG base=scratch\nFROM $base\nARG dir\nWORKDIR $dir\n"
    assert found(text) == []
    assert found(text, build_args={"dir": "x"}) == ["WorkdirRelativePath"]
    assert found(text, build_args={"base": "only-arm64"}) == ["InvalidBaseImagePlatform"]


def test_findings_are_errors_where_the_file_or_the_build_argument_says_so() -> None:
    text = "# check=error=true;skip=FromAsCasing\nFROM a as b\nCMD x\n"
    report = checked(text)
    assert report.error
    assert [(finding.rule.name, finding.level) for finding in report.findings] == [("JSONArgsRecommended", "error")]
    report = checked(text, build_args={"BUILDKIT_DOCKERFILE_CHECK": "skip=JSONArgsRecommended"})
    assert [(finding.rule.name, finding.level) for finding in report.findings] == [("FromAsCasing", "warning")]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("# syntax=x\n# check=skp=all\nFROM a\n", 2, "unknown check option 'skp=all' (did you mean skip?)"),
        ("# check=error=maybe\nFROM a\n", 1, "error is true or false, not 'maybe'"),
        ("# check=skip=a;skip=b\nFROM a\n", 1, "the check option skip is given twice"),
        ("# check=all\nFROM a\n", 1, "unknown check option 'all'"),
        ("FROM a\n# check=skip=a;eror=true\nCMD x\n", 2, "unknown check option 'eror=true' (did you mean error?)"),
        ("FROM scratch\nUSER ${a?no user}\n", 2, "a: no user"),
        ("ARG a=${\nFROM scratch\n", 1, "missing '}'"),
    ],
)
def test_what_cannot_be_checked_is_an_error_with_its_place(text: str, line: int, message: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        checked(text)
    assert message in refused.value.message
    assert refused.value.line == line
    assert f"{line:4} | >>>" in refused.value.excerpt
