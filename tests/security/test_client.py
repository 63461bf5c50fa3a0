"""Hostile registries: what they must never get from the client, and never do to it."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imagetool import limits
from imagetool.distribution.auth import Credentials
from imagetool.errors import AuthError, ImagetoolError, LimitExceeded, NetworkError, UsageError
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.remote.connect import Tls, base_url
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from tests.support.wire import Exchange, WireRegistry, serving

BLOB = b"blob" * 1000
LAYER = Descriptor.of(BLOB, mediatype.OCI_LAYER)
ME = Credentials("me", "CANARY-pässword")


@pytest.fixture
def wire() -> Iterator[WireRegistry]:
    with serving() as registry:
        registry.user = ("me", ME.password)
        yield registry


@pytest.fixture
def other() -> Iterator[WireRegistry]:
    """Another host: the same address on another port, which is another origin all the same."""
    with serving() as registry:
        registry.add_blob(BLOB)
        yield registry


def opened(wire: WireRegistry, *, tls: Tls | None = None) -> Repository:
    return Repository(Registry(wire.host, credentials=lambda *_: ME, tls=tls, sleep=lambda _: None), "a/b")


def read(repository: Repository) -> bytes:
    with repository.fetch(LAYER) as chunks:
        return b"".join(chunks)


def test_a_redirect_to_another_host_does_not_carry_the_credentials(wire: WireRegistry, other: WireRegistry) -> None:
    target = f"{other.url}/v2/a/b/blobs/{LAYER.digest}?signature=abc%2F"
    wire.on("GET", "/blobs/", lambda e: "Authorization" in e.headers and e.answer(307, b"", {"Location": target}), 9)
    assert read(opened(wire)) == BLOB
    assert other.seen[0].path.endswith("?signature=abc%2F")
    assert not {"authorization", "cookie", "proxy-authorization"} & set(other.seen[0].headers)


def test_a_redirect_within_the_registry_keeps_them(wire: WireRegistry) -> None:
    wire.add_blob(BLOB)
    wire.on("GET", "/blobs/", lambda e: e.answer(302, b"", {"Location": f"/v2/x/y/blobs/{LAYER.digest}"}))
    assert read(opened(wire)) == BLOB


def test_a_challenge_of_a_redirect_target_is_not_answered(wire: WireRegistry, other: WireRegistry) -> None:
    other.user = ("me", ME.password)
    wire.user = None
    wire.on("GET", "/blobs/", lambda e: e.answer(307, b"", {"Location": other.url + e.path}), times=9)
    with pytest.raises(AuthError):
        read(opened(wire))
    assert all("authorization" not in seen.headers for seen in other.seen)


def test_a_redirect_that_never_ends_is_stopped(wire: WireRegistry) -> None:
    wire.on("GET", "/blobs/", lambda e: e.answer(307, b"", {"Location": e.path}), times=99)
    with pytest.raises(NetworkError, match="more than 5 redirects"):
        read(opened(wire))
    assert len(wire.seen) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "http://[", "http://me:pw@127.0.0.1/"])
def test_a_redirect_to_what_is_no_http_host_is_refused(wire: WireRegistry, location: str) -> None:
    wire.on("GET", "/blobs/", lambda e: e.answer(307, b"", {"Location": location}))
    with pytest.raises(NetworkError, match="no http URL"):
        read(opened(wire))


def test_the_endless_body_of_a_redirect_is_not_read(wire: WireRegistry, other: WireRegistry) -> None:
    def endless(exchange: Exchange) -> bool:
        exchange.answer(307, b"x", {"Location": other.url + exchange.path, "Content-Length": str(1 << 40)})
        return True

    wire.on("GET", "/blobs/", endless)
    assert read(opened(wire)) == BLOB


def test_an_upload_location_at_another_host_does_not_see_the_credentials(
    wire: WireRegistry, other: WireRegistry
) -> None:
    other.uploads["u"] = bytearray()
    location = f"{other.url}/v2/a/b/blobs/uploads/u"
    wire.on(
        "POST", "/uploads/", lambda e: "Authorization" in e.headers and e.answer(202, b"", {"Location": location}), 9
    )
    opened(wire).push(LAYER, [BLOB])
    assert other.blobs[str(LAYER.digest)] == BLOB
    assert all("authorization" not in seen.headers for seen in other.seen)


def test_the_next_page_is_not_fetched_from_another_host(wire: WireRegistry, other: WireRegistry) -> None:
    wire.user = None
    link = {"Link": f'<{other.url}/v2/a/b/tags/list>; rel="next"'}
    wire.on("GET", "/tags/list", lambda e: e.answer(200, b'{"tags":["a"]}', link))
    with pytest.raises(NetworkError, match="another host"):
        list(opened(wire).tags())
    assert not other.seen


def test_pages_that_go_round_are_stopped(wire: WireRegistry) -> None:
    wire.user = None
    link = {"Link": '</v2/a/b/tags/list?last=a>; rel="next"'}
    wire.on("GET", "/tags/list", lambda e: e.answer(200, b'{"tags":["a"]}', link), times=99)
    with pytest.raises(NetworkError, match="circle"):
        list(opened(wire).tags())


@pytest.mark.parametrize(
    "realm", ["https://evil.example/token", "https://169.254.169.254/token", "https://10.0.0.1/t", "file:///etc/passwd"]
)
def test_a_realm_elsewhere_never_sees_the_credentials(wire: WireRegistry, realm: str) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    wire.on("GET", "/blobs/", lambda e: e.fail(401, "UNAUTHORIZED", challenge), times=9)
    with pytest.raises(AuthError, match="asks for a token from"):
        read(opened(wire))


def test_cookies_are_not_kept(wire: WireRegistry) -> None:
    wire.user = None
    wire.add_blob(BLOB)
    wire.on("GET", "/blobs/", lambda e: e.answer(200, BLOB, {"Set-Cookie": "track=1; Path=/"}))
    repository = opened(wire)
    read(repository)
    read(repository)
    assert "cookie" not in wire.seen[1].headers


def test_netrc_and_proxies_of_the_surroundings_are_not_used(
    wire: WireRegistry, other: WireRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\ndefault login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", other.url)
    monkeypatch.setenv("ALL_PROXY", other.url)
    wire.user = None
    wire.add_blob(BLOB)
    read(opened(wire))
    assert "authorization" not in wire.seen[0].headers
    assert not other.seen


def test_an_endless_error_body_is_read_up_to_its_limit(wire: WireRegistry) -> None:
    sent = 0

    def endless(exchange: Exchange) -> bool:
        nonlocal sent
        exchange.answer(400, b"", {"Content-Length": str(1 << 40), "Content-Type": "text/plain"})
        while sent < 1 << 30:
            exchange.wfile.write(b"no " * 10000)
            sent += 30000
        return True

    wire.on("GET", "/blobs/", endless)
    with pytest.raises(NetworkError) as refused:
        read(opened(wire))
    assert len(str(refused.value)) < 1000
    assert sent < 64 << 20


def test_error_text_of_a_registry_cannot_reach_the_terminal_raw(wire: WireRegistry) -> None:
    body = b'{"errors":[{"code":"X\\u001b[2J","message":"a\\r\\nb\\u202e\\u0007","detail":{}},7,{"code":9}]}'
    wire.on("GET", "/blobs/", lambda e: e.answer(400, body))
    with pytest.raises(NetworkError) as refused:
        read(opened(wire))
    assert str(refused.value).isprintable()
    assert "X [2J: a b" in str(refused.value)


def test_no_error_shows_the_password(wire: WireRegistry) -> None:
    wire.user = ("me", "other")
    with pytest.raises(AuthError) as refused:
        read(opened(wire))
    told = [refused.value, *getattr(refused.value, "__notes__", [])]
    assert "CANARY" not in " ".join(map(str, told))
    assert ME.basic.split()[1] not in " ".join(map(str, told))


@pytest.mark.parametrize("target", ["tags/list", "manifests/v1"])
def test_a_document_larger_than_the_limit_is_not_read_whole(wire: WireRegistry, target: str) -> None:
    wire.user = None
    body = b" " * (limits.DOCUMENT_BYTES + 1)
    wire.on("GET", target, lambda e: e.answer(200, body, {"Content-Type": mediatype.OCI_MANIFEST}))
    repository = opened(wire)
    with pytest.raises(LimitExceeded):
        list(repository.tags()) if target == "tags/list" else repository.fetch_root("v1")


@pytest.mark.parametrize("body", [b'{"tags":["a\\u001b[31m"]}', b'{"tags":["../../x"]}', b'{"tags":[1]}', b"[]", b"{"])
def test_a_list_of_tags_that_are_none_is_refused(wire: WireRegistry, body: bytes) -> None:
    wire.user = None
    wire.on("GET", "/tags/list", lambda e: e.answer(200, body))
    with pytest.raises(ImagetoolError):
        list(opened(wire).tags())


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that only itself vouches for, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@pytest.fixture
def secured(certificate: tuple[Path, Path]) -> Iterator[WireRegistry]:
    with serving(tls=certificate) as registry:
        registry.add_blob(BLOB)
        yield registry


def test_a_certificate_nobody_vouches_for_is_refused_even_on_loopback(secured: WireRegistry) -> None:
    with pytest.raises(NetworkError, match=r"TLS failed: .*certificate.*--tls-verify=false"):
        read(opened(secured))
    assert not secured.seen


def test_a_certificate_of_a_given_authority_is_accepted(secured: WireRegistry, certificate: tuple[Path, Path]) -> None:
    assert read(opened(secured, tls=Tls(ca_file=certificate[0]))) == BLOB


def test_verification_can_be_turned_off_for_one_registry_only(
    secured: WireRegistry, recwarn: pytest.WarningsRecorder
) -> None:
    assert read(opened(secured, tls=Tls(verify=False))) == BLOB
    assert not recwarn.list
    with pytest.raises(NetworkError, match="TLS"):
        read(opened(secured))


def test_https_never_becomes_http_on_the_way(
    secured: WireRegistry, other: WireRegistry, certificate: tuple[Path, Path]
) -> None:
    secured.on("GET", "/blobs/", lambda e: e.answer(307, b"", {"Location": other.url + e.path}))
    with pytest.raises(NetworkError, match="refused to go from https to plain http"):
        read(opened(secured, tls=Tls(ca_file=certificate[0])))
    secured.on("POST", "/uploads/", lambda e: e.answer(202, b"", {"Location": other.url + e.path}))
    with pytest.raises(NetworkError, match="refused to go from https to plain http"):
        opened(secured, tls=Tls(ca_file=certificate[0])).push(LAYER, [BLOB])
    assert not other.seen


def test_only_loopback_may_speak_plain_http_without_being_told(other: WireRegistry) -> None:
    port = other.host.partition(":")[2]
    assert base_url(f"127.0.0.1:{port}", Tls()) == f"http://127.0.0.1:{port}"
    assert base_url(f"localhost:{port}", Tls()) == f"http://localhost:{port}"
    assert base_url("registry.example.com", Tls()) == "https://registry.example.com"
    assert base_url("127.0.0.1.example.com:80", Tls()) == "https://127.0.0.1.example.com:80"
    assert base_url("docker.io", Tls()) == "https://registry-1.docker.io"


def test_the_roots_of_the_system_are_used() -> None:
    roots = Tls().roots
    assert roots is True or ssl.create_default_context(cafile=str(roots)).cert_store_stats()["x509_ca"] > 0


def test_an_authority_is_trusted_besides_those_of_the_system(
    secured: WireRegistry, certificate: tuple[Path, Path]
) -> None:
    assert read(opened(secured, tls=Tls(authorities=(certificate[0],)))) == BLOB


def test_a_file_that_is_no_certificate_is_one_clear_error(secured: WireRegistry, tmp_path: Path) -> None:
    (tmp_path / "bad.crt").write_text("hello")
    for tls in (Tls(authorities=(tmp_path / "bad.crt",)), Tls(client=(tmp_path / "bad.crt", tmp_path / "none.key"))):
        with pytest.raises(UsageError, match=r"bad\.crt"):
            opened(secured, tls=tls)


def test_a_client_certificate_is_shown_to_the_registry_and_to_no_other_host(certificate: tuple[Path, Path]) -> None:
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asking.load_cert_chain(*certificate)
    asking.load_verify_locations(cafile=certificate[0])
    asking.verify_mode = ssl.CERT_REQUIRED
    tls = Tls(authorities=(certificate[0],), client=certificate)
    with serving(tls=asking) as registry, serving(tls=asking) as elsewhere:
        registry.add_blob(BLOB)
        assert read(opened(registry, tls=tls)) == BLOB
        with pytest.raises(NetworkError):
            read(opened(registry, tls=Tls(authorities=(certificate[0],))))
        registry.on("GET", "/blobs/", lambda e: e.answer(307, b"", {"Location": elsewhere.url + e.path}), times=9)
        with pytest.raises(NetworkError):
            read(opened(registry, tls=tls))
        assert not elsewhere.seen
