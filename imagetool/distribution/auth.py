"""Registry authentication without I/O: challenges, scopes, token answers, and who may see a secret.

Source: RFC 9110 section 11; distribution's token authentication and OAuth2 specifications.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from imagetool import limits
from imagetool.errors import AuthError, InvalidDocument, LimitExceeded
from imagetool.oci import document
from imagetool.values import dataclass, field

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
# Possessive quantifiers (*+, ++) keep these linear on hostile values.
_SCHEME: Final = re.compile(rf"[\s,]*+({_WORD})(?=[\s,]|\Z)")
_PARAMETER: Final = re.compile(rf'[\s,]*+({_WORD})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|({_WORD}))\s*+(?=,|\Z)', re.DOTALL)
_TOKEN68: Final = re.compile(r"\s++[A-Za-z0-9._~+/-]++=*+\s*+(?=,|\Z)")
_SCOPE_NAME: Final = re.compile(r"[^\s:]+(?::\d+)?[^\s:]*\Z")
_SECRET: Final = re.compile(r"[\x21-\x7e]+\Z")  # what may stand in an Authorization header

#: A token that says less about its life than this is taken to live this many seconds.
MINIMUM_TOKEN_LIFE: Final = 60
_LONGEST_TOKEN_LIFE: Final = 12 * 3600

#: Second-level labels under which two-letter top domains register, as in example.co.uk.
_REGISTRY_LABELS: Final = frozenset({"ac", "co", "com", "edu", "gov", "net", "or", "org"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves who we are to one registry; any of the three forms, `repr` shows none.

    `identity_token` is an OAuth2 refresh token, `registry_token` a ready bearer token.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of `Authorization` for Basic."""
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and parameter names are lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Read every challenge of every WWW-Authenticate header; what cannot be read is left out.

    Handles several challenges in one header and quoted strings that hold commas.
    """
    return tuple(challenge for value in values for challenge in _challenges(value[: limits.HEADER_BYTES]))


def _challenges(text: str) -> Iterator[Challenge]:
    position = 0
    while match := _SCHEME.match(text, position):
        scheme, position = match[1].lower(), match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            quoted = parameter[2]
            value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            parameters.setdefault(parameter[1].lower(), value)
            position = parameter.end()
        if not parameters and (token68 := _TOKEN68.match(text, position)) and not _SCHEME.match(text, position):
            position = token68.end()
        yield Challenge(scheme, parameters)


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """What a token may be used for: `repository:library/debian:pull,push`."""

    kind: str
    name: str
    actions: frozenset[str]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(sorted(self.actions))}"

    def covers(self, other: Scope) -> bool:
        """Say whether everything `other` allows is allowed by this scope too."""
        return (self.kind, self.name) == (other.kind, other.name) and self.actions >= other.actions

    @classmethod
    def repository(cls, name: str, *actions: str) -> Scope:
        """Return the scope of actions on one repository: "pull", "push", "delete"."""
        return cls("repository", name, frozenset(actions))


def parse_scopes(text: str) -> frozenset[Scope]:
    """Read a space-separated list of scopes; words that are not scopes are left out."""
    scopes = set()
    for word in text.split():
        kind, _, rest = word.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind and actions and _SCOPE_NAME.match(name):
            scopes.add(Scope(kind, name, frozenset(filter(None, actions.split(",")))))
    return frozenset(scopes)


def join_scopes(*groups: Iterable[Scope]) -> frozenset[Scope]:
    """Return the scopes of all groups with the actions on one resource put together."""
    actions: dict[tuple[str, str], frozenset[str]] = {}
    for scope in (scope for group in groups for scope in group):
        key = (scope.kind, scope.name)
        actions[key] = actions.get(key, frozenset()) | scope.actions
    return frozenset(Scope(kind, name, allowed) for (kind, name), allowed in actions.items())


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A bearer token and the seconds it lives, at least `MINIMUM_TOKEN_LIFE`; `repr` hides it."""

    token: str = field(repr=False)
    expires_in: int


def parse_token(raw: bytes, *, what: str) -> TokenAnswer:
    """Read a token server's answer; raises InvalidDocument, or LimitExceeded, when it holds no usable token.

    The clock of the server is not trusted, so `issued_at` is not looked at.
    """
    tree = document.decode(raw, what=what)
    token = document.get(tree, "token", str, "", path="$", what=what)
    token = token or document.get(tree, "access_token", str, "", path="$", what=what)
    if len(token) > limits.HEADER_BYTES:
        raise LimitExceeded(f"{what}: $.token is longer than {limits.named('HEADER_BYTES')}")
    if not _SECRET.match(token):
        raise InvalidDocument(f"{what}: $.token is missing or not a token")
    seconds = tree.get("expires_in")
    life = seconds if isinstance(seconds, int) and not isinstance(seconds, bool) else 0
    return TokenAnswer(token, min(max(life, MINIMUM_TOKEN_LIFE), _LONGEST_TOKEN_LIFE))


def origin(url: str) -> tuple[str, str, int]:
    """Return (scheme, host, port) of an http or https URL, with the default port filled in.

    Raises ValueError for any other URL, and for one with a user name in it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an http or https URL of a host")
    return parts.scheme, parts.hostname.rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this very machine: localhost, *.localhost, 127/8, ::1."""
    name = host.strip("[]").lower()
    address = _address(name)
    return address.is_loopback if address else name == "localhost" or name.endswith(".localhost")


def check_realm(realm: str, *, registry: str, secret: bool, trusted: Collection[str] = ()) -> None:
    """Refuse a token server that a registry has no business sending us to.

    A challenge is text from the network. Following it blindly gives the user's password to
    whoever wrote it, or sends requests into a private network.

    Args:
        realm: the URL from the challenge.
        registry: the registry's base URL, with the scheme that is really spoken.
        secret: whether credentials would be sent.
        trusted: hosts that may see credentials although they are of another site.

    Raises AuthError, saying which rule was broken and how to allow it.
    """
    _, home, _ = origin(registry)
    where = f"registry {home} asks for a token from {realm[:200]!r}"
    try:
        scheme, host, _ = origin(realm)
        parts: SplitResult = urlsplit(realm)
    except ValueError as error:
        raise AuthError(f"{where}: {error}") from None
    if scheme != "https" and not registry.startswith("http://"):
        raise AuthError(f"{where}: refused, since the registry speaks https and the token server does not")
    if parts.fragment:
        raise AuthError(f"{where}: refused, since the URL has a fragment")
    if host == home or host in trusted or (is_loopback(host) and is_loopback(home)):
        return
    address = _address(host)
    cure = f"; if {host} is right, allow it with IMAGETOOL_TRUSTED_REALMS={host}"
    if is_loopback(host) or (address and not address.is_global):
        raise AuthError(f"{where}: refused, since that is an address of a private network{cure}")
    if secret and (address or _site(host) != _site(home)):
        raise AuthError(f"{where}: refused to send credentials to another site{cure}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _site(host: str) -> str:
    """Return the part of a host name that one owner registers: docker.io of auth.docker.io.

    Without the public suffix list this is the last two labels, or three under a country's
    registry label (example.co.uk).
    """
    labels = host.lower().rstrip(".").split(".")
    deep = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _REGISTRY_LABELS
    return ".".join(labels[-3 if deep else -2 :])
