"""The grammars of appc's names, and what other names become."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.appc.names import check_identifier, check_name, numbered, sanitised
from imagetool.errors import InvalidDocument

# The spec's own expressions, written down a second time.
IDENTIFIER = re.compile(r"^[a-z0-9]+([-._~/][a-z0-9]+)*$")
NAME = re.compile(r"^[a-z0-9]+([-][a-z0-9]+)*$")


@pytest.mark.parametrize(
    ("text", "identifier", "name", "loose"),
    [
        ("a", True, True, True),
        ("0", True, True, True),
        ("example.com/reduce-worker", True, False, True),
        ("a_b~c.d/e-f", True, False, True),
        ("database", True, True, True),
        ("80-tcp", True, True, True),
        ("a--b", False, False, True),
        ("a//b", False, False, True),
        ("a-/b", False, False, True),
        ("", False, False, False),
        ("-a", False, False, False),
        ("a-", False, False, False),
        ("/a", False, False, False),
        ("a/", False, False, False),
        ("A", False, False, False),
        ("a b", False, False, False),
        ("a:b", False, False, False),
        ("a\n", False, False, False),
        ("a+b", False, False, False),
        ("ä", False, False, False),
        ("a\x00", False, False, False),
        ("٣", False, False, False),
    ],
)
def test_the_grammars(text: str, identifier: bool, name: bool, loose: bool) -> None:
    assert _accepts(check_identifier, text, strict=True) is identifier
    assert _accepts(check_name, text, strict=True) is name
    assert _accepts(check_identifier, text, strict=False) is loose
    assert _accepts(check_name, text, strict=False) is (loose and not set(text) & set("._~/"))


def _accepts(check, text: str, *, strict: bool) -> bool:  # type: ignore[no-untyped-def]
    try:
        assert check(text, path="$.name", what="manifest", strict=strict) == text
    except InvalidDocument:
        return False
    return True


@settings(deadline=None)
@given(st.text(alphabet="ab1-._~/A :", max_size=12))
def test_the_grammars_are_those_of_the_spec(text: str) -> None:
    assert _accepts(check_identifier, text, strict=True) is bool(IDENTIFIER.match(text))
    assert _accepts(check_name, text, strict=True) is bool(NAME.match(text))


@settings(deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="aB1-._~/: ", max_size=20))
def test_whatever_is_sanitised_is_valid_and_stays_so(text: str) -> None:
    for identifier, grammar in ((True, IDENTIFIER), (False, NAME)):
        found = sanitised(text, identifier=identifier)
        assert grammar.fullmatch(found)
        assert sanitised(found, identifier=identifier) == found


@settings(deadline=None)
@given(st.from_regex(r"\A[a-z0-9]{1,4}([-.~/][a-z0-9]{1,3}){0,4}\Z"))
def test_a_valid_identifier_is_left_alone(text: str) -> None:
    assert sanitised(text, identifier=True) == text


@pytest.mark.parametrize(
    ("text", "identifier", "found"),
    [
        ("127.0.0.1:5000/Team/My_App", True, "127.0.0.1-5000/team/my-app"),
        ("volume/data/sub", False, "volume-data-sub"),
        ("volume/DATA", False, "volume-data"),
        ("///", True, "unnamed"),
        ("é", False, "unnamed"),
        ("a..b", True, "a.b"),
    ],
)
def test_what_names_become(text: str, identifier: bool, found: str) -> None:
    assert sanitised(text, identifier=identifier) == found


def test_taken_names_get_the_first_free_number() -> None:
    taken: set[str] = set()
    assert [numbered(name, taken) for name in ("a", "a-1", "a", "a", "b")] == ["a", "a-1", "a-2", "a-3", "b"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "a-1", "a-1-1", "b"]), max_size=12))
def test_numbered_names_never_meet(names: list[str]) -> None:
    taken: set[str] = set()
    found = [numbered(name, taken) for name in names]
    assert len(set(found)) == len(names)
    assert taken == set(found)
