"""What stands before every handler: the API's root, paths, names, methods, and the form of errors."""

from __future__ import annotations

import pytest

from imagetool.errors import StorageError
from imagetool.oci.digest import Digest
from tests.support.registry import Client

DIGEST = Digest.of(b"x")
NAMES = [
    "..", "%2e%2e", "a/..", "../a", "a//b", "/a", "a/", ".a", "a.", "-a", "a_", "a___b", "A", "a b", "a%00b", "a%0ab",
    "é", "a" * 256, "a/%2e%2e/b", "a\\b", "a:b", "a@b", "_a", "a..b",
]  # fmt: skip


def test_the_root_of_the_api(client: Client) -> None:
    for path in ("/v2/", "/v2"):
        for method in ("GET", "HEAD"):
            reply = client(method, path)
            assert reply.status == 200
            assert reply.headers["docker-distribution-api-version"] == "registry/2.0"
    assert client("POST", "/v2/").status == 405


@pytest.mark.parametrize("name", NAMES)
def test_a_name_outside_the_grammar_is_refused_on_every_route(client: Client, name: str) -> None:
    for method, path in (
        ("POST", "blobs/uploads/"),
        ("POST", f"blobs/uploads/?digest={DIGEST}"),
        ("GET", "blobs/uploads/x"),
        ("PATCH", "blobs/uploads/x"),
        ("PUT", f"blobs/uploads/x?digest={DIGEST}"),
        ("GET", f"blobs/{DIGEST}"),
        ("DELETE", f"blobs/{DIGEST}"),
        ("GET", "manifests/v1"),
        ("PUT", "manifests/v1"),
        ("DELETE", f"manifests/{DIGEST}"),
        ("GET", "tags/list"),
        ("GET", f"referrers/{DIGEST}"),
    ):
        reply = client(method, f"/v2/{name}/{path}")
        assert (reply.status, reply.code) in ((400, "NAME_INVALID"), (404, "UNSUPPORTED")), path


@pytest.mark.parametrize(
    "name", ["a", "a/b/c/d", "a-b", "a--b", "a_b", "a__b", "a.b", "0", "a" * 255, "blobs/uploads", "manifests"]
)
def test_names_of_the_grammar_work(client: Client, name: str) -> None:
    digest = client.image("v1", name)
    assert client("GET", f"/v2/{name}/manifests/{digest}").status == 200
    assert client("GET", f"/v2/{name}/tags/list").json["tags"] == ["v1"]


@pytest.mark.parametrize(
    "path", ["/", "/v1/", "/v2x", "/v2/app", "/v2/app/x/y", "/v2/app/tags", "/etc/passwd", "/v2/../x", "/v2//"]
)
def test_other_paths_are_404(client: Client, path: str) -> None:
    reply = client("GET", path)
    assert reply.status == 404
    assert reply.code == "UNSUPPORTED"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", f"/v2/app/blobs/{DIGEST}", "GET, HEAD, DELETE"),
        ("PATCH", "/v2/app/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("GET", "/v2/app/blobs/uploads/", "POST"),
        ("POST", "/v2/app/tags/list", "GET"),
        ("DELETE", f"/v2/app/referrers/{DIGEST}", "GET"),
        ("POST", "/v2/_catalog", "GET"),
        ("BREW", "/v2/app/manifests/v1", "GET, HEAD, PUT, DELETE"),
    ],
)
def test_other_methods_are_405_and_say_which_there_are(client: Client, method: str, path: str, allowed: str) -> None:
    reply = client(method, path)
    assert (reply.status, reply.code) == (405, "UNSUPPORTED")
    assert reply.headers["allow"] == allowed


def test_every_error_has_the_form_of_the_spec(client: Client) -> None:
    for reply in (
        client("GET", "/v2/app/manifests/none"),
        client("GET", f"/v2/app/blobs/{DIGEST}"),
        client("GET", "/nothing"),
        client("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", b"y"),
    ):
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["docker-distribution-api-version"] == "registry/2.0"
        assert set(reply.json) == {"errors"}
        assert reply.code


def test_a_store_that_refuses_is_one_error_of_the_server(client: Client) -> None:
    def full() -> object:
        raise StorageError("no space left")
        yield

    reply = client("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", full())  # type: ignore[arg-type]
    assert (reply.status, reply.code) == (507, "UNKNOWN")
