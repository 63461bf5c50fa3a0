"""What a person sees of a mistake: the line, a caret under the word, a hint. Golden files in fixtures/dockerfiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.dockerfile import expand_instruction, parse
from imagetool.dockerfile.excerpt import excerpt
from imagetool.dockerfile.lines import read_lines
from imagetool.dockerfile.span import Span
from imagetool.errors import DockerfileError

ERRORS = Path(__file__).parents[3] / "fixtures" / "dockerfiles" / "errors"


def read(path: Path) -> None:
    for stage in parse(path.read_bytes(), file=path.name).stages:
        for instruction in (stage.base, *stage.instructions):
            expand_instruction(instruction, {}, instruction.source.escape)


def shown(path: Path) -> str:
    """Return what the program prints about the first mistake of a file."""
    with pytest.raises(DockerfileError) as refused:
        read(path)
    return f"{refused.value}\n{refused.value.excerpt}\n"


@pytest.mark.parametrize("path", sorted(ERRORS.glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_a_mistake_is_shown_as_in_its_golden_file(path: Path, request: pytest.FixtureRequest) -> None:
    golden = path.with_suffix(".txt")
    if request.config.getoption("--update-golden"):
        golden.write_text(shown(path))
    assert shown(path) == golden.read_text(), "if this is meant: pytest --update-golden"


def test_every_golden_file_has_its_mistake() -> None:
    files = {path.stem for path in ERRORS.glob("*.Dockerfile")}
    assert len(files) > 20
    assert {path.stem for path in ERRORS.glob("*.txt")} == files


def test_every_token_knows_its_place_across_continuations() -> None:
    text = "FROM a\n  RUN \\\n # c\n\n  --mount=type=tmp\\\nfs,target=/t -- ls \\\n   'a b'\n"
    line = read_lines(text).logical[1]
    source = line.source("F", tuple(text.split("\n")), "\\")
    assert [(token.kind, token.text, token.span) for token in source.tokens()] == [
        ("keyword", "RUN", Span(2, 3, 2, 6)),
        ("flag", "--mount=type=tmpfs,target=/t", Span(5, 3, 6, 13)),
        ("flag", "--", Span(6, 14, 6, 16)),
        ("word", "ls", Span(6, 17, 6, 19)),
        ("word", "'a b'", Span(7, 4, 7, 9)),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('RUN ["a b", "c\\"d"]', ["keyword RUN", 'string "a b"', 'string "c\\"d"']),
        ("ONBUILD COPY --from=x a b", ["keyword ONBUILD", "keyword COPY", "flag --from=x", "word a", "word b"]),
        ('HEALTHCHECK --retries=3 CMD ["x"]', ["keyword HEALTHCHECK", "flag --retries=3", "keyword CMD", 'string "x"']),
        ("ENV a='b c' d=e", ["keyword ENV", "word a='b c'", "word d=e"]),
        ("from a As b", ["keyword from", "word a", "word As", "word b"]),
        ("CMD [1]", ["keyword CMD"]),
    ],
)
def test_an_instruction_is_taken_apart_into_tokens(text: str, expected: list[str]) -> None:
    source = read_lines(text).logical[0].source("F", (text,), "\\")
    assert [f"{token.kind} {token.text}" for token in source.tokens()] == expected


def test_a_range_outside_the_file_shows_nothing() -> None:
    assert excerpt(("a",), 0, 0) == ""
    assert excerpt(("a",), 2, 2) == ""
