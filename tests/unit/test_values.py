"""Our dataclasses behave as the standard library's: the same class made by both, and compared."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import operator
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from imagetool import values

_Made = tuple[type, type]


def _both(make: Callable[[Any, Any], type]) -> _Made:
    return make(values.dataclass, values.field), make(dataclasses.dataclass, dataclasses.field)


def _plain(dataclass: Any, field: Any) -> type:
    @dataclass(frozen=True, slots=True, order=True)
    class Plain:
        """A value."""

        first: str
        second: int = 2
        third: list[int] = field(default_factory=list, compare=False)
        hidden: str = field(default="h", repr=False)

        def __post_init__(self) -> None:
            if not self.first:
                raise ValueError("first is empty")

        @property
        def doubled(self) -> int:
            return self.second * 2

    return Plain


def _keyed(dataclass: Any, field: Any) -> type:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Keyed:
        first: int = 1
        second: str
        shared: dict[str, int] = field(default_factory=dict)

    return Keyed


def _mutable(dataclass: Any, field: Any) -> type:
    @dataclass(slots=True)
    class Mutable:
        name: str
        size: int = 0
        since: list[str] = field(default_factory=lambda: ["now"])

    return Mutable


def _owned(dataclass: Any, _: Any) -> type:
    @dataclass(frozen=True, slots=True)
    class Owned:
        name: str
        size: int = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and self.name == other.name

        def __hash__(self) -> int:
            return hash(self.name)

        def __repr__(self) -> str:
            return f"<{self.name}>"

    return Owned


def _empty(dataclass: Any, _: Any) -> type:
    @dataclass(frozen=True, slots=True)
    class Empty:
        """Nothing."""

    return Empty


def _identical(dataclass: Any, _: Any) -> type:
    @dataclass(slots=True, eq=False)
    class Identical:
        name: str

    return Identical


_CALLS: list[tuple[Callable[[Any, Any], type], list[tuple[tuple[Any, ...], dict[str, Any]]]]] = [
    (
        _plain,
        [
            (("a",), {}),
            (("a", 2), {"third": [1]}),
            (("b", 1, [3], "x"), {}),
            (("a",), {"hidden": "other"}),
            ((), {"first": "z"}),
            (("",), {}),
            ((), {}),
            (("a", 1, [], "h", "more"), {}),
            (("a",), {"unknown": 1}),
        ],
    ),
    (_keyed, [((), {"second": "s"}), ((), {"second": "s", "first": 3, "shared": {"a": 1}}), ((1, "s"), {}), ((), {})]),
    (_mutable, [(("n",), {}), (("n", 3), {}), (("n", 3, ["then"]), {}), ((), {})]),
    (_owned, [(("n",), {}), (("n", 3), {}), (("m", 3), {})]),
    (_empty, [((), {}), ((1,), {})]),
    (_identical, [(("n",), {}), (("n",), {})]),
]


def _outcome(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Return what a call gives, or the kind of its error."""
    try:
        return function(*args, **named)
    except (TypeError, ValueError, AttributeError) as error:
        return type(error)


@pytest.mark.parametrize(("make", "calls"), _CALLS, ids=lambda item: getattr(item, "__name__", ""))
def test_the_same_class_made_by_both_behaves_the_same(make: Callable[[Any, Any], type], calls: list[Any]) -> None:
    ours, theirs = _both(make)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    for about in ("__slots__", "__match_args__", "__qualname__", "__module__"):
        assert getattr(ours, about) == getattr(theirs, about)
    made = [(_outcome(ours, *args, **named), _outcome(theirs, *args, **named)) for args, named in calls]
    assert all(mine is their for mine, their in made if isinstance(their, type))
    values = [(mine, their) for mine, their in made if not isinstance(their, type)]
    assert values
    for mine, their in values:
        assert mine != their
        assert not hasattr(mine, "__dict__")
        assert repr(mine) == repr(their)
        assert dataclasses.asdict(mine) == dataclasses.asdict(their)
        assert (copy.deepcopy(mine) == mine) == (copy.deepcopy(their) == their)
        if theirs.__hash__ is not object.__hash__:
            assert _outcome(hash, mine) == _outcome(hash, their)
        for name in theirs.__slots__:  # type: ignore[attr-defined]
            assert getattr(mine, name) == getattr(their, name)
            assert _outcome(setattr, copy.copy(mine), name, 1) == _outcome(setattr, copy.copy(their), name, 1)
            assert _outcome(delattr, copy.copy(mine), name) == _outcome(delattr, copy.copy(their), name)
    for (mine, their), (mine_too, their_too) in itertools.product(values, repeat=2):
        for name in ("eq", "ne", "lt", "le", "gt", "ge"):
            compare = getattr(operator, name)
            assert _outcome(compare, mine, mine_too) == _outcome(compare, their, their_too)


def test_fields_are_those_of_the_standard_library() -> None:
    ours, theirs = _both(_plain)
    assert dataclasses.is_dataclass(ours)
    for left, right in zip(dataclasses.fields(ours), dataclasses.fields(theirs), strict=True):
        for about in ("name", "type", "default", "default_factory", "repr", "compare", "init", "hash"):
            assert getattr(left, about) == getattr(right, about)


def test_replace_gives_another_value_and_checks_it() -> None:
    ours, _ = _both(_plain)
    value = ours("a", 5, [1])
    for replace in (values.replace, dataclasses.replace):
        changed: Any = replace(value, second=6)  # type: ignore[type-var]
        assert (changed.first, changed.second, changed.third, value.second) == ("a", 6, [1], 5)
        assert changed.doubled == 12
        with pytest.raises(ValueError, match="first is empty"):
            replace(value, first="")  # type: ignore[type-var]
        with pytest.raises(TypeError):
            replace(value, unknown=1)  # type: ignore[type-var]


def test_each_instance_gets_a_default_of_its_own() -> None:
    ours, _ = _both(_mutable)
    assert ours("a").since is not ours("b").since  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="default_factory"):

        @values.dataclass(slots=True)
        class _Wrong:
            shared: list[int] = []  # noqa: RUF012 - what is refused


def test_values_go_through_pickle() -> None:
    from imagetool.oci.digest import Digest

    digest = Digest.of(b"x")
    assert pickle.loads(pickle.dumps(digest)) == digest


def test_making_values_loads_nothing() -> None:
    code = "import sys; from imagetool import values; import imagetool.progress; print('dataclasses' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "False\n"
