"""Physical lines to logical lines: rules 1 to 4 and 9 of the build reference."""

from __future__ import annotations

import pytest

from imagetool.dockerfile.lines import read_lines
from imagetool.errors import DockerfileError
from imagetool.limits import DOCKERFILE_BYTES, DOCKERFILE_LINE_BYTES


def texts(dockerfile: str | bytes) -> list[str]:
    return [line.text for line in read_lines(dockerfile).logical]


def refusal(dockerfile: str | bytes) -> DockerfileError:
    with pytest.raises(DockerfileError) as refused:
        read_lines(dockerfile)
    return refused.value


@pytest.mark.parametrize(
    ("top", "syntax", "escape", "check"),
    [
        ("# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=all\n", "docker/dockerfile:1", "`", "skip=all"),
        ("#SYNTAX =  a b \t\n", "a b", "\\", None),
        ("  # escape = `\r\n", None, "`", None),
        ("\ufeff# escape=`\n", None, "`", None),
        ("# a comment\n# escape=`\n", None, "\\", None),
        ("# unknown=1\n# escape=`\n", None, "\\", None),
        ("\n# escape=`\n", None, "\\", None),
        ("FROM x\n# escape=`\n", None, "\\", None),
        ("# escape=\n# syntax=x\n", None, "\\", None),
        ("#!/usr/bin/build\n# syntax=x\n# escape=`\n", "x", "\\", None),
    ],
)
def test_directives_are_read_from_the_top_until_anything_else(
    top: str, syntax: str | None, escape: str, check: str | None
) -> None:
    found = read_lines(top + "FROM a\n").directives
    assert (found.syntax, found.escape, found.check) == (syntax, escape, check)


@pytest.mark.parametrize("name", ["syntax", "escape", "check"])
def test_a_repeated_directive_is_an_error_at_its_own_line(name: str) -> None:
    error = refusal(f"# {name}=`\n# {name.upper()}=`\nFROM a\n")
    assert (error.line, error.message) == (2, f"only one {name} parser directive can be used")


def test_only_a_backslash_or_a_backtick_can_be_the_escape_character() -> None:
    assert "invalid escape character" in refusal("# escape=^\nFROM a\n").message


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("RUN a \\\n  b\n", ["RUN a   b"]),
        ("  RUN a\\\nb\n", ["RUN ab"]),
        ("RUN a \\  \t\nb", ["RUN a b"]),
        ("RUN a \\\\\nRUN b", ["RUN a \\\\", "RUN b"]),
        ("RUN a \\\\\\\nRUN b", ["RUN a \\\\\\", "RUN b"]),
        ("RUN a \\\n\\\nb", ["RUN a b"]),
        ("RUN a \\\n# c\n  # d\nb", ["RUN a b"]),
        ("RUN a \\\n\n \t\nb", ["RUN a b"]),
        ("RUN a \\", ["RUN a "]),
        ("RUN a \\\n# only a comment\n", ["RUN a "]),
        ("\\\nRUN a", ["RUN a"]),
        ("RUN a \\ # not continued\nRUN b", ["RUN a \\ # not continued", "RUN b"]),
        ("RUN a # kept\n# dropped\nRUN b", ["RUN a # kept", "RUN b"]),
        ("RUN a \\\r\n  b\r\n", ["RUN a   b"]),
        ("# escape=`\nRUN a `\nb \\\nRUN c", ["RUN a b \\", "RUN c"]),
        ("\ufeffFROM a", ["FROM a"]),
        ("RUN a\x0bb\x85c\u2028d", ["RUN a\x0bb\x85c\u2028d"]),
    ],
)
def test_continuation_lines_are_joined_without_a_space(dockerfile: str, expected: list[str]) -> None:
    assert texts(dockerfile) == expected


def test_logical_lines_know_their_first_and_last_physical_lines() -> None:
    lines = read_lines("# c\nFROM a\n\nRUN b \\\n# c\n c\nRUN <<X <<Y\n1\nX\nY\nUSER d \\\n\n").logical
    assert [(line.first_line, line.last_line, line.text_last_line) for line in lines] == [
        (2, 2, 2),
        (4, 6, 6),
        (7, 10, 7),
        (11, 12, 12),
    ]


