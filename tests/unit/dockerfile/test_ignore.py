"""Which files are left out: rules 25 and 29 of the build reference."""

from __future__ import annotations

import time

import pytest

from imagetool.dockerfile import IgnoreMatch, IgnoreRules, has_wildcard, match
from imagetool.errors import DockerfileError


@pytest.mark.parametrize(
    ("rules", "excluded", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab", "aa"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("a/b", ["a/b", "a/b/c"], ["a", "b", "a/c", "x/a/b"]),
        ("a/", ["a", "a/b"], ["b"]),
        ("./a//b/../c/", ["a/c", "a/c/d"], ["a/b", "a"]),
        (" a \t", ["a"], []),
        ("*", ["a", "a/b", ".a"], []),
        ("*.txt", ["a.txt", ".txt", "d.txt/x"], ["a/b.txt", "a.txtx"]),
        ("*/b", ["a/b", "x/b/c"], ["b", "a/c/b"]),
        ("a?c", ["abc", "aéc"], ["ac", "a/c", "abbc"]),
        ("a.c", ["a.c"], ["abc"]),
        ("a[bd-f]c", ["abc", "aec"], ["acc", "agc"]),
        ("a[^b]c", ["acc"], ["abc"]),
        ("a\\*c", ["a*c"], ["abc"]),
        ("a\\\\c", ["a\\c"], ["ac"]),
        ("(a|b)+{1}$^", ["(a|b)+{1}$^"], ["a"]),
        ("**", ["a", "a/b"], []),
        ("**/a", ["a", "b/a", "b/c/a", "b/a/x"], ["ba", "b/ca"]),
        ("**/*.o", ["x.o", "a/x.o", "a/b/.o"], ["x.oo"]),
        ("**.o", ["x.o", "a/x.o", "ao/x.o"], ["x.o.p"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "x/a/b"]),
        ("**/a/**/b", ["a/b", "x/a/y/z/b"], ["b", "a"]),
        ("**/*/*.o", ["a/x.o", "a/b/x.o"], ["x.o"]),
        ("**/a*b*c*d", ["abcd", "x/a1b2c3d", "x/aabbccdd/e"], ["abdc", "a/bcd"]),
        ("*\n!a", ["b", "b/a"], ["a", "a/b"]),
        ("a\n!a/b", ["a", "a/c"], ["a/b", "a/b/c"]),
        ("a/*\n!a/b*\na/bc", ["a/c", "a/bc", "a/bc/x"], ["a/b", "a/bd"]),
        ("!a\na", ["a"], []),
        ("**\n!**/*.go\n!x", ["a", "a/b"], ["a.go", "d/a.go", "x", "x/y"]),
        ("a\n! a/b", ["a/c"], ["a/b"]),
        ("!/a\n*\n!/a", ["b"], ["a"]),
        ("#a\n #b", [" #b".strip()], ["a", "#a"]),
        ("\ufeffa\r\nb\r\n", ["a", "b"], []),
        ("\n \n\t\n", [], ["a"]),
        ("..\n../a\n.\n/", [], ["a", "b"]),
        ("é*", ["école"], ["ecole"]),
    ],
)
def test_the_last_rule_that_matches_a_path_or_a_directory_above_it_wins(
    rules: str, excluded: list[str], kept: list[str]
) -> None:
    found = IgnoreRules.parse(rules)
    assert [path for path in excluded if not found.excludes(path)] == []
    assert [path for path in kept if found.excludes(path)] == []


def test_a_rule_for_a_parent_is_not_looked_at_when_it_changes_nothing_there() -> None:
    """moby's walk: `!a` says nothing about `a` itself, which nothing excludes, and so nothing about what is below."""
    assert IgnoreRules.parse("a/b\n!a").excludes("a/b")


@pytest.mark.parametrize("pattern", ["[", "a[", "[]", "[]a]", "[^]", "[a", "[a-", "[a-]", "[-a]", "a\\", "[\\"])
def test_a_malformed_pattern_is_an_error_with_its_line(pattern: str) -> None:
    with pytest.raises(DockerfileError, match="malformed pattern") as refused:
        IgnoreRules.parse(f"a\n{pattern}\n", file="my.dockerignore")
    assert (refused.value.file, refused.value.line) == ("my.dockerignore", 2)


