"""`dataclass`, as the standard library's, for the values of this house; six times cheaper to define.

A program that runs for a tenth of a second spends half of it on making its dataclasses: the
standard library compiles every method of every class by itself, and is large to import
(docs/adr/0023). What is here takes the same words, of them only those that are used in this
project, and gives classes that behave the same; `dataclasses.fields`, `asdict` and `replace`
take them. Type checkers see the standard library's.

Source: Python documentation, "dataclasses".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
    from typing import Any, NoReturn, TypeVar

    T = TypeVar("T")

_NOTHING: Any = type("_Nothing", (), {})()


class _Field:
    """What a class says of a field beside its type."""

    __slots__ = ("compare", "default", "factory", "repr")

    def __init__(self, default: Any, factory: Any, repr: bool, compare: bool) -> None:
        self.default = default
        self.factory = factory
        self.repr = repr
        self.compare = compare


class _Fields:
    """The attribute `__dataclass_fields__`: made when somebody asks, for that needs the standard library's module."""

    __slots__ = ("_fields", "_types")

    def __init__(self, fields: dict[str, _Field], types: dict[str, Any]) -> None:
        self._fields = fields
        self._types = types

    def __get__(self, instance: object, owner: type) -> dict[str, Any]:
        import dataclasses

        listed: list[Any] = []
        for name, one in self._fields.items():
            given: dict[str, Any] = {"repr": one.repr, "compare": one.compare}
            if one.default is not _NOTHING:
                given["default"] = one.default
            if one.factory is not _NOTHING:
                given["default_factory"] = one.factory
            listed.append((name, self._types[name], dataclasses.field(**given)))
        made: dict[str, Any] = dataclasses.make_dataclass("Fields", listed, kw_only=True).__dataclass_fields__  # type: ignore[attr-defined]
        owner.__dataclass_fields__ = made  # type: ignore[attr-defined]
        return made


def _field(
    *, default: Any = _NOTHING, default_factory: Any = _NOTHING, repr: bool = True, compare: bool = True
) -> _Field:
    return _Field(default, default_factory, repr, compare)


def _replace(value: T, /, **changes: Any) -> T:
    for name in type(value).__slots__:  # type: ignore[attr-defined]
        if name not in changes:
            changes[name] = getattr(value, name)
    return type(value)(**changes)


def _dataclass(
    *, frozen: bool = False, slots: bool, order: bool = False, eq: bool = True, kw_only: bool = False
) -> Callable[[type], type]:
    if not slots:
        raise TypeError("the values of this house have slots")

    def made(cls: type) -> type:
        return _made(cls, frozen=frozen, order=order, eq=eq, kw_only=kw_only)

    return made


def _made(cls: type, *, frozen: bool, order: bool, eq: bool, kw_only: bool) -> type:
    """Return a class like `cls` whose instances have its annotated names in slots, and the methods of a value."""
    types = cls.__annotations__
    own = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    fields: dict[str, _Field] = {}
    for name in types:
        default = own.pop(name, _NOTHING)
        fields[name] = default if type(default) is _Field else _Field(default, _NOTHING, True, True)
        if type(fields[name].default).__hash__ is None:
            raise ValueError(f"mutable default of {cls.__name__}.{name}: use default_factory")
    own["__slots__"] = tuple(fields)
    own["__dataclass_fields__"] = _Fields(fields, types)
    own["__match_args__"] = () if kw_only else tuple(fields)
    if "__repr__" not in own:
        own["__repr__"] = _repr([name for name, one in fields.items() if one.repr])
    if frozen:
        own.update(__setattr__=_set, __delattr__=_delete, __getstate__=_state, __setstate__=_restore)
    hashed = own.get("__hash__") is not None
    if eq and not frozen and not hashed:
        own["__hash__"] = None
    value = type(cls)(cls.__name__, cls.__bases__, own)
    value.__qualname__ = cls.__qualname__
    _compile(value, [_init_source(fields, frozen=frozen, kw_only=kw_only, post="__post_init__" in own)], fields, frozen)
    if eq:
        compared = "".join(f"self.{name}, " for name, one in fields.items() if one.compare)
        later = _comparisons(compared, own, order=order, hashed=frozen and not hashed)
        _uncompared[value] = [source for source, _ in later]
        for _, name in later:
            setattr(value, name, _FIRST[name])
    value.__init__.__annotations__ = {**types, "return": None}  # type: ignore[misc]
    return value


