"""distribution-spec v1.1, "Pulling blobs" (end-2), "Deleting Blobs" (end-10); RFC 9110, ranges and conditions."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.oci.digest import Digest
from tests.support.registry import Client

BLOB = b"0123456789"
DIGEST = Digest.of(BLOB)
PATH = f"/v2/team/app/blobs/{DIGEST}"


@pytest.fixture(autouse=True)
def pushed(client: Client) -> None:
    client.blob(BLOB, "team/app")


def test_a_blob_with_all_its_headers(client: Client) -> None:
    reply = client("GET", PATH)
    assert (reply.status, reply.body) == (200, BLOB)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-length"] == "10"
    assert reply.headers["docker-content-digest"] == str(DIGEST)
    assert reply.headers["etag"] == f'"{DIGEST}"'
    assert reply.headers["accept-ranges"] == "bytes"
    assert "immutable" in reply.headers["cache-control"]


def test_head_says_the_same_as_get(client: Client) -> None:
    assert client("HEAD", PATH).headers == client("GET", PATH).headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_an_absent_blob_is_404(client: Client, method: str) -> None:
    for path in (f"/v2/team/app/blobs/{Digest.of(b'?')}", f"/v2/other/blobs/{DIGEST}"):
        reply = client(method, path)
        assert (reply.status, reply.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("bytes=0-3", b"0123"), ("bytes=3-", b"3456789"), ("bytes=-4", b"6789"), ("bytes=9-9", b"9"),
     ("bytes=5-99", b"56789"), ("bytes=-99", BLOB)],
)  # fmt: skip
def test_a_range_is_206(client: Client, asked: str, expected: bytes) -> None:
    reply = client("GET", PATH, range=asked)
    first = BLOB.index(expected)
    assert (reply.status, reply.body) == (206, expected)
    assert reply.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/10"
    assert reply.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999999999999999999-"])
def test_a_range_outside_is_416(client: Client, asked: str) -> None:
    reply = client("GET", PATH, range=asked)
    assert (reply.status, reply.code) == (416, "RANGE_INVALID")
    assert reply.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,4-5", "bytes=5-2", "lines=1-2", "bytes=", "bytes=-", "bytes=²-", "x" * 5000]
)
def test_a_range_that_is_not_one_is_ignored(client: Client, asked: str) -> None:
    reply = client("GET", PATH, range=asked)
    assert (reply.status, reply.body) == (200, BLOB)


def test_a_range_of_head_is_ignored(client: Client) -> None:
    assert client("HEAD", PATH, range="bytes=0-1").headers["content-length"] == "10"


def test_if_range_gives_the_part_of_the_same_blob_only(client: Client) -> None:
    assert client("GET", PATH, range="bytes=0-1", if_range=f'"{DIGEST}"').status == 206
    assert client("GET", PATH, range="bytes=0-1", if_range='"another"').status == 200


@pytest.mark.parametrize("value", [f'"{DIGEST}"', f'W/"{DIGEST}"', f'"x", "{DIGEST}"', "*"])
def test_a_blob_the_client_has_is_304(client: Client, value: str) -> None:
    for method in ("GET", "HEAD"):
        reply = client(method, PATH, if_none_match=value)
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["etag"] == f'"{DIGEST}"'


def test_a_blob_the_client_does_not_have_is_sent(client: Client) -> None:
    assert client("GET", PATH, if_none_match='"another", W/"x"').status == 200


def test_a_deleted_blob_is_gone_here_and_stays_elsewhere(client: Client) -> None:
    client.blob(BLOB, "other")
    assert client("DELETE", PATH).status == 202
    assert client("GET", PATH).status == 404
    assert client("DELETE", PATH).code == "BLOB_UNKNOWN"
    assert client("GET", f"/v2/other/blobs/{DIGEST}").body == BLOB


def test_a_blob_that_a_manifest_refers_to_cannot_be_deleted(client: Client) -> None:
    image = client.image("v1", "team/app")
    layer = client("GET", "/v2/team/app/manifests/v1").json["layers"][0]["digest"]
    refused = client("DELETE", f"/v2/team/app/blobs/{layer}")
    assert (refused.status, refused.code) == (405, "UNSUPPORTED")
    assert str(image) in refused.json["errors"][0]["message"]
    client("DELETE", f"/v2/team/app/manifests/{image}")
    assert client("DELETE", f"/v2/team/app/blobs/{layer}").status == 202


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_bytes_that_the_disk_lost_are_an_error_and_not_a_short_blob(
    client: Client, tmp_path: Path, damage: str
) -> None:
    (file,) = (path for path in (tmp_path / "registry/blobs").rglob("*") if path.is_file())
    file.write_bytes(BLOB[:4]) if damage == "cut" else file.unlink()
    reply = client("GET", PATH)
    assert (reply.status, reply.code) == (500, "UNKNOWN")
