"""distribution-spec v1.1: manifests are pulled (end-2), pushed (end-7) and deleted (end-9)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagetool import limits
from imagetool.oci import mediatype
from imagetool.oci.digest import Digest
from tests.support.registry import Client, descriptor, index, manifest

CONFIG, LAYER = b"{}", b"a layer"
RAW = manifest(CONFIG, LAYER)
DIGEST = Digest.of(RAW)


@pytest.fixture(autouse=True)
def blobs(client: Client) -> None:
    client.blob(CONFIG)
    client.blob(LAYER)


def test_a_manifest_by_tag_and_by_digest(client: Client) -> None:
    done = client.manifest("v1", RAW)
    assert done.status == 201
    assert done.headers["location"] == "/v2/app/manifests/v1"
    assert done.headers["docker-content-digest"] == str(DIGEST)
    for reference in ("v1", DIGEST):
        for method in ("GET", "HEAD"):
            reply = client(method, f"/v2/app/manifests/{reference}")
            assert reply.status == 200
            assert reply.body == RAW
            assert reply.headers["content-type"] == mediatype.OCI_MANIFEST
            assert reply.headers["content-length"] == str(len(RAW))
            assert reply.headers["docker-content-digest"] == str(DIGEST)
            assert reply.headers["etag"] == f'"{DIGEST}"'


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_pushed_by_digest_has_no_tag(client: Client, algorithm: str) -> None:
    digest = Digest.of(RAW, algorithm)
    assert client.manifest(str(digest), RAW).headers["docker-content-digest"] == str(digest)
    assert client("GET", f"/v2/app/manifests/{digest}").body == RAW
    assert client("GET", "/v2/app/tags/list").json["tags"] == []


def test_the_client_may_choose_how_a_tagged_manifest_is_named(client: Client) -> None:
    digest = Digest.of(RAW, "sha512")
    reply = client.manifest("v1?digest-algorithm=sha512", RAW)
    assert reply.headers["docker-content-digest"] == str(digest)
    assert client("HEAD", "/v2/app/manifests/v1").headers["docker-content-digest"] == str(digest)
    assert client.manifest("v1?digest-algorithm=md5", RAW).code == "DIGEST_INVALID"


def test_one_put_sets_several_tags(client: Client) -> None:
    reply = client.manifest(f"{DIGEST}?tag=v1&tag=v1.2&tag=latest", RAW)
    assert [value for name, value in reply.all_headers if name == "OCI-Tag"] == ["v1", "v1.2", "latest"]
    assert client("GET", "/v2/app/tags/list").json["tags"] == ["latest", "v1", "v1.2"]
    assert client.manifest(f"{DIGEST}?" + "&".join(f"tag=t{n}" for n in range(101)), RAW).status == 414
    assert client.manifest(f"{DIGEST}?tag=.x", RAW).code == "TAG_INVALID"


def test_a_tag_moves(client: Client) -> None:
    client.manifest("v1", RAW)
    other = manifest(CONFIG)
    client.manifest("v1", other)
    assert client("GET", "/v2/app/manifests/v1").body == other
    assert client("GET", f"/v2/app/manifests/{DIGEST}").body == RAW


def test_a_manifest_the_client_has_is_304(client: Client) -> None:
    client.manifest("v1", RAW)
    assert client("GET", "/v2/app/manifests/v1", if_none_match=f'"{DIGEST}"').status == 304
    assert client("GET", "/v2/app/manifests/v1", if_none_match='"other"').status == 200


def test_bytes_come_back_as_they_went_in_whatever_accept_says(client: Client) -> None:
    raw = RAW.replace(b", ", b" ,\n\t")
    client.manifest("v1", raw)
    assert client("GET", "/v2/app/manifests/v1", accept=mediatype.DOCKER_MANIFEST).body == raw


# -- what is not there -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize(
    "reference", ["nothing", str(Digest.of(b"?")), ".INVALID_MANIFEST_NAME", "a" * 129, "-x", "%00", "é"]
)
def test_an_absent_manifest_is_404(client: Client, method: str, reference: str) -> None:
    client.manifest("v1", RAW)
    reply = client(method, f"/v2/app/manifests/{reference}")
    assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")


def test_a_malformed_digest_is_400(client: Client) -> None:
    for method in ("GET", "HEAD", "DELETE", "PUT"):
        assert client(method, "/v2/app/manifests/sha256:abc", RAW if method == "PUT" else b"").code == "DIGEST_INVALID"


def test_a_manifest_of_another_repository_is_404(client: Client) -> None:
    client.manifest("v1", RAW)
    for reference in ("v1", DIGEST):
        assert client("GET", f"/v2/other/manifests/{reference}").code == "MANIFEST_UNKNOWN"


# -- what is refused -------------------------------------------------------------------------------


def test_a_manifest_that_is_not_its_digest_is_refused(client: Client) -> None:
    reply = client.manifest(str(Digest.of(b"?")), RAW)
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("tag", [".x", "a" * 129, "-x", "%20", "a%0Ab", "é"])
def test_an_impossible_tag_is_refused(client: Client, tag: str) -> None:
    reply = client.manifest(tag, RAW)
    assert (reply.status, reply.code) == (400, "TAG_INVALID")


@pytest.mark.parametrize("missing", [manifest(b"no config", LAYER), manifest(CONFIG, LAYER, b"no layer"), index(b"{}")])
def test_a_manifest_without_its_parts_is_refused_and_not_tagged(client: Client, missing: bytes) -> None:
    reply = client.manifest("v1", missing, kind=json.loads(missing)["mediaType"])
    assert (reply.status, reply.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert client("GET", "/v2/app/manifests/v1").status == 404
    assert client("GET", f"/v2/app/manifests/{Digest.of(missing)}").status == 404


def test_parts_in_another_repository_do_not_count(client: Client) -> None:
    assert client.manifest("v1", RAW, "other").code == "MANIFEST_BLOB_UNKNOWN"


def test_a_part_of_another_size_is_refused(client: Client) -> None:
    raw = manifest(CONFIG, layers=[descriptor(LAYER, mediatype.OCI_LAYER, size=3)])
    reply = client.manifest("v1", raw)
    assert (reply.status, reply.code) == (400, "MANIFEST_INVALID")


def test_a_layer_that_may_not_be_distributed_need_not_be_here(client: Client) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    raw = manifest(CONFIG, layers=[descriptor(b"elsewhere", kind, urls=["https://example.com/layer"])])
    assert client.manifest("v1", raw).status == 201


def test_a_subject_need_not_be_here_and_is_acknowledged(client: Client) -> None:
    subject = descriptor(b"not pushed yet", mediatype.OCI_MANIFEST)
    reply = client.manifest("v1", manifest(CONFIG, LAYER, subject=subject))
    assert reply.status == 201
    assert reply.headers["oci-subject"] == subject["digest"]
    assert "oci-subject" not in client.manifest("v2", RAW).headers


BOTH = json.dumps({**json.loads(RAW), "manifests": []}).encode()
BAD: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"hello", mediatype.OCI_MANIFEST),
    "empty": (b"", mediatype.OCI_MANIFEST),
    "a list": (b"[]", mediatype.OCI_MANIFEST),
    "deep": (b'{"a":' * 1000 + b"1" + b"}" * 1000, mediatype.OCI_MANIFEST),
    "duplicate keys": (RAW.replace(b'"layers"', b'"config"'), mediatype.OCI_MANIFEST),
    "huge number": (RAW.replace(b'"schemaVersion": 2', b'"schemaVersion": ' + b"2" * 4000), mediatype.OCI_MANIFEST),
    "schema 1": (b'{"schemaVersion":1,"fsLayers":[]}', "application/vnd.docker.distribution.manifest.v1+json"),
    "another media type": (RAW, mediatype.DOCKER_MANIFEST),
    "delivered as an index": (RAW, mediatype.OCI_INDEX),
    "no media type of ours": (RAW, "text/html"),
    "manifest and index at once": (BOTH, mediatype.OCI_MANIFEST),
    "index and manifest at once": (BOTH.replace(b"image.manifest", b"image.index"), mediatype.OCI_INDEX),
    "negative size": (RAW.replace(b'"size": 7', b'"size": -7'), mediatype.OCI_MANIFEST),
    "bad child digest": (RAW.replace(b"sha256:", b"sha256:../"), mediatype.OCI_MANIFEST),
    "too many layers": (manifest(CONFIG, *[LAYER] * 1001), mediatype.OCI_MANIFEST),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_manifest_is_refused(client: Client, name: str) -> None:
    raw, kind = BAD[name]
    reply = client.manifest("v1", raw, kind=kind)
    assert (reply.status, reply.code) == (400, "MANIFEST_INVALID")
    assert client("GET", "/v2/app/manifests/v1").status == 404


def test_a_manifest_may_have_four_mebibytes_and_no_more(client: Client) -> None:
    largest = padded(limits.DOCUMENT_BYTES)
    assert client.manifest("v1", largest).status == 201
    too_large = padded(limits.DOCUMENT_BYTES + 1)
    assert client.manifest("v2", too_large).status == 413
    undeclared = client("PUT", "/v2/app/manifests/v2", iter([too_large[:9], too_large[9:]]))
    assert (undeclared.status, undeclared.code) == (413, "MANIFEST_INVALID")


def padded(size: int) -> bytes:
    return RAW + b" " * (size - len(RAW))


def test_the_kind_is_read_from_the_document_when_content_type_is_missing(client: Client) -> None:
    assert client("PUT", "/v2/app/manifests/v1", RAW).status == 201
    assert client("GET", "/v2/app/manifests/v1").headers["content-type"] == mediatype.OCI_MANIFEST


def test_docker_manifests_and_lists_keep_their_media_types(client: Client) -> None:
    image = RAW.replace(mediatype.OCI_MANIFEST.encode(), mediatype.DOCKER_MANIFEST.encode())
    assert client.manifest("v1", image, kind=mediatype.DOCKER_MANIFEST).status == 201
    many = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.DOCKER_INDEX,
            "manifests": [descriptor(image, mediatype.DOCKER_MANIFEST)],
        }
    ).encode()
    assert client.manifest("list", many, kind=mediatype.DOCKER_INDEX).status == 201
    assert client("GET", "/v2/app/manifests/list").headers["content-type"] == mediatype.DOCKER_INDEX


# -- deleting --------------------------------------------------------------------------------------


def test_deleting_a_tag_leaves_the_manifest_and_its_other_tags(client: Client) -> None:
    client.manifest("v1", RAW)
    client.manifest("v2", RAW)
    assert client("DELETE", "/v2/app/manifests/v1").status == 202
    assert client("GET", "/v2/app/manifests/v1").status == 404
    assert client("GET", "/v2/app/manifests/v2").body == RAW
    assert client("DELETE", "/v2/app/manifests/v1").status == 404


def test_deleting_a_manifest_takes_its_tags_along(client: Client) -> None:
    client.manifest("v1", RAW)
    client.manifest("v2", RAW)
    assert client("DELETE", f"/v2/app/manifests/{DIGEST}").status == 202
    for reference in ("v1", "v2", DIGEST):
        assert client("GET", f"/v2/app/manifests/{reference}").status == 404
    assert client("GET", "/v2/app/tags/list").json["tags"] == []


def test_a_manifest_of_an_index_cannot_be_deleted_before_it(client: Client) -> None:
    client.manifest("v1", RAW)
    many = index(RAW)
    assert client.manifest("many", many, kind=mediatype.OCI_INDEX).status == 201
    refused = client("DELETE", f"/v2/app/manifests/{DIGEST}")
    assert (refused.status, refused.code) == (405, "UNSUPPORTED")
    assert client("DELETE", f"/v2/app/manifests/{Digest.of(many)}").status == 202
    assert client("DELETE", f"/v2/app/manifests/{DIGEST}").status == 202


def test_an_artifact_of_the_empty_config_is_kept(client: Client) -> None:
    fields: dict[str, Any] = {"artifactType": "application/vnd.example", "annotations": {"a": "b"}}
    tree = {**json.loads(manifest(CONFIG, CONFIG)), "config": descriptor(CONFIG, mediatype.OCI_EMPTY), **fields}
    raw = json.dumps(tree).encode()
    assert client.manifest("artifact", raw).status == 201
    assert client("GET", "/v2/app/manifests/artifact").json["artifactType"] == "application/vnd.example"
