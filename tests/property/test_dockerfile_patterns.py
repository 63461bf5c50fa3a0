"""The automaton against regular expressions, and the pruning of walks against all that a walk could find."""

from __future__ import annotations

import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imagetool.dockerfile import IgnoreMatch, IgnoreRules, expand
from imagetool.dockerfile.wildcard import DIRECTORIES, NOT_SLASH, Automaton, Token, literal, many, matcher, one
from imagetool.errors import DockerfileError

_TOKENS: st.SearchStrategy[list[Token]] = st.lists(
    st.sampled_from(
        [literal("a"), literal("b"), literal("/"), one(NOT_SLASH), one("[^a]"), many(NOT_SLASH), DIRECTORIES]
    ),
    max_size=8,
)
_PATHS = st.text(alphabet="ab/.", max_size=10)
_NAMES = st.lists(st.text(alphabet="ab.", min_size=1, max_size=2), min_size=1, max_size=4).map("/".join)
_RULES = st.lists(
    st.tuples(st.sampled_from(["", "", "!"]), st.text(alphabet="ab*/?.", min_size=1, max_size=6)).map("".join),
    max_size=5,
)


def expression(tokens: list[Token]) -> str:
    forms = {"one": "{}", "many": "{}*", "directories": "(?:{}*/)?"}
    return "".join(forms[kind].format(chars) for kind, chars in tokens)


@settings(max_examples=500, deadline=None)
@given(_TOKENS, _PATHS)
def test_the_automaton_agrees_with_a_regular_expression(tokens: list[Token], path: str) -> None:
    expected = re.fullmatch(expression(tokens), path) is not None
    assert (Automaton.of(tokens).longest(path) == len(path)) == expected
    assert matcher(tokens)(path) == expected


@settings(max_examples=500, deadline=None)
@given(_TOKENS, _PATHS)
def test_the_automaton_finds_every_end_of_a_match(tokens: list[Token], path: str) -> None:
    compiled = re.compile(expression(tokens))
    expected = [end for end in range(len(path) + 1) if compiled.fullmatch(path, 0, end)]
    assert list(Automaton.of(tokens).ends(path)) == expected


def glob(pattern: str) -> str:
    return "".join({"*": "[^\n]*", "?": "[^\n]"}.get(char, re.escape(char)) for char in pattern)


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab*?\n", min_size=1, max_size=5), st.text(alphabet="ab\n", max_size=8))
def test_substitutions_agree_with_regular_expressions(pattern: str, value: str) -> None:
    env = {"v": value}
    compiled = re.compile(glob(pattern))
    ends = [end for end in range(len(value) + 1) if compiled.fullmatch(value, 0, end)]
    starts = [start for start in range(len(value) + 1) if compiled.fullmatch(value, start)]
    assert expand(f"${{v#{pattern}}}", env) == value[min(ends, default=0) :]
    assert expand(f"${{v##{pattern}}}", env) == value[max(ends, default=0) :]
    assert expand(f"${{v%{pattern}}}", env) == value[: max(starts, default=len(value))]
    assert expand(f"${{v%%{pattern}}}", env) == value[: min(starts, default=len(value))]
    assert expand(f"${{v/{pattern}/X}}", env) == compiled.sub("X", value, count=1)


@settings(max_examples=500, deadline=None)
@given(_RULES, _NAMES, _NAMES)
def test_nothing_under_a_pruned_directory_is_kept(rules: list[str], directory: str, below: str) -> None:
    found = parsed(rules)
    above = IgnoreMatch()
    parts = directory.split("/")
    for depth in range(1, len(parts) + 1):
        above = found.match("/".join(parts[:depth]), above)
    assert above.excluded == found.excludes(directory)
    if found.prunes(directory, above):
        assert found.excludes(f"{directory}/{below}")


@settings(max_examples=300, deadline=None)
@given(_RULES, _NAMES)
def test_without_exceptions_the_order_of_rules_does_not_matter(rules: list[str], path: str) -> None:
    plain = [rule.removeprefix("!") for rule in rules]
    assume(all(not rule.startswith("!") for rule in plain))
    assert parsed(plain).excludes(path) == parsed(plain[::-1]).excludes(path)


def parsed(rules: list[str]) -> IgnoreRules:
    try:
        return IgnoreRules.of(rules)
    except DockerfileError:
        return IgnoreRules()
