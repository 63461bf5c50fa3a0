"""Challenges, scopes, tokens, and the rule of who may be sent a password."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.distribution.auth import (
    Challenge,
    Credentials,
    Scope,
    check_realm,
    is_loopback,
    join_scopes,
    origin,
    parse_challenges,
    parse_scopes,
    parse_token,
)
from imagetool.errors import AuthError, InvalidDocument

BEARER = (
    'Bearer realm="https://auth.example.com/token?a=1,2",service="the \\"registry\\"",scope="repository:a/b:pull,push"'
)


def test_several_challenges_in_several_headers_are_all_read() -> None:
    assert parse_challenges([f'{BEARER}, Basic realm="x, y"', "Negotiate YWJj==, NTLM"]) == (
        Challenge(
            "bearer",
            {
                "realm": "https://auth.example.com/token?a=1,2",
                "service": 'the "registry"',
                "scope": "repository:a/b:pull,push",
            },
        ),
        Challenge("basic", {"realm": "x, y"}),
        Challenge("negotiate"),
        Challenge("ntlm"),
    )


def test_scheme_and_parameter_names_ignore_case_and_the_first_of_a_pair_wins() -> None:
    assert parse_challenges(["BASIC Realm=a, REALM=b"]) == (Challenge("basic", {"realm": "a"}),)


@pytest.mark.parametrize("value", ["", ",", "=", '"', 'Bearer realm="unterminated', "Bearer realm=", "\x00"])
def test_broken_challenges_give_nothing_wrong(value: str) -> None:
    assert all(not challenge.parameters for challenge in parse_challenges([value]))


@given(st.text())
def test_any_text_can_be_read_as_challenges(text: str) -> None:
    parse_challenges([text])
    parse_scopes(text)


@pytest.mark.parametrize(
    "hostile",
    [
        "a " * 16000,
        "a=" * 16000,
        'a b="' + "\\" * 32000,
        "a" + " ," * 16000,
        "a b" + " " * 32000 + "c",
        "a" * 32000 + "(",
    ],
)
def test_hostile_challenges_are_read_in_linear_time(hostile: str) -> None:
    start = time.process_time()
    parse_challenges([hostile])
    assert time.process_time() - start < 1


def test_scopes_read_back_and_join() -> None:
    pull, push = Scope.repository("a/b", "pull"), Scope.repository("a/b", "push", "pull")
    assert str(push) == "repository:a/b:pull,push"
    assert parse_scopes(f"{pull} registry:catalog:* nonsense a:b") == {
        pull,
        Scope("registry", "catalog", frozenset("*")),
    }
    assert parse_scopes("repository:host:5000/a:pull") == {Scope.repository("host:5000/a", "pull")}
    assert push.covers(pull)
    assert not pull.covers(push)
    assert join_scopes([pull], [Scope.repository("a/b", "push")]) == {push}


@pytest.mark.parametrize(
    ("raw", "token", "life"),
    [
        (b'{"token":"abc"}', "abc", 60),
        (b'{"access_token":"abc","expires_in":300}', "abc", 300),
        (b'{"token":"abc","access_token":"def","expires_in":5}', "abc", 60),
        (b'{"token":"abc","expires_in":-9}', "abc", 60),
        (b'{"token":"abc","expires_in":"300"}', "abc", 60),
        (b'{"token":"abc","expires_in":999999999}', "abc", 43200),
    ],
)
def test_token_answers(raw: bytes, token: str, life: int) -> None:
    answer = parse_token(raw, what="token")
    assert (answer.token, answer.expires_in) == (token, life)
    assert token not in repr(answer)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b'{"token":""}', b'{"token":"a\\r\\nX: y"}', b'{"token":7}', b"{" * 9999]
)
def test_an_answer_without_a_usable_token_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidDocument):
        parse_token(raw, what="token")


def test_credentials_never_show_their_secrets() -> None:
    secret = Credentials("me", "hunter2", "idtoken", "regtoken")
    assert repr(secret) == "Credentials(username='me')"
    assert Credentials("me", "pä:ss").basic == "Basic bWU6cMOkOnNz"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("reg.localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com", False),
        ("128.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - not bound to
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_origin_has_its_default_port() -> None:
    assert origin("https://Reg.Example.com/v2/") == ("https", "reg.example.com", 443)
    assert origin("http://[::1]:5000/") == ("http", "::1", 5000)
    for bad in ("ftp://a/", "https:///x", "https://u:p@a/", "//a", "https://a:99999/", "https://[a/"):
        with pytest.raises(ValueError):  # noqa: PT011 - any message will do
            origin(bad)


REGISTRY = "https://registry-1.docker.io"


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("https://auth.docker.io/token", REGISTRY),
        ("https://docker.io/token", REGISTRY),
        ("https://registry-1.docker.io:8443/token", REGISTRY),
        ("https://gitlab.com/jwt/auth", "https://registry.gitlab.com"),
        ("https://auth.example.co.uk/t", "https://reg.example.co.uk"),
        ("http://127.0.0.1:5001/t", "http://localhost:5000"),
        ("https://10.0.0.5/t", "https://10.0.0.5:5000"),
        ("http://reg.lan/t", "http://reg.lan:5000"),
    ],
)
def test_a_token_server_of_the_same_site_may_see_credentials(realm: str, registry: str) -> None:
    check_realm(realm, registry=registry, secret=True)


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("https://evil.com/t", REGISTRY),
        ("https://registry-1.docker.io.evil.com/t", REGISTRY),
        ("https://evildocker.io/t", REGISTRY),
        ("https://docker.io@evil.com/t", REGISTRY),
        ("https://other.co.uk/t", "https://reg.example.co.uk"),
        ("https://8.8.8.8/t", REGISTRY),
        ("https://8.8.8.8/t", "https://8.8.4.8"),
    ],
)
def test_credentials_are_not_sent_to_another_site(realm: str, registry: str) -> None:
    with pytest.raises(AuthError):
        check_realm(realm, registry=registry, secret=True)


def test_another_site_is_asked_without_credentials_or_when_it_is_trusted() -> None:
    check_realm("https://auth.other.com/t", registry=REGISTRY, secret=False)
    check_realm("https://auth.other.com/t", registry=REGISTRY, secret=True, trusted=["auth.other.com"])
    check_realm("https://10.1.2.3/t", registry=REGISTRY, secret=True, trusted=["10.1.2.3"])


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.docker.io/token",
        "https://127.0.0.1/t",
        "https://localhost/t",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/t",
        "https://[fe80::1]/t",
        "https://[::ffff:10.0.0.1]/t",
        "https://0.0.0.0/t",
        "file:///etc/passwd",
        "https://auth.docker.io/t#x",
        "",
        "https://[",
    ],
)
def test_a_realm_that_is_plain_private_or_no_url_is_refused_even_without_credentials(realm: str) -> None:
    with pytest.raises(AuthError, match=r"registry-1\.docker\.io"):
        check_realm(realm, registry=REGISTRY, secret=False)
