"""Words of a Dockerfile: quotes, escapes and variables, expanded as BuildKit's shell lexer does.

It looks like a POSIX shell and is not one: an unset variable is empty, `$1` and `$@` are variables that nobody sets,
inside double quotes the escape character escapes only `"`, `$` and itself, and there is no command substitution.

Source: Dockerfile reference, "Environment replacement"; BuildKit frontend/dockerfile/shell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from imagetool import limits
from imagetool.dockerfile.shellpattern import replace, trim_prefix, trim_suffix
from imagetool.dockerfile.wording import printable, quoted
from imagetool.errors import DockerfileError
from imagetool.values import dataclass, field

#: White space as Go's unicode.IsSpace has it, for str.strip and inside a regular expression's set.
SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

_NAME: Final = re.compile(r"\d+|[@*#?$!-]|[^\W\d]\w*")
_PLAIN: Final = {"\\": r"[^$<'\"}/\\]+", "`": "[^$<'\"}/`]+"}  # nothing in it ever means anything
_SPACES: Final = f"[{SPACE}]+"
_HEREDOC_OPERATOR: Final = r"<<[\t\r ]*|<"


@dataclass(frozen=True, slots=True)
class Expansion:
    """An expanded word and the variables that it asked for.

    Attributes:
        text: the result.
        used: names that had a value, also those whose value was not taken (`${a:+b}` asks for both a and b).
        unset: names that had none.
    """

    text: str
    used: frozenset[str]
    unset: frozenset[str]


#: Text, and whether white space in it separates words.
_Fragment = tuple[str, bool]


@dataclass(slots=True)
class _Lexer:
    """How to read, and what was asked for; the position is passed along."""

    env: Mapping[str, str]
    escape: str
    quotes: bool = True  # whether quotes mean anything
    raw_quotes: bool = False  # whether they stay in the result
    keep_unset: bool = False  # whether an unset variable stays as it is written
    used: set[str] = field(default_factory=set)
    unset: set[str] = field(default_factory=set)
    characters: int = 0  # of all the values taken

    def value(self, name: str) -> str | None:
        value = self.env.get(name)
        if value is None:
            self.unset.add(name)
            return None
        self.used.add(name)
        self.characters += len(value)
        if self.characters > limits.DOCKERFILE_BYTES:
            raise DockerfileError(f"variables expand to more than {limits.named('DOCKERFILE_BYTES')}")
        return value


def expand(word: str, env: Mapping[str, str], escape: str = "\\", *, quotes: bool = True) -> str:
    """Expand the variables of `word` and take its quotes and escapes away.

    Args:
        escape: the file's escape character, a backslash or a backtick.
        quotes: False leaves quotes alone, as in the body of a heredoc.

    Raises:
        DockerfileError: without a place: a syntax error, `${v:?message}`, or too large a result.
    """
    return _text(_fragments(word, _Lexer(env, escape, quotes=quotes)))


def expand_traced(word: str, env: Mapping[str, str], escape: str = "\\", *, quotes: bool = True) -> Expansion:
    """Expand like `expand` and tell which variables were asked for."""
    lexer = _Lexer(env, escape, quotes=quotes)
    text = _text(_fragments(word, lexer))
    return Expansion(text, frozenset(lexer.used), frozenset(lexer.unset))


def expand_words(word: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Expand, then split at white space that was neither quoted nor escaped; empty words vanish."""
    return _split(_fragments(word, _Lexer(env, escape)))


def raw_words(line: str) -> list[str]:
    """Split a whole line into shell words that keep quotes, escapes and variables as written.

    White space after `<<` does not end a word, so that a heredoc operator and its marker stay together.
    """
    return _split(_fragments(line, _Lexer({}, "\\", raw_quotes=True, keep_unset=True), raw=True))


def unquoted_words(text: str) -> list[str]:
    """Split into shell words without quotes and escapes; variables stay as written."""
    return _split(_fragments(text, _Lexer({}, "\\", keep_unset=True)))


def _fragments(word: str, lexer: _Lexer, *, raw: bool = False) -> list[_Fragment]:
    try:
        fragments, _ = _read(lexer, word, 0, stop="", raw=raw, depth=0)
    except DockerfileError as error:
        raise DockerfileError(f"cannot expand {quoted(word)}: {error.message}", about=error.about or word) from None
    return fragments


def _text(fragments: list[_Fragment]) -> str:
    return "".join([text for text, _ in fragments])


def _split(fragments: list[_Fragment]) -> list[str]:
    words: list[str] = []
    word = ""
    for text, splits in fragments:
        if not splits:
            word += text
            continue
        first, *others = re.split(_SPACES, text)
        word += first
        for other in others:
            words.append(word)
            word = other
    words.append(word)
    return [word for word in words if word]


def _read(lexer: _Lexer, text: str, at: int, *, stop: str, raw: bool, depth: int) -> tuple[list[_Fragment], int]:
    """Read up to the character `stop` (to the end when it is empty) and return the position after it.

    `raw` keeps escape characters, for patterns that are read a second time.
    """
    if depth > limits.DOCKERFILE_WORD_DEPTH:
        raise DockerfileError(f"substitutions are nested deeper than {limits.named('DOCKERFILE_WORD_DEPTH')}")
    fragments: list[_Fragment] = []
    plain = re.compile(_PLAIN[lexer.escape])
    while at < len(text):
        char = text[at]
        if run := plain.match(text, at):
            fragments.append((run[0], True))
            at = run.end()
        elif char == stop:
            return fragments, at + 1
        elif char == "$":
            value, at = _dollar(lexer, text, at + 1, depth)
            fragments.append((value, True))
        elif char == "<":
            operator = re.compile(_HEREDOC_OPERATOR).match(text, at)
            assert operator is not None
            fragments.append((operator[0], False))
            at = operator.end()
        elif char in "'\"" and lexer.quotes:
            value, at = _quoted(lexer, text, at, raw, depth)
            fragments.append((f"{char}{value}{char}" if lexer.raw_quotes else value, False))
        elif char == lexer.escape:
            fragments.append((text[at if raw else at + 1 : at + 2], False))
            at += 2
        else:
            fragments.append((char, True))
            at += 1
    if stop:
        raise DockerfileError(f"missing {stop!r} in ${{…}}")
    return fragments, at


