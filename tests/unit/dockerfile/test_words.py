"""Expansion and splitting of words: rules 7 and 11 of the build reference."""

from __future__ import annotations

import time

import pytest

from imagetool.dockerfile.words import Expansion, expand, expand_traced, expand_words
from imagetool.errors import DockerfileError
from imagetool.limits import DOCKERFILE_BYTES, DOCKERFILE_PATTERN, DOCKERFILE_WORD_DEPTH

ENV = {"v": "value", "empty": "", "path": "/usr/local/bin", "sp": "a  b", "lines": "a1\nb2", "名": "naïve", "_1": "u"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        # variables
        ("$v", "value"),
        ("${v}", "value"),
        ("x$v.y", "xvalue.y"),
        ("$v$v", "valuevalue"),
        ("$vv", ""),
        ("${vv}", ""),
        ("$名", "naïve"),
        ("$_1", "u"),
        ("$", "$"),
        ("$.", "$."),
        ("a$ b", "a$ b"),
        # parameters that nobody sets
        ("$1x", "x"),
        ("$12x", "x"),
        ("$@|$*|$#|$?|$-|$$|$!|$0", "|||||||"),
        ("${1}", ""),
        ("${@:-all}", "all"),
        ("${9:+x}", ""),
        # quotes and escapes
        ("'$v'", "$v"),
        ('"$v"', "value"),
        ("'\\$v'", "\\$v"),
        ("\\$v", "$v"),
        ("\\${v}", "${v}"),
        ("\\\\$v", "\\value"),
        ("a\\b", "ab"),
        ("a\\", "a"),
        ('"a\\b"', "a\\b"),
        ('"\\"\\$v\\\\"', '"$v\\'),
        ("'a'\"b\"c", "abc"),
        ('"it\'s"', "it's"),
        ("'say \"hi\"'", 'say "hi"'),
        ('""', ""),
        ("a  b", "a  b"),
        # defaults and alternatives
        ("${v:-w}|${v-w}", "value|value"),
        ("${empty:-w}|${empty-w}", "w|"),
        ("${no:-w}|${no-w}", "w|w"),
        ("${v:+w}|${v+w}", "w|w"),
        ("${empty:+w}|${empty+w}", "|w"),
        ("${no:+w}|${no+w}", "|"),
        ("${v:?m}|${v?m}|${empty?m}", "value|value|"),
        ("${no:-}", ""),
        ("${no:-$v}", "value"),
        ("${no:-${nope:-${v}}}", "value"),
        ("${no:-'$v'}", "$v"),
        ('${no:-"a b"}', "a b"),
        ("${no:-a b}", "a b"),
        ("${no:-\\}}", "}"),
        ("${no:-'}'}", "}"),
        ("${no:-{}", "{"),
        ("${v}}", "value}"),
        # prefixes and suffixes
        ("${path#/}", "usr/local/bin"),
        ("${path#*/}|${path##*/}", "usr/local/bin|bin"),
        ("${path%/*}|${path%%/*}", "/usr/local|"),
        ("${path#nomatch}|${path%nomatch}", "/usr/local/bin|/usr/local/bin"),
        ("${v#?}|${v##?}|${v%??}", "alue|alue|val"),
        ("${v#v*e}|${v##v*e}", "|"),
        ("${v%%*}|${v%*}", "|value"),
        ("${v#\\*}|${v#[v]}", "value|value"),
        ("${no#x}|${no%x}", "|"),
        ("${path#/${no:-usr}}", "/local/bin"),
        ("${v#'v'}", "alue"),
        ("${lines#*\n}|${lines##*}", "b2|\nb2"),
        # replacements
        ("${path/\\//:}", ":usr/local/bin"),
        ("${path//\\//:}", ":usr:local:bin"),
        ("${v/l*/L}|${v/?/X}|${v//?/X}", "vaL|Xalue|XXXXX"),
        ("${v/nope/X}|${no/a/b}", "value|"),
        ("${v//*/X}|${v///-}", "X|-v-a-l-u-e-"),
        ("${v/a/}", "vlue"),
        ("${v/a/$v}", "vvaluelue"),
        ("${v/a/$1&}", "v&lue"),
        ("${empty//*/X}", "X"),
    ],
)
def test_a_word_expands(word: str, expected: str) -> None:
    assert expand(word, ENV) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${", "missing '}'"),
        ("${v", "missing '}'"),
        ("${v:", "missing '}'"),
        ("${v:-w", "missing '}'"),
        ("${v:-${no}", "missing '}'"),
        ("${v#x", "missing '}'"),
        ("${v/x}", "missing '/'"),
        ("${v/x/y", "missing '}'"),
        ("${}", "bad substitution"),
        ("${{v}", "bad substitution"),
        ("${:-w}", "bad substitution"),
        ("${.}", "unsupported modifier"),
        ("${v:w}", "unsupported modifier (:w)"),
        ("${v:=w}", "unsupported modifier (:=)"),
        ("${v=w}", "unsupported modifier (=)"),
        ("${v:#w}", "unsupported modifier (:#)"),
        ("${v^^}", "unsupported modifier (^)"),
        ("'v", "single quote"),
        ('"v', "double quote"),
        ('"v\\"', "double quote"),
        ("${v#\\x}", "invalid escape"),
        ("${v#\\", "missing '}'"),
        ("${no?}", "no: is not allowed to be unset"),
        ("${no:?}", "no: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${no:?say $v}", "no: say value"),
        ("${no?'please set it'}", "no: please set it"),
        ("${v:-${no?late}}", "no: late"),
    ],
)
def test_a_bad_word_says_what_is_wrong(word: str, message: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        expand(word, ENV)
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("word", "expected"),
    [("C:\\dir\\$v", "C:\\dir\\value"), ("`$v", "$v"), ('"`"`\\"', '"`\\'), ("a`", "a"), ("``", "`")],
)
def test_the_backtick_can_be_the_escape_character(word: str, expected: str) -> None:
    assert expand(word, ENV, "`") == expected