def test_a_lone_exclamation_mark_is_an_error() -> None:
    with pytest.raises(DockerfileError, match="without a pattern"):
        IgnoreRules.parse("a\n! \n")


def test_patterns_of_exclude_flags_make_rules_without_comments() -> None:
    found = IgnoreRules.of(["#a", "*.o", "!keep.o"])
    assert [found.excludes(path) for path in ("#a", "x.o", "keep.o", "x")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("rules", "directory", "pruned"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a\n!b", "a", True),
        ("a\n!a/b", "a", False),
        ("a\n!a/b/c", "a", False),
        ("a\n!a/b/c", "a/b", False),
        ("a\n!a/b/c", "a/x", True),
        ("a\n!*/b", "a", False),
        ("a\n!?", "a", False),
        ("a\n!x*/b", "a", True),
        ("a\n!**/b", "a", False),
        ("a\n!b/**", "a", False),
        ("a/*\n!a", "a/b", True),
        ("*\n!a", "b", True),
    ],
)
def test_a_directory_is_pruned_when_no_rule_can_take_anything_back_in(rules: str, directory: str, pruned: bool) -> None:
    found = IgnoreRules.parse(rules)
    above = IgnoreMatch()
    parts = directory.split("/")
    for depth in range(1, len(parts) + 1):
        above = found.match("/".join(parts[:depth]), above)
    assert found.prunes(directory, above) is pruned


def test_a_walk_of_many_files_is_fast() -> None:
    found = IgnoreRules.parse("\n".join(["**/*.pyc", "**/node_modules", ".git", "dist/**", "*.log", "!keep.log"] * 3))
    before = time.process_time()
    above = found.match("src")
    for number in range(10_000):
        found.match(f"src/module{number}.py", above)
    assert time.process_time() - before < 2


def test_a_hostile_rule_takes_linear_time() -> None:
    found = IgnoreRules.parse("**/" + "*a" * 20 + "b\n" + "**/z" * 20)
    before = time.process_time()
    assert not found.excludes("a" * 255 + "/" + "x/" * 500 + "y")
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a", ["a"], ["b", "aa", ""]),
        ("", [""], ["a"]),
        ("*", ["", "a", ".a"], ["a/b", "/"]),
        ("a*", ["a", "ab"], ["a/b", "ba"]),
        ("*/b", ["a/b", "/b"], ["a/c/b", "b"]),
        ("**", ["ab"], ["a/b"]),
        ("a*b*c*d*e", ["abcde", "aXbXcXdXe"], ["abcd", "a/bcde"]),
        ("?", ["a", "é"], ["", "ab", "/"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[^a-c]x", ["dx", "/x"], ["ax"]),
        ("[\\]a]", ["]", "a"], ["\\"]),
        ("[\\-x]", ["-", "x"], ["a"]),
        ("[z-a]", [], ["z", "m", "a"]),
        ("[^z-a]", ["z", "m"], []),
        ("[[]", ["["], ["]"]),
        ("[*?]", ["*", "?"], ["a"]),
        ("]", ["]"], []),
        ("a\\*", ["a*"], ["ab", "a\\x"]),
        ("\\a", ["a"], ["\\a"]),
        ("a.+(b", ["a.+(b"], ["aa(b"]),
        ("a\n*", ["a\nb", "a\n\n"], ["a"]),
    ],
)
def test_wildcards_of_copy_are_those_of_go(pattern: str, matching: list[str], others: list[str]) -> None:
    assert [path for path in matching if not match(pattern, path)] == []
    assert [path for path in others if match(pattern, path)] == []


@pytest.mark.parametrize("pattern", ["[", "[]a]", "[a-]", "[-x]", "a\\", "x[a"])
def test_a_malformed_wildcard_is_an_error_whatever_the_path(pattern: str) -> None:
    with pytest.raises(DockerfileError, match="malformed pattern"):
        match(pattern, "unrelated")


@pytest.mark.parametrize(
    ("path", "wild"),
    [("a/*", True), ("a?", True), ("[a]", True), ("a", False), ("a\\*b", False), ("a\\\\*", True), ("a]", False)],
)
def test_a_wildcard_is_one_unless_it_is_escaped(path: str, wild: bool) -> None:
    assert has_wildcard(path) is wild
