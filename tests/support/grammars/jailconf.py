"""A reader of FreeBSD's jail.conf, written from jail.conf(5): jails, parameters, strings, variables, comments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/)
    |(?P<double>"(?:[^"\\]|\\.)*")
    |(?P<single>'(?:[^'\\]|\\.)*')
    |(?P<plain>(?:[^\s{};,="'+\#$]|\+(?!=))+)
    |(?P<mark>\+=|[{};,=])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}


class JailConfError(Exception):
    pass


@dataclass
class Jail:
    name: str
    parameters: dict[str, list[str] | None] = field(default_factory=dict)  # None for a switch


def parse(text: str) -> list[Jail]:
    """Return the jails of a file; raises JailConfError for what jail(8) would refuse."""
    tokens = list(_tokens(text))
    jails = []
    while tokens:
        name = _text(tokens)
        _expect(tokens, "{")
        jail = Jail(name)
        while tokens and tokens[0] != ("mark", "}"):
            _parameter(tokens, jail)
        _expect(tokens, "}")
        jails.append(jail)
    return jails


def _tokens(text: str):  # type: ignore[no-untyped-def]
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise JailConfError(f"unexpected {text[at : at + 20]!r}")
        at = match.end()
        kind = str(match.lastgroup)
        if kind in ("double", "single"):
            body = match[0][1:-1]
            if kind == "double" and re.search(r"(?<!\\)\$", body):
                raise JailConfError(f"an undefined variable in {match[0]!r}")
            yield "text", re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), body, flags=re.DOTALL)
        elif kind != "space":
            yield ("text" if kind == "plain" else "mark"), match[0]


def _text(tokens: list[tuple[str, str]]) -> str:
    kind, value = tokens.pop(0) if tokens else ("end", "")
    if kind != "text":
        raise JailConfError(f"a word is missing before {value!r}")
    return value


def _expect(tokens: list[tuple[str, str]], mark: str) -> None:
    if not tokens or tokens.pop(0) != ("mark", mark):
        raise JailConfError(f"{mark!r} is missing")


def _parameter(tokens: list[tuple[str, str]], jail: Jail) -> None:
    name = _text(tokens)
    if tokens and tokens[0] in (("mark", "="), ("mark", "+=")):
        _, operator = tokens.pop(0)
        values = [_text(tokens)]
        while tokens and tokens[0] == ("mark", ","):
            tokens.pop(0)
            values.append(_text(tokens))
        old = jail.parameters.get(name) or []
        jail.parameters[name] = [*old, *values] if operator == "+=" else values
    else:
        jail.parameters[name] = None
    _expect(tokens, ";")
