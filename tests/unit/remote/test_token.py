"""Logging in to registries: Basic, Bearer, tokens that are shared, end and are renewed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from imagetool.distribution.auth import Challenge, Credentials, Scope
from imagetool.errors import AuthError, InvalidDocument, NetworkError
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.remote.connect import Tls
from imagetool.remote.http import Http
from imagetool.remote.registry import Registry, anonymous
from imagetool.remote.repository import Repository
from imagetool.remote.token import Authorizer, CredentialsFor
from tests.support.wire import Exchange, WireRegistry, serving, token_server

BLOB = b"blob" * 1000
LAYER = Descriptor.of(BLOB, mediatype.OCI_LAYER)
ME = Credentials("me", "s3cret")


@pytest.fixture
def wire() -> Iterator[WireRegistry]:
    with serving() as registry:
        registry.add_blob(BLOB)
        yield registry


@pytest.fixture
def guarded(wire: WireRegistry) -> WireRegistry:
    """A registry that wants tokens, from its own token server, numbered as they are issued."""
    wire.realm = f"{wire.url}/token"

    def issue(exchange: Exchange) -> str:
        token = f"token{len(wire.tokens)}"
        wire.tokens.add(token)
        return token

    token_server(wire, issue)
    return wire


def opened(wire: WireRegistry, credentials: Credentials | None = None) -> Repository:
    return Repository(Registry(wire.host, credentials=lambda *_: credentials, sleep=lambda _: None), "a/b")


def read(repository: Repository) -> bytes:
    with repository.fetch(LAYER) as chunks:
        return b"".join(chunks)


def test_basic_credentials_are_sent_only_after_the_registry_asked(wire: WireRegistry) -> None:
    wire.user = ("me", "s3cret")
    repository = opened(wire, ME)
    assert read(repository) == BLOB
    assert read(repository) == BLOB
    assert ["authorization" in seen.headers for seen in wire.seen] == [False, True, True]


def test_wrong_basic_credentials_are_refused_once(wire: WireRegistry) -> None:
    wire.user = ("me", "s3cret")
    repository = opened(wire, Credentials("me", "guess"))
    with pytest.raises(AuthError, match="user 'me' was not accepted"):
        read(repository)
    with pytest.raises(AuthError, match="refused user 'me'"):
        read(repository)
    assert len(wire.seen) == 3


def test_missing_credentials_say_how_to_log_in(wire: WireRegistry) -> None:
    wire.user = ("me", "s3cret")
    with pytest.raises(AuthError, match=f"imagetool login {wire.host}"):
        read(opened(wire))


def test_credentials_are_looked_up_once_and_only_when_asked_for(wire: WireRegistry) -> None:
    asked: list[tuple[str, str]] = []

    def lookup(registry: str, repository: str) -> Credentials | None:
        asked.append((registry, repository))
        return ME

    credentials: CredentialsFor = lookup
    with Registry(wire.host, credentials=credentials) as registry:
        read(Repository(registry, "a/b"))
        assert not asked
        wire.user = ("me", "s3cret")
        read(Repository(registry, "a/b"))
        read(Repository(registry, "a/b"))
    assert asked == [(wire.host, "a/b")]


def test_an_anonymous_token_is_fetched_for_the_scope_and_kept(guarded: WireRegistry) -> None:
    repository = opened(guarded)
    read(repository)
    read(repository)
    assert guarded.summary() == ["GET blobs", "GET token", "GET blobs", "GET blobs"]
    query = parse_qs(urlsplit(guarded.requests(part="/token")[0].path).query)
    assert query == {"service": ["wire"], "scope": ["repository:a/b:pull"]}
    assert "authorization" not in guarded.requests(part="/token")[0].headers


def test_a_user_gets_a_token_with_the_password_and_the_registry_never_sees_it(guarded: WireRegistry) -> None:
    repository = opened(guarded, ME)
    repository.push(Descriptor.of(b"new", mediatype.OCI_LAYER), [b"new"])
    token = guarded.requests(part="/token")[0]
    assert token.headers["authorization"] == ME.basic
    assert parse_qs(urlsplit(token.path).query)["account"] == ["me"]
    assert parse_qs(urlsplit(token.path).query)["scope"] == ["repository:a/b:pull,push"]
    others = [seen for seen in guarded.seen if "/token" not in seen.path]
    assert all("Basic" not in seen.headers.get("authorization", "") for seen in others)
    read(repository)
    assert len(guarded.requests(part="/token")) == 1  # a token for pull,push covers pull


def test_the_query_of_a_realm_is_kept(guarded: WireRegistry) -> None:
    guarded.realm += "?tenant=x"
    read(opened(guarded))
    assert guarded.requests(part="/token")[0].path.startswith("/token?tenant=x&service=wire&")


def test_an_identity_token_is_exchanged_by_post(guarded: WireRegistry) -> None:
    read(opened(guarded, Credentials("", "", identity_token="ref&resh")))
    post = guarded.requests("POST", "/token")[0]
    form = parse_qs(post.body.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["ref&resh"]
    assert form["scope"] == ["repository:a/b:pull"]
    assert form["client_id"] == ["imagetool"]
    assert "authorization" not in post.headers


def test_a_token_server_without_post_is_asked_by_get(guarded: WireRegistry) -> None:
    guarded.rules.insert(0, guarded.rules.pop())  # the POST rule first, to replace it
    guarded.rules[0].action = lambda exchange: exchange.answer(405)
    read(opened(guarded, Credentials("me", "s3cret", identity_token="refresh")))
    assert guarded.summary() == ["GET blobs", "POST token", "GET token", "GET blobs"]


def test_a_ready_registry_token_is_used_as_it_is(guarded: WireRegistry) -> None:
    guarded.tokens.add("ready")
    read(opened(guarded, Credentials(registry_token="ready")))
    assert guarded.summary() == ["GET blobs", "GET blobs"]


def test_a_token_that_ended_in_the_middle_is_renewed_once(guarded: WireRegistry) -> None:
    repository = opened(guarded)
    read(repository)
    guarded.tokens.clear()
    guarded.tokens.add("unrelated")  # so that the next one has another name
    assert read(repository) == BLOB
    assert guarded.summary()[3:] == ["GET blobs", "GET token", "GET blobs"]


def test_an_upload_whose_token_ends_between_two_requests_goes_on(guarded: WireRegistry) -> None:
    def expire(exchange: Exchange) -> bool:
        guarded.tokens.clear()
        guarded.tokens.add("unrelated")
        return False

    guarded.on("PUT", "/uploads/", expire)
    data = b"new layer" * 100000
    opened(guarded, ME).push(Descriptor.of(data, mediatype.OCI_LAYER), [data])
    assert guarded.blobs[str(Descriptor.of(data, mediatype.OCI_LAYER).digest)] == data


def test_a_token_the_registry_does_not_take_is_one_error(guarded: WireRegistry) -> None:
    guarded.rules.clear()
    token_server(guarded, lambda _: "worthless")
    with pytest.raises(AuthError):
        read(opened(guarded, ME))
    assert len(guarded.seen) == 3


def test_threads_share_one_token_request(guarded: WireRegistry) -> None:
    guarded.rules.clear()

    def slow(exchange: Exchange) -> str:
        time.sleep(0.2)
        guarded.tokens.add("shared")
        return "shared"

    token_server(guarded, slow)
    repository = opened(guarded)
    together = threading.Barrier(8)

    def fetch(_: int) -> bytes:
        together.wait()
        return read(repository)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(8))) == {BLOB}
    assert len(guarded.requests(part="/token")) == 1


def test_old_tokens_are_renewed_before_they_end(guarded: WireRegistry) -> None:
    now = [0.0]
    http = Http(guarded.host, Tls())
    authorizer = Authorizer(http, guarded.url, anonymous, clock=lambda: now[0])
    scopes = frozenset({Scope.repository("a/b", "pull")})
    challenge = Challenge("bearer", {"realm": guarded.realm})
    first = authorizer.challenged([challenge], "a/b", scopes, rejected="")
    now[0] = 239  # of 300 s, 80 % are used
    assert authorizer.header("a/b", scopes) == first
    now[0] = 241
    assert authorizer.header("a/b", scopes) != first
    assert len(guarded.requests(part="/token")) == 2
    http.close()


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthError), (403, AuthError), (404, AuthError), (500, NetworkError)]
)
def test_a_token_server_that_refuses(guarded: WireRegistry, status: int, kind: type[Exception]) -> None:
    guarded.rules.clear()
    guarded.on("GET", "/token", lambda e: e.answer(status, b'{"details":"incorrect username"}'), times=9)
    with pytest.raises(kind, match=f"token from 127.0.0.1: {status} .*: incorrect username"):
        read(opened(guarded, ME))


def test_a_token_answer_that_holds_none_is_refused(guarded: WireRegistry) -> None:
    guarded.rules.clear()
    guarded.on("GET", "/token", lambda e: e.answer(200, b'{"token":""}'))
    with pytest.raises(InvalidDocument, match="token"):
        read(opened(guarded, ME))


def test_an_unknown_scheme_is_named(wire: WireRegistry) -> None:
    wire.on("GET", "/blobs/", lambda e: e.fail(401, "X", {"WWW-Authenticate": "Negotiate abc="}))
    with pytest.raises(AuthError, match="it offers: negotiate"):
        read(opened(wire, ME))


def test_login_asks_the_registry(guarded: WireRegistry) -> None:
    with Registry(guarded.host, credentials=lambda *_: ME) as registry:
        registry.login()
    assert guarded.requests(part="/token")[0].headers["authorization"] == ME.basic
    guarded.user, guarded.realm = ("me", "other"), ""
    with Registry(guarded.host, credentials=lambda *_: ME) as registry, pytest.raises(AuthError):
        registry.login()


def test_nobody_has_no_credentials() -> None:
    assert anonymous("registry", "repository") is None  # type: ignore[func-returns-value]