def test_quotes_can_be_left_alone_for_heredoc_bodies() -> None:
    assert expand('it\'s "$v" \\$v\n', ENV, quotes=False) == 'it\'s "value" $v\n'


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a b\t c", ["a", "b", "c"]),
        ("$sp", ["a", "b"]),
        ('"$sp"', ["a  b"]),
        ("x${sp}y", ["xa", "by"]),
        ("'a b' c\\ d", ["a b", "c d"]),
        ("$empty", []),
        ('""', []),
        ("", []),
        ("${no:-a b}", ["a", "b"]),
    ],
)
def test_splitting_happens_after_expansion_and_respects_quotes(word: str, expected: list[str]) -> None:
    assert expand_words(word, ENV) == expected


def test_the_variables_that_were_asked_for_are_told() -> None:
    found = expand_traced("$v ${no:-$empty} '$path'", ENV)
    assert found == Expansion("value  $path", frozenset({"v", "empty"}), frozenset({"no"}))


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    def nested(depth: int) -> str:
        return "${a:-" * depth + "x" + "}" * depth

    assert expand(nested(DOCKERFILE_WORD_DEPTH), {}) == "x"
    with pytest.raises(DockerfileError, match="nested"):
        expand(nested(DOCKERFILE_WORD_DEPTH * 1000), {})


def test_an_expansion_that_explodes_is_refused() -> None:
    big = {"v": "x" * (DOCKERFILE_BYTES // 4)}
    assert len(expand("$v$v$v", big)) == DOCKERFILE_BYTES // 4 * 3
    with pytest.raises(DockerfileError, match="more than"):
        expand("$v" * 5, big)
    with pytest.raises(DockerfileError, match="grows past"):
        expand("${v//?/" + "y" * 1000 + "}", big)


def test_a_pattern_has_a_longest_length() -> None:
    with pytest.raises(DockerfileError, match="longer than"):
        expand("${v#" + "?" * (DOCKERFILE_PATTERN + 1) + "}", ENV)


def test_a_pattern_that_defeats_backtracking_takes_linear_time() -> None:
    hostile = {"v": "a" * 20_000}
    before = time.process_time()
    assert expand("${v##" + "a*" * 20 + "b}", hostile) == hostile["v"]
    assert expand("${v//a*b/x}", hostile) == hostile["v"]
    assert time.process_time() - before < 5
