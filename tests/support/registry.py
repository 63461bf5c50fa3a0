"""The registry without a socket: the app and a few words to talk to it with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from imagetool.oci import mediatype
from imagetool.oci.digest import Digest
from registry_server.app import App
from registry_server.handlers.stores import Stores
from registry_server.message import File, Request
from registry_server.serve import open_stores


@dataclass(frozen=True)
class Reply:
    """An answer with its body read."""

    status: int
    headers: dict[str, str]
    all_headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the error, which must have the spec's form."""
        (error,) = self.json["errors"]
        assert set(error) == {"code", "message", "detail"}
        assert error["message"]
        return str(error["code"])


class Client:
    """Sends requests to the app as a client would: URLs are decoded once, headers have any case."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.app = App(stores)

    @classmethod
    def open(cls, root: Path) -> Client:
        return cls(open_stores(root))

    def __call__(self, method: str, url: str, body: bytes | Iterable[bytes] = b"", **headers: str) -> Reply:
        parts = urlsplit(url)
        sent = {name.lower().replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            sent.setdefault("content-length", str(len(body)))
            body = [body] if body else []
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        response = self.app(Request(method, unquote(parts.path), query, sent, iter(body)))
        data = response.body
        if isinstance(data, File):
            data = data.path.read_bytes()[data.start : data.end]
        found = {name.lower(): value for name, value in response.headers}
        if "content-length" in found and method != "HEAD" and response.status != 304:
            assert int(found["content-length"]) == len(data)
        return Reply(response.status, found, response.headers, data)

    def blob(self, data: bytes, repository: str = "app", algorithm: str = "sha256") -> Digest:
        """Push a blob."""
        digest = Digest.of(data, algorithm)
        assert self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data).status == 201
        return digest

    def manifest(
        self, reference: str, raw: bytes, repository: str = "app", kind: str = mediatype.OCI_MANIFEST
    ) -> Reply:
        """Push a manifest."""
        return self("PUT", f"/v2/{repository}/manifests/{reference}", raw, content_type=kind)

    def image(self, tag: str, repository: str = "app", *, seed: str = "", **fields: Any) -> Digest:
        """Push an image with one layer, and more fields of its manifest."""
        config, layer = b'{"seed":"%s"}' % seed.encode(), f"layer {seed}".encode()
        for data in (config, layer):
            self.blob(data, repository)
        reply = self.manifest(tag, manifest(config, layer, **fields), repository)
        assert reply.status == 201, reply.body
        return Digest.parse(reply.headers["docker-content-digest"])


def descriptor(data: bytes, kind: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data), **fields}


def manifest(config: bytes, *layers: bytes, **fields: Any) -> bytes:
    """Return an OCI manifest."""
    tree = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": descriptor(config, mediatype.OCI_CONFIG),
        "layers": [descriptor(layer, mediatype.OCI_LAYER) for layer in layers],
        **fields,
    }
    return json.dumps(tree).encode()


def index(*manifests: bytes, **fields: Any) -> bytes:
    """Return an OCI index of manifests."""
    entries = [descriptor(raw, mediatype.OCI_MANIFEST) for raw in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries, **fields}).encode()