def _quoted(lexer: _Lexer, text: str, at: int, raw: bool, depth: int) -> tuple[str, int]:
    """Read what the quote at `at` begins, without the quotes."""
    if text[at] == '"':
        return _double_quoted(lexer, text, at + 1, raw, depth)
    end = text.find("'", at + 1)
    if end < 0:
        raise DockerfileError("a single quote (') is not closed", about=text[at:])
    return text[at + 1 : end], end + 1


def _double_quoted(lexer: _Lexer, text: str, at: int, raw: bool, depth: int) -> tuple[str, int]:
    parts: list[str] = []
    opened = at - 1
    special = ('"', "$", lexer.escape)
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(parts), at + 1
        if char == "$":
            value, at = _dollar(lexer, text, at + 1, depth)
            parts.append(value)
        elif char == lexer.escape:
            escaped = text[at + 1 : at + 2]
            # Kept raw, an escape character that escapes nothing is doubled: the second reading must yield it again.
            parts.append(char if raw else "")
            parts.append(escaped if escaped in special else char)
            at += 2 if escaped in special else 1
        else:
            parts.append(char)
            at += 1
    raise DockerfileError('a double quote (") is not closed', about=text[opened:])


def _dollar(lexer: _Lexer, text: str, at: int, depth: int) -> tuple[str, int]:
    """Read a substitution whose dollar sign is just before `at`."""
    if text[at : at + 1] == "{":
        return _braced(lexer, text, at + 1, depth)
    name = _NAME.match(text, at)
    if not name:
        return "$", at
    value = lexer.value(name[0])
    if value is None:
        return f"${name[0]}" if lexer.keep_unset else "", name.end()
    return value, name.end()


def _braced(lexer: _Lexer, text: str, start: int, depth: int) -> tuple[str, int]:
    """Read `${…}` from after the brace."""
    if start == len(text):
        raise DockerfileError("missing '}' in ${…}", about=text[start - 2 :])
    if text[start] in "{}:":
        raise DockerfileError("bad substitution: a name must follow ${", about=text[start - 2 :])
    named = _NAME.match(text, start)
    name, at = (named[0], named.end()) if named else ("", start)
    operator = text[at : at + 2] if text.startswith(":", at) else text[at : at + 1]
    at += len(operator)
    if not operator:
        raise DockerfileError("missing '}' in ${…}", about=text[start - 2 :])
    found = ""
    if operator == "}":
        value = lexer.value(name)
        found = value or ""
    elif operator == "/":
        value, found, at = _replaced(lexer, text, at, name, depth)
    elif operator[0] == ":" or operator in "+-?#%":
        pattern = operator in "#%"
        fragments, at = _read(lexer, text, at, stop="}", raw=pattern, depth=depth + 1)
        value = lexer.value(name)
        if not (lexer.keep_unset and value is None):
            found = _modified(name, operator, value, _text(fragments))
    else:
        message = f"unsupported modifier ({printable(operator)}) in ${{{printable(name)}…}}"
        raise DockerfileError(message, about=text[start - 2 : at])
    if value is None and lexer.keep_unset:
        return text[start - 2 : at], at
    return found, at


def _modified(name: str, operator: str, value: str | None, word: str) -> str:
    """Apply `:-`, `-`, `:+`, `+`, `:?`, `?`, `#`, `##`, `%` or `%%` to a value, None meaning unset."""
    missing = value is None or (operator[0] == ":" and not value)
    match operator[-1], operator[0] == ":":
        case "-", _:
            return word if missing else value or ""
        case "+", _:
            return "" if missing else word
        case "?", _:
            if missing:
                reason = word or "is not allowed to be " + ("unset" if value is None else "empty")
                raise DockerfileError(printable(f"{name}: {reason}"), about=f"${{{name}{operator}")
            return value or ""
        case "#", False:
            return trim_prefix(value or "", word.removeprefix("#"), longest=word.startswith("#"))
        case "%", False:
            return trim_suffix(value or "", word.removeprefix("%"), longest=word.startswith("%"))
    message = f"unsupported modifier ({printable(operator)}) in ${{{printable(name)}…}}"
    raise DockerfileError(message, about=f"${{{name}{operator}")


def _replaced(lexer: _Lexer, text: str, at: int, name: str, depth: int) -> tuple[str | None, str, int]:
    """Read and apply `${v/p/r}` or `${v//p/r}` from after the first slash: the value, the result, the position."""
    every = text.startswith("/", at)
    pattern, at = _read(lexer, text, at + every, stop="/", raw=True, depth=depth + 1)
    replacement, at = _read(lexer, text, at, stop="}", raw=True, depth=depth + 1)
    value = lexer.value(name)
    if value is None and lexer.keep_unset:
        return None, "", at
    return value, replace(value or "", _text(pattern), _text(replacement), every=every), at
