"""A small registry on 127.0.0.1 that can be told to misbehave; every request it gets is written down.

It is written for tests of the client: correct where nothing is said, and as odd or hostile as a
rule makes it. A rule is `(method, part of the path, action, times)`; its action gets the running
`Exchange` and returns True when it has answered.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Rule:
    method: str
    part: str
    action: Callable[[Exchange], bool]
    times: int


@dataclass
class WireRegistry:
    """What the registry holds and how it behaves.

    `user` wants Basic; `realm` wants a bearer token from there (`tokens` are accepted).
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # "repository@reference"
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    user: tuple[str, str] | None = None
    realm: str = ""
    tokens: set[str] = field(default_factory=set)
    page: int = 1000
    connections: int = 0
    begun: int = 0  # uploads so far; each has a name of its own, also those that are begun at the same time
    host: str = ""
    scheme: str = "http"
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def add_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def add_manifest(self, repository: str, raw: bytes, media_type: str, *tags: str) -> str:
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        for reference in (digest, *tags):
            self.manifests[f"{repository}@{reference}"] = (media_type, raw)
        return digest

    def on(self, method: str, part: str, action: Callable[[Exchange], bool], times: int = 1) -> None:
        self.rules.append(Rule(method, part, action, times))

    def requests(self, method: str = "", part: str = "") -> list[Seen]:
        return [seen for seen in self.seen if method in ("", seen.method) and part in seen.path]

    def summary(self) -> list[str]:
        """Every request as "METHOD kind"."""
        kinds = ("manifests", "uploads", "blobs", "tags", "token")
        return [f"{s.method} {next((kind for kind in kinds if kind in s.path), s.path)}" for s in self.seen]


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    registry: WireRegistry

    def setup(self) -> None:
        super().setup()
        with self.registry.lock:
            self.registry.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    # -- answering ---------------------------------------------------------------------------

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> bool:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}) and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def fail(self, status: int, code: str, headers: dict[str, str] | None = None) -> bool:
        body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
        return self.answer(status, body, {"Content-Type": "application/json", **(headers or {})})

    def cut(self, body: bytes, after: int, status: int = 200, headers: dict[str, str] | None = None) -> bool:
        """Promise all of the body and end the connection after some of it."""
        self.answer(status, body[:after], {"Content-Length": str(len(body)), **(headers or {})})
        self.drop()
        return True

    def drop(self) -> bool:
        """End the connection without a word."""
        self.wfile.flush()
        self.connection.shutdown(2)
        self.close_connection = True
        return True

    # -- behaving ----------------------------------------------------------------------------

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.command in ("PUT", "PATCH") and self._ruled("early"):
            return
        self.body = self.rfile.read(length)
        seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.body)
        self.registry.seen.append(seen)
        if len(self.body) < length:
            self.close_connection = True  # the client gave up
            return
        if self._ruled() or not self._authorized():
            return
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/v2/")
        if parts.path == "/v2/":
            self.answer(200)
        elif path.endswith("/tags/list"):
            self._tags(path.removesuffix("/tags/list"))
        elif "/manifests/" in path:
            self._manifest(*path.split("/manifests/"))
        elif "/blobs/uploads/" in path:
            self._upload(*path.split("/blobs/uploads/"))
        elif "/blobs/" in path:
            self._blob(path.split("/blobs/")[1])
        else:
            self.fail(404, "NOT_FOUND")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815 - http.server's names

    def _ruled(self, prefix: str = "") -> bool:
        with self.registry.lock:
            rule = next(
                (
                    rule
                    for rule in self.registry.rules
                    if rule.method == f"{prefix} {self.command}".strip() and rule.part in self.path and rule.times > 0
                ),
                None,
            )
            if rule is None:
                return False
            rule.times -= 1
        return rule.action(self)

    def _authorized(self) -> bool:
        registry, sent = self.registry, self.headers.get("Authorization", "")
        if registry.user is not None:
            wanted = "Basic " + base64.b64encode(":".join(registry.user).encode()).decode()
            if sent == wanted:
                return True
            self.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="wire, the registry"'})
            return False
        if not registry.realm or sent.removeprefix("Bearer ") in registry.tokens:
            return True
        challenge = f'Bearer realm="{registry.realm}",service="wire",scope="repository:{self._repository()}:pull"'
        self.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return False

    def _repository(self) -> str:
        path = urlsplit(self.path).path.removeprefix("/v2/")
        for part in ("/manifests/", "/blobs/", "/tags/"):
            path = path.split(part)[0]
        return path

    def _tags(self, repository: str) -> None:
        names = sorted(
            key.split("@")[1]
            for key in list(self.registry.manifests)  # others may push meanwhile
            if key.startswith(f"{repository}@") and ":" not in key.split("@")[1]
        )
        rest = [name for name in names if name > self.query.get("last", "")]
        shown = rest[: self.registry.page]
        link = {"Link": f'</v2/{repository}/tags/list?last={shown[-1]}>; rel="next"'} if len(rest) > len(shown) else {}
        self.answer(200, json.dumps({"name": repository, "tags": shown}).encode(), link)

    def _manifest(self, repository: str, reference: str) -> None:
        key = f"{repository}@{reference}"
        if self.command == "PUT":
            digest = self.registry.add_manifest(repository, self.body, self.headers["Content-Type"], reference)
            self.answer(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{repository}/manifests/{digest}"})
        elif key not in self.registry.manifests:
            self.fail(404, "MANIFEST_UNKNOWN")
        elif self.command == "DELETE":
            _, raw = self.registry.manifests[key]
            gone = [k for k, (_, other) in list(self.registry.manifests.items()) if other == raw]
            for name in gone:
                del self.registry.manifests[name]
            self.answer(202)
        else:
            media_type, raw = self.registry.manifests[key]
            digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
            headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "Content-Length": str(len(raw))}
            self.answer(200, raw, headers)

    def _blob(self, digest: str) -> None:
        data = self.registry.blobs.get(digest)
        if data is None:
            self.fail(404, "BLOB_UNKNOWN")
            return
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data) - first)}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self.answer(206 if first else 200, data[first:], headers)

    def _upload(self, repository: str, name: str) -> None:
        registry = self.registry
        if self.command == "POST":
            if self.query.get("mount") in registry.blobs:
                self.answer(201, b"", {"Location": f"/v2/{repository}/blobs/{self.query['mount']}"})
                return
            with registry.lock:
                name = f"u{registry.begun}"
                registry.begun += 1
            registry.uploads[name] = bytearray()
            self.answer(202, b"", {"Location": f"/v2/{repository}/blobs/uploads/{name}?_state=a%2Fb", "Range": "0-0"})
            return
        data = registry.uploads.get(name)
        if data is None:
            self.fail(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "DELETE":
            del registry.uploads[name]
            self.answer(204)
        elif self.command == "GET":
            self.answer(204, b"", self._progress(repository, name))
        elif self.command == "PATCH":
            if int(self.headers["Content-Range"].split("-")[0]) != len(data):
                self.answer(416, b"", self._progress(repository, name))
                return
            data += self.body
            self.answer(202, b"", self._progress(repository, name))
        else:
            whole = bytes(data) + self.body
            algorithm, _, digest = self.query["digest"].partition(":")
            if hashlib.new(algorithm, whole).hexdigest() != digest:
                self.fail(400, "DIGEST_INVALID")
                return
            registry.blobs[self.query["digest"]] = whole
            self.answer(201, b"", {"Docker-Content-Digest": self.query["digest"]})

    def _progress(self, repository: str, name: str) -> dict[str, str]:
        stored = len(self.registry.uploads[name])
        return {"Location": f"/v2/{repository}/blobs/uploads/{name}", "Range": f"0-{max(0, stored - 1)}"}


@contextmanager
def serving(
    registry: WireRegistry | None = None, *, tls: tuple[Path, Path] | ssl.SSLContext | None = None
) -> Iterator[WireRegistry]:
    """Run a registry on a free port of 127.0.0.1; `tls` is (certificate, key), or says more."""
    registry = registry or WireRegistry()

    class Handler(Exchange):
        pass

    Handler.registry = registry

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # all have ended when the server has, and what they had open is closed

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.open: set[socket.socket] = set()

        def process_request(self, request: Any, client_address: Any) -> None:
            self.open.add(request)
            super().process_request(request, client_address)

        def shutdown_request(self, request: Any) -> None:
            self.open.discard(request)
            super().shutdown_request(request)

        def hang_up(self) -> None:
            for request in list(self.open):
                with contextlib.suppress(OSError):  # it has been closed meanwhile
                    request.shutdown(socket.SHUT_RDWR)

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away is what many tests are about

    server = Server(("127.0.0.1", 0), Handler)
    registry.host = f"127.0.0.1:{server.server_address[1]}"
    if tls is not None:
        context = tls if isinstance(tls, ssl.SSLContext) else ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if not isinstance(tls, ssl.SSLContext):
            context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        registry.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


def token_server(registry: WireRegistry, issue: Callable[[Exchange], str]) -> None:
    """Let a registry answer GET and POST /token with what `issue` returns; POST forms are in `body`."""

    def action(exchange: Exchange) -> bool:
        return exchange.answer(200, json.dumps({"token": issue(exchange), "expires_in": 300}).encode())

    registry.on("GET", "/token", action, times=1000)
    registry.on("POST", "/token", action, times=1000)


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until something is true; fails the test when it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
