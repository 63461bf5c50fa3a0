"""One registry: its connections, its authentication, and requests to it that either succeed or raise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType

from imagetool.distribution.auth import Scope, origin, parse_challenges
from imagetool.distribution.headers import printable
from imagetool.errors import NetworkError
from imagetool.remote.answer import Answer
from imagetool.remote.connect import Tls, base_url
from imagetool.remote.http import Body, Http, Request, RetryPolicy
from imagetool.remote.token import Authorizer, CredentialsFor


def anonymous(registry: str, repository: str) -> None:
    """Know no credentials for any registry."""


class Registry:
    """A registry host, with one connection pool and one token cache. Safe for several threads.

    Nothing is sent before the first request. Leaving its context closes the connections.

    Args:
        name: `host[:port]` as in references; docker.io is Docker Hub.
        credentials: asked for (registry, repository) when the registry wants to know who we are.
        tls: how the certificate is verified. A registry on loopback may speak plain http all the same.
        trusted_realms: hosts of token servers that may see credentials though they are of another site.
        sleep: waits seconds between tries.
    """

    def __init__(
        self,
        name: str,
        *,
        credentials: CredentialsFor = anonymous,
        tls: Tls | None = None,
        trusted_realms: Collection[str] = (),
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._tls = tls or Tls()
        self._credentials = credentials
        self._trusted = trusted_realms
        self.http = Http(name, self._tls, policy=policy, sleep=sleep)
        self._lock = threading.Lock()
        self._found: tuple[str, Authorizer] | None = None

    def __str__(self) -> str:
        return self.name

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def login(self) -> None:
        """Ask the registry whether it takes our credentials; raises AuthError when it does not."""
        with self.request("GET", "/v2/", what="/v2/", repository="", scopes=frozenset()):
            pass

    def request(
        self,
        method: str,
        target: str,
        *,
        what: str,
        repository: str,
        scopes: frozenset[Scope],
        expect: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        body: bytes | Body = b"",
        retry: bool = True,
    ) -> Answer:
        """Send a request, with authorization where it is asked for, and return an answer that was expected.

        A 401 is answered once. `target` is a path below the registry, or a URL it gave us: one of
        another origin never sees a credential. Any other status raises the error it means.
        """
        base, authorizer = self._connect()
        url = target if "://" in target else base + target
        ours = origin(url) == origin(base)
        sent = authorizer.header(repository, scopes) if ours else ""
        request = Request(method, url, what, headers or {}, body, sent, retry)
        answer = self.http.send(request)
        repeatable = not isinstance(body, Body) or body.repeatable
        if answer.status == 401 and ours and repeatable and origin(answer.url) == origin(base):
            challenges = parse_challenges(answer.header_values("WWW-Authenticate"))
            if challenges:
                answer.close()
                header = authorizer.challenged(challenges, repository, scopes, rejected=sent)
                answer = self.http.send(Request(method, url, what, headers or {}, body, header, retry))
        if answer.status in expect:
            return answer
        refused = answer.status in (401, 403)
        raise answer.error(authorizer.advice(repository, known=answer.status == 403) if refused else "")

    def locate(self, answer: Answer, what: str) -> str:
        """Return the absolute URL of an answer's Location; raises NetworkError for one we will not follow."""
        request = Request("POST", answer.url, what)
        return self.http.at(request, answer.header("Location")).url

    def follow(self, answer: Answer, link: str) -> str:
        """Return the absolute URL of a Link; raises NetworkError when it leads to another origin."""
        url = self.http.at(Request("GET", answer.url, "next page"), link).url
        if origin(url) != origin(answer.url):
            raise NetworkError(f"{answer.where}: the next page is at another host: {printable(url, 100)}")
        return url

    def _connect(self) -> tuple[str, Authorizer]:
        with self._lock:
            if self._found is None:
                base = base_url(self.name, self._tls)
                self._found = base, Authorizer(self.http, base, self._credentials, trusted_realms=self._trusted)
            return self._found
