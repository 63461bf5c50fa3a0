"""Whatever the bytes, reading them ends in a value or in a DockerfileError."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.dockerfile import (
    IgnoreRules,
    expand,
    expand_instruction,
    expand_words,
    match,
    parse,
    parse_ports,
    parse_trigger,
    script_of,
)
from imagetool.dockerfile.edit import Dockerfile
from imagetool.dockerfile.instructions import Run
from imagetool.dockerfile.lines import read_lines
from imagetool.dockerfile.lint import FORMATS, lint, render
from imagetool.errors import DockerfileError

#: Pieces that mean something, so that random files get past the first line.
_PIECES = st.sampled_from(
    """FROM RUN COPY ADD ENV LABEL ARG ONBUILD HEALTHCHECK EXPOSE VOLUME SHELL USER CMD NONE AS a b= --from= --mount=
    type=cache, target= --chown= --link -- <<X <<-X <<'X' X $ ${ } ${a:-b} ${a#*} ${a/b/c} ' " \\ ` [ ] ["a"] , : / =
    * ** ? ! # - 80 1-2 /tcp 5s \u00e9 \x00 \ufeff \U0001f600""".split()  # noqa: SIM905 it would be a page long
)
_TEXT = st.lists(st.one_of(_PIECES, st.sampled_from([" ", " ", "\n", "\n", "\\\n", "\t", "\r\n"])), max_size=40).map(
    "".join
)
_BYTES = st.one_of(st.binary(max_size=200), _TEXT.map(lambda text: text.encode()))


def refused_or_read(read: Callable[[], object]) -> None:
    refusal = None
    try:
        read()
    except DockerfileError as error:
        refusal = error
    if refusal:
        assert refusal.message
        assert "\n" not in str(refusal)
        assert "\x1b" not in refusal.excerpt


@settings(max_examples=300, deadline=None)
@given(_BYTES)
def test_a_dockerfile_of_any_bytes_is_read_or_refused(raw: bytes) -> None:
    for text in (raw, b"FROM a\n" + raw):
        refused_or_read(functools.partial(parse, text))


@settings(max_examples=300, deadline=None)
@given(_TEXT, st.dictionaries(st.sampled_from("ab"), st.text(max_size=5)))
def test_any_instruction_expands_or_is_refused_with_its_place(text: str, env: dict[str, str]) -> None:
    try:
        instructions = parse("FROM a\n" + text.replace("\0", "")).stages[0].instructions
    except DockerfileError:
        return
    for instruction in instructions:
        if isinstance(instruction, Run):
            script_of(instruction)
        place = instruction.source.first_line
        try:
            assert type(expand_instruction(instruction, env)) is type(instruction)
        except DockerfileError as error:
            place = error.line
        assert place == instruction.source.first_line


@settings(max_examples=300, deadline=None)
@given(_TEXT)
def test_any_other_text_is_read_or_refused(text: str) -> None:
    refused_or_read(lambda: parse_trigger(text))
    refused_or_read(lambda: IgnoreRules.parse(text))
    refused_or_read(lambda: expand(text, {"a": "b"}))
    refused_or_read(lambda: expand_words(text, {"a": "b c"}, "`"))
    refused_or_read(lambda: match(text, "a/b"))
    refused_or_read(lambda: parse_ports(text.split()))
    refused_or_read(lambda: Dockerfile(fileobj=io.BytesIO(text.encode())).structure)


def looked_over(text: str) -> None:
    """Lint a text; whatever is found stands in the file, and every format takes it."""
    dockerfile = parse(text)
    report = lint(dockerfile, ignore=IgnoreRules.of(["a", "*/b"]), build_args={"a": "b"})
    lines = dockerfile.stages[0].base.source.lines
    for finding in report.findings:
        span = finding.span
        assert 1 <= span.line <= span.end_line <= len(lines)
        assert 1 <= span.column <= len(lines[span.line - 1]) + 1
        assert finding.detail
        assert "\n" not in finding.detail
    for form in FORMATS:
        rendered = render([report], form)
        assert "\x1b" not in rendered
        if form in ("json", "sarif", "gitlab"):
            json.loads(rendered)


@settings(max_examples=300, deadline=None)
@given(_TEXT)
def test_the_lint_finds_something_in_the_file_or_refuses_it(text: str) -> None:
    refused_or_read(lambda: looked_over("FROM a\n" + text.replace("\0", "")))


@settings(max_examples=200, deadline=None)
@given(_TEXT)
def test_every_token_stands_where_its_span_says(text: str) -> None:
    try:
        lines = read_lines("FROM a\n" + text.replace("\0", ""))
    except DockerfileError:
        return
    for line in lines.logical:
        source = line.source("F", lines.physical, lines.directives.escape)
        for token in source.tokens():
            span = token.span
            assert source.first_line <= span.line <= span.end_line <= source.last_line
            if span.line == span.end_line:
                assert lines.physical[span.line - 1][span.column - 1 : span.end_column - 1] == token.text


@given(st.text())
def test_single_quotes_protect_everything_but_themselves(text: str) -> None:
    bare = text.replace("'", "")
    assert expand(f"'{bare}'", {"a": "b"}) == bare


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.sampled_from("\\`"))
def test_an_escape_before_every_character_protects_it(text: str, escape: str) -> None:
    assert expand("".join(escape + char for char in text), {"a": "b"}, escape) == text


@given(st.text(alphabet="ab$'\"\\ ", max_size=12))
def test_the_value_of_a_variable_is_not_expanded_again(value: str) -> None:
    assert expand("x${v}", {"v": value}) == "x" + value