def _init_source(fields: dict[str, _Field], *, frozen: bool, kw_only: bool, post: bool) -> str:
    parameters, lines = [], []
    for name, one in fields.items():
        value = name
        if one.factory is not _NOTHING:
            parameters.append(f"{name}=_nothing")
            value = f"_default_{name}() if {name} is _nothing else {name}"
        elif one.default is not _NOTHING:
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        lines.append(f"  _set_{name}(self, {value})" if frozen else f"  self.{name} = {value}")
    if post:
        lines.append("  self.__post_init__()")
    star = "*, " if kw_only and parameters else ""
    return f" def __init__(self, {star}{', '.join(parameters)}):\n" + ("\n".join(lines) or "  pass")


#: The methods that compare of classes whose values have not been compared yet, which are most: as source.
_uncompared: dict[type, list[str]] = {}


def _first(name: str) -> Callable[..., Any]:
    """Return what stands for a method that compares until it is called: it compiles those of its class."""

    def compare(self: object, *other: object) -> Any:
        owner = next(cls for cls in type(self).__mro__ if cls in _uncompared)
        _compile(owner, _uncompared[owner], {}, frozen=False)
        return getattr(owner, name)(self, *other)

    compare.__name__ = name
    return compare


_FIRST = {f"__{name}__": _first(f"__{name}__") for name in ("eq", "hash", "lt", "le", "gt", "ge")}


def _comparisons(compared: str, own: dict[str, Any], *, order: bool, hashed: bool) -> list[tuple[str, str]]:
    """Return the sources and names of the methods that compare; `compared` has the fields as items of a tuple."""
    mine, theirs = f"({compared})", f"({compared.replace('self.', 'other.')})"
    methods = []
    for name, sign in (("eq", "=="), *((("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")) if order else ())):
        if f"__{name}__" not in own:
            source = (
                f" def __{name}__(self, other):\n  if other.__class__ is self.__class__:\n"
                f"   return {mine} {sign} {theirs}\n  return NotImplemented"
            )
            methods.append((source, f"__{name}__"))
    if hashed:
        methods.append((f" def __hash__(self):\n  return hash({mine})", "__hash__"))
    return methods


def _compile(value: type, methods: list[str], fields: dict[str, _Field], frozen: bool) -> None:
    """Compile methods at once and put them into the class."""
    import sys

    given: dict[str, Any] = {"_nothing": _NOTHING}
    for name, one in fields.items():
        if one.factory is not _NOTHING or one.default is not _NOTHING:
            given[f"_default_{name}"] = one.default if one.factory is _NOTHING else one.factory
        if frozen:
            given[f"_set_{name}"] = value.__dict__[name].__set__
    names = [source[5 : source.index("(")] for source in methods]
    text = "\n".join([f"def make({', '.join(given)}):", *methods, f" return {', '.join(names)},"])
    found: dict[str, Any] = {}
    exec(text, sys.modules[value.__module__].__dict__, found)  # noqa: S102 - made of the names of fields
    for name, function in zip(names, found["make"](**given), strict=True):
        function.__qualname__ = f"{value.__qualname__}.{name}"
        setattr(value, name, function)


def _repr(names: list[str]) -> Callable[[object], str]:
    def __repr__(self: object) -> str:  # noqa: N807 - what it is
        return f"{type(self).__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in names])})"

    return __repr__


def _set(self: object, name: str, value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: object, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: object) -> list[Any]:
    return [getattr(self, name) for name in type(self).__slots__]  # type: ignore[attr-defined]


def _restore(self: object, state: list[Any]) -> None:
    for name, value in zip(type(self).__slots__, state, strict=True):  # type: ignore[attr-defined]
        object.__setattr__(self, name, value)


if not TYPE_CHECKING:
    dataclass, field, replace = _dataclass, _field, _replace
