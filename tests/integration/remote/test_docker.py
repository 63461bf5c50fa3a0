"""Docker's formats and Docker's token authentication, with Debian's docker-registry and skopeo as the other side."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.distribution.auth import Credentials
from imagetool.errors import AuthError
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index, Manifest
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from imagetool.transfer import FolderOrigins, copy
from tests.integration.remote.test_registries import host, needs_peer, repository
from tests.support.images import add_image
from tests.support.peers import docker_registry

__all__ = ["host", "repository"]  # fixtures

TYPES = {
    mediatype.OCI_MANIFEST: mediatype.DOCKER_MANIFEST,
    mediatype.OCI_CONFIG: mediatype.DOCKER_CONFIG,
    mediatype.OCI_LAYER: mediatype.DOCKER_LAYER_GZIP,
}


def as_docker(store: MemoryStore, root: Descriptor) -> Descriptor:
    """Store the image again as Docker schema 2."""
    text = store.blobs[root.digest].decode()
    for oci, docker in TYPES.items():
        text = text.replace(f'"{oci}"', f'"{docker}"')
    return push_bytes(store, text.encode(), mediatype.DOCKER_MANIFEST)


def test_schema_2_manifests_and_lists_keep_every_byte(repository: Repository) -> None:
    store = MemoryStore()
    images = [as_docker(store, add_image(store, seed=seed)) for seed in (21, 22)]
    entries = [
        {**image.tree(), "platform": {"os": "linux", "architecture": arch}}
        for image, arch in zip(images, ("amd64", "arm64"), strict=True)
    ]
    raw = json.dumps({"schemaVersion": 2, "mediaType": mediatype.DOCKER_INDEX, "manifests": entries}).encode()
    root = push_bytes(store, raw, mediatype.DOCKER_INDEX)
    copy(store, repository, root, tags=["many"])
    copy(store, repository, images[0], tags=["one"])
    back = MemoryStore()
    found = repository.fetch_root("many")
    assert found == root
    copy(repository, back, found, tags=["many"])
    assert back.blobs[root.digest] == raw
    assert isinstance(Index.parse(raw), Index)
    assert repository.resolve("one") == images[0]
    assert Manifest.parse(back.blobs[images[0].digest]).media_type == mediatype.DOCKER_MANIFEST


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_what_skopeo_pushed_as_schema_2_is_pulled(host: str, tmp_path: Path) -> None:
    from imagetool.content.layout import LayoutStore

    source = LayoutStore.create(tmp_path / "layout")
    memory = MemoryStore()
    copy(memory, source, add_image(memory, seed=31), tags=["v1"])
    command = ["skopeo", "copy", "--format", "v2s2", "--dest-tls-verify=false"]
    command += [f"oci:{tmp_path / 'layout'}:v1", f"docker://{host}/it/skopeo:v1"]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    with Registry(host) as registry:
        repository = Repository(registry, "it/skopeo")
        root = repository.fetch_root("v1")
        assert root.media_type == mediatype.DOCKER_MANIFEST
        report = copy(repository, MemoryStore(), root)
    assert len(report.blobs) == 4


# -- bearer tokens ---------------------------------------------------------------------------------


class TokenServer:
    """Docker's token protocol: GET with Basic, answered with a JWT signed by a key the registry knows."""

    def __init__(self, folder: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = folder / "bundle.pem"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._der = certificate.public_bytes(serialization.Encoding.DER)
        self.asked: list[tuple[str, ...]] = []
        self.url = ""

    def token(self, user: str, service: str, scopes: list[str]) -> str:
        from base64 import b64encode, urlsafe_b64encode

        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        def part(data: bytes) -> str:
            return urlsafe_b64encode(data).rstrip(b"=").decode()

        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = actions.split(",") if user else [action for action in actions.split(",") if action == "pull"]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {"iss": "tokens", "sub": user, "aud": service, "iat": now, "nbf": now - 5, "exp": now + 300}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [b64encode(self._der).decode()]}
        body = {**claims, "jti": str(len(self.asked)), "access": access}
        text = f"{part(json.dumps(header).encode())}.{part(json.dumps(body).encode())}"
        return f"{text}.{part(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    tokens = TokenServer(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            sent = self.headers.get("Authorization", "")
            if sent not in ("", Credentials("me", "s3cret").basic):
                self.send_error(401)
                return
            scopes = query.get("scope", [])
            tokens.asked.append(tuple(sorted(scopes)))
            token = tokens.token("me" if sent else "", query["service"][0], scopes)
            body = json.dumps({"token": token, "expires_in": 300}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tokens.url = f"http://127.0.0.1:{server.server_address[1]}/token"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.peer
@needs_peer
def test_bearer_tokens_that_docker_registry_checks(tmp_path: Path) -> None:
    source = MemoryStore()
    root = add_image(source, layers=2)
    with token_server(tmp_path) as tokens:
        auth = "auth: {token: {realm: '%s', service: registry, issuer: tokens, rootcertbundle: %s}}\n"
        origins = FolderOrigins(tmp_path / "origins")
        with docker_registry(tmp_path, auth=auth % (tokens.url, tokens.bundle)) as host:
            with Registry(host, credentials=lambda *_: Credentials("me", "s3cret")) as registry:
                registry.login()
                copy(source, Repository(registry, "a/b"), root, tags=["v1"], origins=origins)
                asked = len(tokens.asked)
                assert asked <= 3
                report = copy(source, Repository(registry, "a/c"), root, tags=["v1"], origins=origins)
                assert "mounted" in {blob.outcome for blob in report.blobs}
                assert ("repository:a/b:pull", "repository:a/c:pull,push") in tokens.asked[asked:]
            with Registry(host) as registry:
                repository = Repository(registry, "a/b")
                assert copy(repository, MemoryStore(), repository.fetch_root("v1")).moved > 0
                with pytest.raises(AuthError):
                    copy(source, Repository(registry, "a/d"), root, tags=["v1"])
            wrong = Registry(host, credentials=lambda *_: Credentials("me", "guess"))
            with wrong as registry, pytest.raises(AuthError):
                registry.login()
