"""Who we are to a registry: nobody, a Basic user, or the bearer of a token.

Source: distribution's token authentication specification (GET) and OAuth2 specification (POST).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from imagetool.distribution.auth import (
    Challenge,
    Credentials,
    Scope,
    check_realm,
    join_scopes,
    origin,
    parse_scopes,
    parse_token,
)
from imagetool.distribution.headers import printable
from imagetool.errors import AuthError, NetworkError
from imagetool.remote.answer import Answer
from imagetool.remote.http import Http, Request
from imagetool.values import dataclass, field

#: Says what is known for (registry, repository); asked once each, and only when a registry asks us.
CredentialsFor = Callable[[str, str], Credentials | None]

_CLIENT: Final = "imagetool"
_USED_LIFE: Final = 0.8  # a token is renewed when this part of its life is over


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float


@dataclass(frozen=True, slots=True)
class _Key:
    """What a cached token is good for."""

    realm: str
    service: str
    user: str
    scopes: frozenset[Scope]

    def covers(self, other: _Key) -> bool:
        return (self.realm, self.service, self.user) == (other.realm, other.service, other.user) and all(
            any(mine.covers(scope) for mine in self.scopes) for scope in other.scopes
        )


class Authorizer:
    """Makes the Authorization header for one registry; safe for several threads.

    Nothing is sent before the registry has asked for it. Tokens are cached by realm, service,
    user and scopes; threads that need a token at the same time wait for one request.
    """

    def __init__(
        self,
        http: Http,
        base: str,
        credentials: CredentialsFor,
        *,
        trusted_realms: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._base = base
        self._credentials_for = credentials
        self._trusted = trusted_realms
        self._clock = clock
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._known: dict[str, Credentials | None] = {}
        self._tokens: dict[_Key, _Token] = {}

    def header(self, repository: str, scopes: frozenset[Scope]) -> str:
        """Return the Authorization for a request, "" while the registry has not asked for one."""
        with self._lock:
            return self._authorize(self._challenge, repository, scopes) if self._challenge else ""

    def challenged(
        self, challenges: Sequence[Challenge], repository: str, scopes: frozenset[Scope], *, rejected: str
    ) -> str:
        """Return the Authorization that answers a 401; `rejected` is what was sent, "" for nothing.

        Raises AuthError when there is no answer, or the same one was refused already.
        """
        where = f"registry {self._http.registry}"
        bearer = next((item for item in challenges if item.scheme == "bearer" and item.parameters.get("realm")), None)
        challenge = bearer or next((item for item in challenges if item.scheme == "basic"), None)
        if challenge is None:
            offered = ", ".join(printable(item.scheme, 20) for item in challenges) or "none"
            raise AuthError(f"{where} wants a way of authentication we do not know (it offers: {offered})")
        with self._lock:
            self._challenge = challenge
            for key in [key for key, token in self._tokens.items() if f"Bearer {token.value}" == rejected]:
                del self._tokens[key]
            wanted = join_scopes(scopes, parse_scopes(challenge.parameters.get("scope", "")) if bearer else ())
            header = self._authorize(challenge, repository, wanted)
        if header == rejected:
            user = self._user(repository)
            raise AuthError(f"{where} refused {user}; check the password, or log in again")
        return header

    def advice(self, repository: str, *, known: bool) -> str:
        """Return what to do about a refusal; `known` says that the registry accepts who we are (403)."""
        registry = self._http.registry
        if self._known.get(repository) is None:
            return f"no credentials for {registry} were found; log in with: imagetool login {registry}"
        user = self._user(repository)
        return f"{user} may not do that" if known else f"{user} was not accepted; check the password, or log in again"

    def _user(self, repository: str) -> str:
        credentials = self._known.get(repository)
        if credentials is None:
            return "an anonymous user"
        return f"user {printable(credentials.username, 60)!r}" if credentials.username else "the stored token"

    def _credentials(self, repository: str) -> Credentials | None:
        if repository not in self._known:
            self._known[repository] = self._credentials_for(self._http.registry, repository)
        return self._known[repository]

    def _authorize(self, challenge: Challenge, repository: str, scopes: frozenset[Scope]) -> str:
        """Return a header value; the lock is held, so that one thread asks and the others find its token."""
        credentials = self._credentials(repository)
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        if challenge.scheme == "basic":
            if credentials is None or not credentials.username:
                raise AuthError(f"registry {self._http.registry} wants a login: {self.advice(repository, known=False)}")
            return credentials.basic
        user = credentials.username or "<token>" if credentials else ""
        key = _Key(challenge.parameters["realm"], challenge.parameters.get("service", ""), user, scopes)
        now = self._clock()
        for known, token in self._tokens.items():
            if now < token.renew_at and known.covers(key):
                return f"Bearer {token.value}"
        token = self._ask(key, credentials)
        self._tokens[key] = token
        return f"Bearer {token.value}"

    def _ask(self, key: _Key, credentials: Credentials | None) -> _Token:
        check_realm(key.realm, registry=self._base, secret=credentials is not None, trusted=self._trusted)
        what = f"token from {origin(key.realm)[1]}"
        asked_at = self._clock()
        answer = None
        if credentials is not None and credentials.identity_token:
            answer = self._http.send(self._refresh(key, credentials, what))
            if answer.status in (404, 405) and credentials.password:
                answer.close()
                answer = None
        if answer is None:
            answer = self._http.send(self._get(key, credentials, what))
        with answer:
            if answer.status != 200:
                raise _refusal(answer)
            found = parse_token(answer.read(), what=answer.where)
        return _Token(found.token, asked_at + found.expires_in * _USED_LIFE)

    def _get(self, key: _Key, credentials: Credentials | None, what: str) -> Request:
        query = [("service", key.service)] if key.service else []
        query += [("scope", str(scope)) for scope in sorted(key.scopes, key=str)]
        secret = credentials is not None and bool(credentials.username)
        if credentials is not None and secret:
            query.append(("account", credentials.username))
        parts = urlsplit(key.realm)
        joined = "&".join(filter(None, (parts.query, urlencode(query))))
        url = urlunsplit(parts._replace(query=joined))
        return Request("GET", url, what, authorization=credentials.basic if credentials and secret else "")

    def _refresh(self, key: _Key, credentials: Credentials, what: str) -> Request:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "service": key.service,
            "client_id": _CLIENT,
            "scope": " ".join(sorted(map(str, key.scopes))),
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", key.realm, what, headers, urlencode(form).encode("ascii"))


def _refusal(answer: Answer) -> AuthError | NetworkError:
    """Return what a token server's failure means: any 4xx that was not worth a retry is about who we are."""
    refused = 400 <= answer.status < 500 and answer.status not in (408, 429)
    message = str(answer.error())
    return AuthError(message) if refused else NetworkError(message)
