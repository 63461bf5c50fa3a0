"""What `# check=` says: which rules are left out, and whether findings are errors.

At the top of the file it is a parser directive for all of it; in a comment above an instruction it is for that one.

Source: Dockerfile reference, "check"; docs.docker.com/build/checks.
"""

from __future__ import annotations

import re
from typing import Final

from imagetool.dockerfile.values import parse_boolean
from imagetool.dockerfile.wording import did_you_mean, quoted
from imagetool.dockerfile.words import SPACE
from imagetool.errors import DockerfileError
from imagetool.values import dataclass

_OPTIONS: Final = ("skip", "error", "experimental")
_COMMENT: Final = re.compile(
    rf"[{SPACE}]*#[{SPACE}]*check[\t\f ]*=[\t\f ]*((?:skip|error|experimental)[\t ]*=.*)", re.I
)


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """Rule names are compared as written; `all` stands for every one."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> CheckOptions:
        """Read `skip=A,B;error=true;experimental=C`, each at most once; raises DockerfileError without a place."""
        found: dict[str, str] = {}
        for part in filter(None, (part.strip(SPACE) for part in text.split(";"))):
            name, equals, value = part.partition("=")
            name = name.strip(SPACE)
            if not equals or name not in _OPTIONS:
                raise DockerfileError(f"unknown check option {quoted(part)}{did_you_mean(name, _OPTIONS)}", about=part)
            if name in found:
                raise DockerfileError(f"the check option {name} is given twice", about=part)
            found[name] = value.strip(SPACE)
        error = parse_boolean(found.get("error", "false"))
        if error is None:
            raise DockerfileError(
                f"the check option error is true or false, not {quoted(found['error'])}", about=found["error"]
            )
        return cls(_names(found.get("skip", "")), _names(found.get("experimental", "")), error)

    def merged(self, other: CheckOptions) -> CheckOptions:
        """Return what both say together."""
        return CheckOptions(self.skip | other.skip, self.experimental | other.experimental, self.error or other.error)

    def wants(self, name: str, *, experimental: bool) -> bool:
        """Say whether a rule is checked. One that is asked for by name among the experimental ones is."""
        if experimental:
            return bool(self.experimental & {name, "all"}) and name not in self.skip
        return not self.skip & {name, "all"}


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, (name.strip(SPACE) for name in text.split(","))))


def comment_options(comment: str) -> CheckOptions | None:
    """Read a comment as `# check=…`, None when it is another one; raises DockerfileError without a place."""
    match = _COMMENT.fullmatch(comment)
    return CheckOptions.parse(match[1]) if match else None
