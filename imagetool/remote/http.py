"""HTTP as registries need it: one pool, one retry policy, one redirect rule.

requests prepares a request and its adapter (a urllib3 pool, safe for threads) sends it. There is
no requests.Session on purpose: a session would add proxies, netrc passwords and cookies from the
surroundings, read a redirect's body without bound, and follow it with the credentials.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

from imagetool import __version__, limits
from imagetool.distribution.auth import origin
from imagetool.distribution.headers import parse_retry_after, printable
from imagetool.errors import NetworkError
from imagetool.oci.descriptor import Descriptor
from imagetool.remote.answer import Answer
from imagetool.remote.connect import Tls, host_of
from imagetool.remote.faults import ConnectionBroken, translated
from imagetool.streams.verify import verified
from imagetool.values import dataclass, field, replace

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_MOST_REDIRECTS: Final = 5
_CONNECT_SECONDS: Final = 20.0  # also the limit for one send of _SLICE bytes
_READ_SECONDS: Final = 60.0  # between two pieces of an answer
_COMMIT_SECONDS: Final = 300.0  # a registry may copy and hash a whole blob before it answers a PUT
_SLICE: Final = 256 * limits.KIB
_POOL: Final = 16


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to ask again and how long to wait; seconds throughout.

    `tries` counts the first one. Delays double from `first_delay` with jitter, up to
    `longest_delay`; a Retry-After replaces them up to `longest_asked`. `budget` bounds all
    waiting of one client together.
    """

    tries: int = 5
    first_delay: float = 0.5
    longest_delay: float = 20.0
    longest_asked: float = 90.0
    budget: float = 300.0


