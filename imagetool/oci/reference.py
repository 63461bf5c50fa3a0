"""Image references: the names people give to images.

Source: github.com/distribution/reference grammar; Docker Hub's short-name rules.
"""

from __future__ import annotations

import re
from typing import Final

from imagetool.errors import InvalidDocument, InvalidReference
from imagetool.oci.digest import Digest
from imagetool.values import dataclass, replace

DEFAULT_REGISTRY: Final = "docker.io"
_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9])"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]{{2,45}}\])(?::(\d{{1,5}}))?\Z")
_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_NAME_LIMIT: Final = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """registry/repository[:tag][@digest], always with a registry; valid by construction.

    The distribution grammar puts `library/` before a one-word name on Docker Hub, and reads
    the part before the first slash as a registry when it has a dot, a colon, or is localhost.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    def __post_init__(self) -> None:
        check_registry(self.registry)
        check_repository(self.repository)
        if len(self.registry) + 1 + len(self.repository) > _NAME_LIMIT:
            raise InvalidReference(f"name longer than {_NAME_LIMIT} characters: {self.repository[:60]!r}…")
        if self.tag:
            check_tag(self.tag)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        """registry/repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The name as people write it: without docker.io/ and library/."""
        if self.registry != DEFAULT_REGISTRY:
            return str(self)
        return str(self).removeprefix("docker.io/").removeprefix("library/")

    @property
    def target(self) -> str:
        """What to ask a registry for: the digest when there is one, else the tag, else latest."""
        return str(self.digest) if self.digest else self.tag or "latest"

    def with_default_tag(self) -> Reference:
        """Return the reference with tag `latest` when it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as `docker pull` does; raises InvalidReference saying which part is wrong."""
        rest, at, digest_text = text.partition("@")
        try:
            digest = Digest.parse(digest_text) if at else None
        except InvalidDocument as error:
            raise InvalidReference(f"{text[:200]!r}: {error}") from None
        head, slash, tail = rest.partition("/")
        is_registry = slash and ("." in head or ":" in head or head == "localhost" or head != head.lower())
        registry, path = (head, tail) if is_registry else (DEFAULT_REGISTRY, rest)
        path, colon, tag = path.partition(":")
        if colon and not tag:
            raise InvalidReference(f"{text[:200]!r}: the tag after ':' is empty")
        if registry == "index.docker.io":
            registry = DEFAULT_REGISTRY
        if registry == DEFAULT_REGISTRY and path and "/" not in path:
            path = f"library/{path}"
        try:
            return cls(registry, path, tag, digest)
        except InvalidReference as error:
            raise InvalidReference(f"{text[:200]!r}: {error}") from None


def check_registry(host: str) -> str:
    """Return `host[:port]` when it is one; raises InvalidReference."""
    match = _HOST.match(host)
    if not match or (match[1] and not 0 < int(match[1]) < 65536):
        raise InvalidReference(f"not a registry host: {host[:80]!r}")
    return host


def check_repository(path: str) -> str:
    """Return the repository path when the grammar allows it; raises InvalidReference."""
    if not path or len(path) > _NAME_LIMIT or not all(_COMPONENT.match(part) for part in path.split("/")):
        hint = "; repository names are lower case" if path != path.lower() else ""
        raise InvalidReference(f"not a repository name: {path[:80]!r}{hint}")
    return path


def check_tag(tag: str) -> str:
    """Return the tag when the grammar allows it; raises InvalidReference."""
    if not _TAG.match(tag):
        raise InvalidReference(f"not a tag: {tag[:140]!r}")
    return tag
