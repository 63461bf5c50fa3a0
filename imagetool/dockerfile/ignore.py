"""Which files are left out: .dockerignore and `--exclude`, decided as moby's patternmatcher decides.

The last rule that matches wins; a rule that matches a directory also matches all below it; `!` takes files back in.
`**` stands for any number of directories. Paths are slash-separated and relative to the directory that is copied.

Source: Docker build reference, ".dockerignore file"; github.com/moby/patternmatcher.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from imagetool import limits
from imagetool.dockerfile.glob import tokens
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.wildcard import matcher
from imagetool.dockerfile.words import SPACE
from imagetool.errors import DockerfileError
from imagetool.values import dataclass, field

#: A rule that holds one of these is never used to decide that a directory can be skipped.
_UNPREDICTABLE: Final = re.compile(r"\*\*|\[|\\")


@dataclass(frozen=True, slots=True)
class Rule:
    """One cleaned pattern; `keeps` for `!`. `matches` looks at the path alone, not at the directories above it."""

    pattern: str
    keeps: bool
    matches: Callable[[str], bool] = field(repr=False, compare=False)
    parts: tuple[Callable[[str], bool], ...] | None = field(repr=False, compare=False)

    @classmethod
    def of(cls, pattern: str) -> Rule | None:
        """Read one line's pattern, None for a blank one; raises DockerfileError without a place."""
        pattern = pattern.strip(SPACE)
        keeps = pattern.startswith("!")
        pattern = pattern[keeps:].strip(SPACE)
        if not pattern:
            if keeps:
                raise DockerfileError('a "!" without a pattern')
            return None
        pattern = _clean(pattern)
        test = _test(pattern)
        parts = None
        if not _UNPREDICTABLE.search(pattern):
            parts = tuple(matcher(tokens(part)) for part in pattern.split("/"))
        return cls(pattern, keeps, test, parts)

    def may_match_below(self, directory: str) -> bool:
        """Say whether the rule could match a path under `directory`; may say yes too often, never no."""
        if self.parts is None:
            return True
        names = directory.split("/")
        return len(self.parts) > len(names) and all(part(name) for part, name in zip(self.parts, names, strict=False))


@dataclass(frozen=True, slots=True)
class IgnoreMatch:
    """The verdict on one path, and what the paths below it need to know: the rules that matched, as bits."""

    excluded: bool = False
    matched: int = 0


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """An ordered list of rules."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: bytes | str, *, file: str = ".dockerignore") -> IgnoreRules:
        """Read an ignore file. A `#` makes a comment only in the first column.

        Raises:
            DockerfileError: a malformed pattern, with its line, or a file that is too large.
        """
        if len(text) > limits.DOCKERFILE_BYTES:
            raise DockerfileError(f"larger than {limits.named('DOCKERFILE_BYTES')}", file=file)
        decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        lines = tuple(decoded.removeprefix("\ufeff").split("\n"))
        rules: list[Rule] = []
        for number, line in enumerate(lines, start=1):
            if line.startswith("#"):
                continue
            try:
                rule = Rule.of(line)
            except DockerfileError as error:
                raise Source(file, number, number, lines=lines).placed(error) from None
            if rule:
                rules.append(rule)
        return cls(tuple(rules))

    @classmethod
    def of(cls, patterns: Iterable[str]) -> IgnoreRules:
        """Make rules from patterns, as those of `--exclude`; raises DockerfileError without a place."""
        return cls(tuple(rule for rule in map(Rule.of, patterns) if rule))

    def excludes(self, path: str) -> bool:
        """Say whether `path` is left out. A walk uses `match`, which does not look at the parents again."""
        found = IgnoreMatch()
        at = 0
        while at >= 0:
            at = path.find("/", at + 1)
            found = self.match(path if at < 0 else path[:at], found)
        return found.excluded

    def match(self, path: str, above: IgnoreMatch = IgnoreMatch()) -> IgnoreMatch:  # noqa: B008 - a frozen value
        """Judge one path, given the match of the directory that holds it; the root's is the default."""
        excluded = False
        matched = 0
        for at, rule in enumerate(self.rules):
            # As in moby, a rule that would not change the verdict is not looked at, and leaves no mark for below.
            if above.matched >> at & 1 or (rule.keeps == excluded and rule.matches(path)):
                matched |= 1 << at
                excluded = not rule.keeps
        return IgnoreMatch(excluded, matched)

    def prunes(self, directory: str, found: IgnoreMatch) -> bool:
        """Say whether nothing under `directory`, whose match is `found`, can be taken back in: do not walk it."""
        return found.excluded and not any(rule.keeps and rule.may_match_below(directory) for rule in self.rules)


def _clean(pattern: str) -> str:
    """Clean as Go's path.Clean does, then drop the leading slash."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", ".") and (part != ".." or not pattern.startswith("/")):
            parts.append(part)
    return "/".join(parts) or "."


def _test(pattern: str) -> Callable[[str], bool]:
    if not re.search(r"[*?\[\\]", pattern):
        return pattern.__eq__
    rest = pattern[2:]
    if pattern.startswith("**") and not re.search(r"[*?\[\\]", rest) and not rest.startswith("/"):
        # Without a slash after it, a leading ** is not confined to whole names: **.txt
        return lambda path: path.endswith(rest)
    return matcher(tokens(pattern, deep=True))