class Body:
    """A blob as a request body: verified while it is sent, in pieces small enough for a slow line.

    Iterates `chunks` anew each time, so the request can be repeated when `repeatable`: when
    `chunks` is not itself an iterator. `failure` is what the producer or the verification
    raised, if one did; that is never the network's fault.
    """

    def __init__(self, descriptor: Descriptor, chunks: Iterable[bytes], *, where: str) -> None:
        self._descriptor = descriptor
        self._chunks = chunks
        self._where = where
        self.repeatable = iter(chunks) is not chunks
        self.failure: BaseException | None = None

    def __len__(self) -> int:
        return self._descriptor.size

    def __iter__(self) -> Iterator[memoryview]:
        for chunk in self.verified():
            view = memoryview(chunk)
            for start in range(0, len(view), _SLICE):
                yield view[start : start + _SLICE]

    def verified(self) -> Iterator[bytes]:
        """Yield the chunks as they come; the last one only when size and digest are right."""
        try:
            yield from verified(self._chunks, self._descriptor, where=self._where)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `what` names it for errors ("manifest latest of library/debian").

    `authorization` goes to the origin of `url` only, whatever redirects say.
    """

    method: str
    url: str
    what: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body = b""
    authorization: str = field(default="", repr=False)
    retry: bool = True


class Http:
    """The connections of one registry and of the hosts it leads to; safe for several threads.

    Args:
        registry: its name as the user knows it, for errors.
        sleep: waits that many seconds between tries.
    """

    def __init__(
        self,
        registry: str,
        tls: Tls,
        *,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.registry = registry
        self._verify = tls.roots
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._waited = 0.0
        self._lock = threading.Lock()
        tls.check()
        self._adapter = _adapter(tls)
        # urllib3 leaves a certificate it has shown in the context it shares among hosts: two adapters.
        self._home = _adapter(tls, client=tls.client) if tls.client else self._adapter
        if not tls.verify:  # the user asked for it once; urllib3 would say so at every request
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()
        self._home.close()

    def send(self, request: Request) -> Answer:
        """Return the last answer to a request, whatever its status, after retries and redirects.

        Raises NetworkError when there is none, and what a `Body`'s producer raised.
        """
        tries = 0
        while True:
            tries += 1
            try:
                answer = self._follow(request)
            except ConnectionBroken:
                if not request.retry or not self.wait(tries):
                    raise
                continue
            if not request.retry or answer.status not in RETRIED or not self.wait(tries, answer):
                return answer
            answer.close()

    def wait(self, tries: int, answer: Answer | None = None) -> bool:
        """Wait before another try after `tries` of them; False, at once, when there shall be none.

        A Retry-After of the `answer` that asks for the wait is honoured.
        """
        policy = self._policy
        asked = parse_retry_after(answer.header("Retry-After"), now=datetime.now(UTC)) if answer else None
        if tries >= policy.tries or (asked is not None and asked > policy.longest_asked):
            return False
        backoff = min(policy.first_delay * 2 ** (tries - 1), policy.longest_delay)
        jitter = random.uniform(0.5, 1)
        delay = backoff * jitter if asked is None else asked + policy.first_delay * jitter
        with self._lock:
            if self._waited + delay > policy.budget:
                return False
            self._waited += delay
        self._sleep(delay)
        return True

    def _follow(self, request: Request) -> Answer:
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._once(request)
            if answer.status not in REDIRECTS or request.method not in ("GET", "HEAD"):
                return answer
            location = answer.header("Location")
            answer.close()
            request = self.at(request, location)
        raise NetworkError(
            f"{self.registry}: {request.method} {request.what}: more than {_MOST_REDIRECTS} redirects in a row"
        )

    def at(self, request: Request, location: str) -> Request:
        """Return the request with the target of a Location header, absolute or relative, in place of its own.

        Another scheme, host or port does not get the Authorization. Raises NetworkError for what is
        no http URL, and for plain http after https.
        """
        where = f"{self.registry}: {request.method} {request.what}"
        before = origin(request.url)
        try:
            target = urljoin(request.url, location)
            after = origin(target)
        except ValueError:
            raise NetworkError(f"{where}: sent to a place that is no http URL: {printable(location, 80)!r}") from None
        if not location:
            raise NetworkError(f"{where}: the answer has no Location header")
        if before[0] == "https" and after[0] != "https":
            raise NetworkError(f"{where}: refused to go from https to plain http at {printable(after[1])}")
        return replace(request, url=target, authorization=request.authorization if before == after else "")

    def _once(self, request: Request) -> Answer:
        where = f"{self.registry}: {request.method} {request.what}"
        headers = {
            "User-Agent": f"imagetool/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **request.headers,
        }
        if request.authorization:
            headers["Authorization"] = request.authorization
        read = _COMMIT_SECONDS if request.method == "PUT" else _READ_SECONDS
        body: Any = request.body
        try:
            with translated(where):
                prepared = requests.Request(request.method, request.url, headers, data=body).prepare()
                response = self._adapter_for(request.url).send(
                    prepared, stream=True, timeout=(_CONNECT_SECONDS, read), verify=self._verify
                )
        except NetworkError:
            if isinstance(request.body, Body) and request.body.failure is not None:
                raise request.body.failure from None
            raise
        return Answer(response, where=where, url=request.url)

    def _adapter_for(self, url: str) -> HTTPAdapter:
        """Return the connections that show our certificate for the registry itself; no other host learns who we are."""
        if self._home is not self._adapter and origin(url) == origin(f"https://{host_of(self.registry)}"):
            return self._home
        return self._adapter


def _adapter(tls: Tls, client: tuple[Path, Path] | None = None) -> HTTPAdapter:
    """Return a pool of connections that trusts the further authorities and shows `client`."""
    adapter = HTTPAdapter(pool_connections=_POOL, pool_maxsize=_POOL)
    if client or (tls.authorities and tls.verify):
        context = create_urllib3_context()
        for path in tls.authorities:
            context.load_verify_locations(cafile=path)
        if client:
            context.load_cert_chain(*client)
        adapter.init_poolmanager(_POOL, _POOL, ssl_context=context)
    return adapter
