"""Edits leave every byte that is not edited as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imagetool.oci.patch import REMOVED, Verbatim, elements, patch

#: Written as nobody's encoder would: odd spaces, escapes, numbers, and fields we do not know.
ODD = b' {\n\t"a" : 1.0e2 ,"b":{ "c" : "\\u0041\\/" , "d":[ 1 , 2.50 ]},\r\n "z":null } \n'


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({("a",): 7}, ODD.replace(b"1.0e2", b"7")),
        ({("b", "c"): "x"}, ODD.replace(b'"\\u0041\\/"', b'"x"')),
        ({("b", "new"): [1]}, ODD.replace(b"2.50 ]}", b'2.50 ],"new":[1]}')),
        ({("b", "d"): Verbatim("[ 3.0 ]")}, ODD.replace(b"[ 1 , 2.50 ]", b"[ 3.0 ]")),
        ({("z", "y", "x"): 1}, ODD.replace(b"null", b'{"y":{"x":1}}')),
        ({("none",): REMOVED}, ODD),
    ],
)
def test_all_other_bytes_stay(edits: dict[tuple[str, ...], Any], expected: bytes) -> None:
    assert patch(ODD, edits) == expected


def test_removing_a_field_keeps_the_text_of_the_others() -> None:
    assert patch(ODD, {("b",): REMOVED}) == b'{"a":1.0e2,"z":null}'
    assert json.loads(patch(b'{"a":1}', {("a",): REMOVED})) == {}


def test_elements_are_verbatim() -> None:
    raw = b'{"m":[ {"x": 1.0} , "a,]" ,[ 1,2 ] ], "n":null, "e":[ ]}'
    assert [element.text for element in elements(raw, "m")] == ['{"x": 1.0}', '"a,]"', "[ 1,2 ]"]
    assert elements(raw, "n") == elements(raw, "absent") == elements(raw, "e") == []
    again = patch(raw, {("m",): elements(raw, "m")[::-1]})
    assert [element.text for element in elements(again, "m")] == ["[ 1,2 ]", '"a,]"', '{"x": 1.0}']


TREES = st.dictionaries(
    st.text('ab"\\{}é', max_size=3),
    st.integers() | st.text('",:{}[]\\', max_size=4) | st.lists(st.integers(), max_size=2),
    max_size=4,
)


@given(TREES, st.text('ab"', max_size=2), st.integers(), st.integers(0, 4))
def test_an_edit_does_to_the_text_what_it_does_to_the_tree(
    tree: dict[str, Any], key: str, value: int, indent: int
) -> None:
    raw = json.dumps(tree, indent=indent or None, ensure_ascii=bool(indent % 2)).encode()
    assert json.loads(patch(raw, {(key,): value})) == tree | {key: value}
    assert json.loads(patch(raw, {(key,): REMOVED})) == {k: v for k, v in tree.items() if k != key}


@given(TREES, st.text("xy", min_size=1, max_size=2), st.integers())
def test_putting_a_value_back_gives_the_first_bytes(tree: dict[str, Any], key: str, value: int) -> None:
    assume(key not in tree)
    raw = json.dumps({key: 1, **tree}, indent=1).encode()
    assert patch(patch(raw, {(key,): value}), {(key,): 1}) == raw