def test_a_blank_line_inside_a_continuation_is_warned_about_and_a_comment_is_not() -> None:
    warnings = read_lines("FROM a\nRUN b \\\n\n c\nRUN d \\\n# e\n f\n").warnings
    assert [(warning.rule, warning.line) for warning in warnings] == [("NoEmptyContinuation", 4)]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("RUN <<X", ["X"]),
        ("run <<X", ["X"]),
        ("RUN cat <<A - <<-B 3<<'C'", ["A", "B", "C"]),
        ("RUN << X", ["X"]),
        ("COPY <<a <<b /", ["a", "b"]),
        ("ADD <<a /", ["a"]),
        ("ONBUILD RUN <<X", ["X"]),
        ("onbuild copy <<X /", ["X"]),
        ("RUN --mount=type=tmpfs,target=/x <<X", ["X"]),
        ('RUN "<<X"', []),
        ("RUN '<<X'", []),
        ("RUN \\<<X", []),
        ("RUN a<<X", []),
        ("RUN cat <<<X", []),
        ("RUN echo $((1<<2))", []),
        ("RUN <<", []),
        ('RUN <<""', []),
        ('RUN ["<<X"]', []),
        ("CMD <<X", []),
        ("ENTRYPOINT <<X", []),
        ("ONBUILD CMD <<X", []),
        ("ONBUILD ONBUILD RUN <<X", []),
        ("LABEL a=<<X", []),
    ],
)
def test_heredocs_are_found_in_run_copy_and_add_only(line: str, names: list[str]) -> None:
    bodies = "".join(f"body of {name}\n{name}\n" for name in names)
    lines = read_lines(f"{line}\n{bodies}USER next\n").logical
    assert [(doc.name, doc.content) for doc in lines[0].heredocs] == [(n, f"body of {n}\n") for n in names]
    assert [other.text for other in lines[1:]] == ["USER next"]


@pytest.mark.parametrize(
    ("operator", "expand", "chomp", "fd"),
    [
        ("<<X", True, False, 0),
        ("<<-X", True, True, 0),
        ("<<'X'", False, False, 0),
        ('<<"X"', False, False, 0),
        ('<<-"X"', False, True, 0),
        ("3<<X", True, False, 3),
    ],
)
def test_the_operator_says_how_the_body_is_treated(operator: str, expand: bool, chomp: bool, fd: int) -> None:
    (doc,) = read_lines(f"RUN cat {operator}\n\tb\nX\n").logical[0].heredocs
    assert (doc.name, doc.expand, doc.chomp, doc.fd) == ("X", expand, chomp, fd)
    assert (doc.content, doc.body) == ("\tb\n", "b\n" if chomp else "\tb\n")


@pytest.mark.parametrize("almost", [" X", "X ", "\tX", "XX", "x", "# X"])
def test_a_terminator_must_be_the_whole_line(almost: str) -> None:
    (doc,) = read_lines(f"RUN <<X\n{almost}\nX\n").logical[0].heredocs
    assert doc.content == f"{almost}\n"


def test_tabs_before_the_terminator_count_only_without_the_dash() -> None:
    lines = read_lines("RUN <<-X\n\t\tb\n\tX\nUSER u\n").logical
    assert lines[0].heredocs[0].body == "b\n"
    assert len(lines) == 2


def test_comments_continuations_and_directives_mean_nothing_in_a_body() -> None:
    (doc,) = read_lines("RUN <<X\n# escape=`\nFROM evil \\\n\nX\n").logical[0].heredocs
    assert doc.content == "# escape=`\nFROM evil \\\n\n"


def test_a_body_keeps_its_carriage_returns_and_the_terminator_may_have_one() -> None:
    (doc,) = read_lines(b"RUN <<X\r\na\r\nX\r\n").logical[0].heredocs
    assert doc.content == "a\r\n"


def test_an_unterminated_heredoc_is_an_error_at_the_line_that_announces_it() -> None:
    error = refusal("FROM a\nRUN <<X\nno end\n")
    assert (error.line, "unterminated heredoc" in error.message) == (2, True)


def test_a_line_with_an_open_quote_has_no_heredocs_and_says_so() -> None:
    found = read_lines("RUN <<X; echo it's\nUSER u\n")
    assert [line.heredocs for line in found.logical] == [(), ()]
    assert [(warning.rule, warning.line) for warning in found.warnings] == [("UnreadHeredoc", 1)]


def test_a_line_of_65535_bytes_is_read_and_a_longer_one_is_refused() -> None:
    assert len(texts("#" + "x" * (DOCKERFILE_LINE_BYTES - 1) + "\nFROM a")) == 1
    error = refusal("FROM a\n#" + "x" * DOCKERFILE_LINE_BYTES)
    assert error.line == 2
    assert error.message.startswith("line longer than the limit dockerfile-line-bytes=65535, which")


def test_a_file_over_four_mebibytes_is_refused() -> None:
    assert "larger than" in refusal(b"#\n" * (DOCKERFILE_BYTES // 2 + 1)).message


def test_a_nul_byte_is_refused_with_the_hint_that_the_file_may_be_utf_16() -> None:
    assert "UTF-16" in refusal("FROM a\n".encode("utf-16-le")).message


def test_bytes_that_are_not_utf_8_are_replaced_and_warned_about() -> None:
    found = read_lines(b"FROM a\nMAINTAINER Jos\xe9\n")
    assert found.logical[1].text == "MAINTAINER Jos\ufffd"
    assert [(warning.rule, warning.line) for warning in found.warnings] == [("InvalidUtf8", 2)]
