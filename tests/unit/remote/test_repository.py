"""A repository as a store, against a small registry over real sockets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from imagetool.content.store import fetch_bytes, push_bytes
from imagetool.errors import DigestMismatch, InvalidReference, NotFound, SizeMismatch, Unsupported
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository, open_repository
from tests.support.wire import WireRegistry, serving

BLOB = b"layer bytes " * 30000  # 360 kB


@pytest.fixture
def repository(wire: WireRegistry) -> Iterator[Repository]:
    with open_repository(wire.host, "team/app") as opened:
        yield opened


def describe(data: bytes) -> Descriptor:
    return Descriptor.of(data, mediatype.OCI_LAYER)


def a_manifest() -> Manifest:
    return Manifest.make(Descriptor.of(b"{}", mediatype.OCI_CONFIG), [describe(BLOB)])


@pytest.mark.parametrize("data", [b"", b"x", BLOB, b"z" * (3 << 20)], ids=len)
def test_what_was_pushed_comes_back(repository: Repository, data: bytes) -> None:
    descriptor = describe(data)
    assert not repository.exists(descriptor)
    repository.push(descriptor, [data[:5], data[5:]] if data else [])
    assert repository.exists(descriptor)
    assert fetch_bytes(repository, descriptor) == data


def test_a_blob_goes_in_one_put_with_its_length(repository: Repository, wire: WireRegistry) -> None:
    repository.push(describe(BLOB), [BLOB])
    assert wire.summary() == ["POST uploads", "PUT uploads"]
    put = wire.requests("PUT")[0]
    assert put.headers["content-length"] == str(len(BLOB))
    assert "transfer-encoding" not in put.headers
    assert put.path.endswith(f"?_state=a%2Fb&digest={describe(BLOB).digest}")


def test_bodies_are_asked_for_as_they_are_stored(repository: Repository, wire: WireRegistry) -> None:
    wire.add_blob(BLOB)
    fetch_bytes(repository, describe(BLOB))
    assert wire.seen[0].headers["accept-encoding"] == "identity"


def test_sha512_blobs_work(repository: Repository) -> None:
    descriptor = Descriptor(mediatype.OCI_LAYER, Digest.of(BLOB, "sha512"), len(BLOB))
    repository.push(descriptor, [BLOB])
    assert fetch_bytes(repository, descriptor) == BLOB


@pytest.mark.parametrize("data", [BLOB[:-1] + b"!", BLOB[:-1], BLOB + b"!"], ids=["other", "short", "long"])
def test_wrong_bytes_never_reach_the_registry_whole(repository: Repository, wire: WireRegistry, data: bytes) -> None:
    with pytest.raises((DigestMismatch, SizeMismatch)):
        repository.push(describe(BLOB), [data])
    assert not wire.blobs


def test_a_failure_of_the_producer_comes_through_unchanged(repository: Repository, wire: WireRegistry) -> None:
    def broken() -> Iterator[bytes]:
        yield BLOB[:10]
        raise ConnectionError("the other end is gone")

    with pytest.raises(ConnectionError, match="the other end"):
        repository.push(describe(BLOB), broken())
    assert not wire.blobs


def test_a_missing_blob_is_reported_on_entry(repository: Repository) -> None:
    with pytest.raises(NotFound, match=str(describe(BLOB).digest)), repository.fetch(describe(BLOB)):
        pytest.fail("entered")


def test_a_manifest_goes_to_manifests_and_is_tagged(repository: Repository, wire: WireRegistry) -> None:
    manifest = a_manifest()
    pushed = push_bytes(repository, manifest.raw, manifest.media_type)
    repository.tag(pushed, "v1")
    assert wire.summary() == ["PUT manifests", "PUT manifests"]
    assert wire.manifests["team/app@v1"] == (manifest.media_type, manifest.raw)
    assert repository.resolve("v1") == pushed
    assert repository.resolve(str(pushed.digest)) == pushed
    assert wire.summary()[2:] == ["HEAD manifests", "HEAD manifests"]


def test_pushing_with_a_tag_is_one_request(repository: Repository, wire: WireRegistry) -> None:
    manifest = a_manifest()
    repository.push_tagged(manifest.descriptor, [manifest.raw], "v1")
    assert wire.summary() == ["PUT manifests"]


def test_fetching_a_root_takes_one_request_for_both_name_and_bytes(repository: Repository, wire: WireRegistry) -> None:
    manifest = a_manifest()
    wire.add_manifest("team/app", manifest.raw, manifest.media_type, "v1")
    root = repository.fetch_root("v1")
    assert root == manifest.descriptor
    assert fetch_bytes(repository, root) == manifest.raw
    assert wire.summary() == ["GET manifests"]
    assert mediatype.OCI_INDEX in wire.seen[0].headers["accept"]


@pytest.mark.parametrize("missing", ["Docker-Content-Digest", "Content-Type"])
def test_a_head_that_says_too_little_is_followed_by_a_get(
    repository: Repository, wire: WireRegistry, missing: str
) -> None:
    manifest = a_manifest()
    wire.add_manifest("team/app", manifest.raw, manifest.media_type, "v1")
    headers = {
        "Docker-Content-Digest": str(manifest.descriptor.digest),
        "Content-Type": manifest.media_type,
        "Content-Length": str(len(manifest.raw)),
    }
    del headers[missing]
    wire.on("HEAD", "/manifests/v1", lambda exchange: exchange.answer(200, b"", headers))
    assert repository.resolve("v1") == manifest.descriptor


def test_a_registry_without_head_is_asked_by_get(repository: Repository, wire: WireRegistry) -> None:
    manifest = a_manifest()
    wire.add_manifest("team/app", manifest.raw, manifest.media_type, "v1")
    wire.on("HEAD", "/manifests/v1", lambda exchange: exchange.answer(405))
    assert repository.resolve("v1") == manifest.descriptor


def test_unknown_tags_are_not_found_and_impossible_ones_not_asked_for(
    repository: Repository, wire: WireRegistry
) -> None:
    with pytest.raises(NotFound, match="manifest v9 of team/app"):
        repository.resolve("v9")
    asked = len(wire.seen)
    for bad in ("../../x", "a b", "sha256:abc", "", "x\r\ny"):
        with pytest.raises(InvalidReference):
            repository.resolve(bad)
    assert len(wire.seen) == asked


def test_a_tag_needs_its_document(repository: Repository) -> None:
    with pytest.raises(NotFound):
        repository.tag(a_manifest().descriptor, "v1")


def test_a_blob_of_another_repository_is_mounted(repository: Repository, wire: WireRegistry) -> None:
    wire.add_blob(BLOB)
    assert repository.mount(describe(BLOB), "team/base")
    assert wire.seen[0].path.endswith(f"?mount={describe(BLOB).digest}&from=team%2Fbase")


def test_a_declined_mount_leaves_its_upload_session_for_the_push(repository: Repository, wire: WireRegistry) -> None:
    assert not repository.mount(describe(BLOB), "team/base")
    repository.push(describe(BLOB), [BLOB])
    assert wire.summary() == ["POST uploads", "PUT uploads"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
def test_a_mount_that_is_refused_in_any_way_is_no_mount(status: int) -> None:
    with serving() as wire, Registry(wire.host, sleep=lambda _: None) as registry:
        wire.on("POST", "mount=", lambda exchange: exchange.fail(status, "NO"), times=9)
        assert not Repository(registry, "team/app").mount(describe(BLOB), "team/base")


def test_tags_come_page_by_page(repository: Repository, wire: WireRegistry) -> None:
    manifest = a_manifest()
    wire.add_manifest("team/app", manifest.raw, manifest.media_type, *"abcde")
    wire.page = 2
    pages = repository.tags()
    assert list(itertools.islice(pages, 2)) == ["a", "b"]
    assert len(wire.seen) == 1
    assert list(pages) == ["c", "d", "e"]
    assert len(wire.seen) == 3


def test_an_absolute_link_of_the_same_registry_is_followed(repository: Repository, wire: WireRegistry) -> None:
    link = {"Link": f'<{wire.url}/v2/team/app/tags/list?last=a>; rel="next"'}
    wire.on("GET", "/tags/list", lambda exchange: exchange.answer(200, b'{"tags":["a"]}', link))
    assert list(repository.tags()) == ["a"]
    assert len(wire.seen) == 2


def test_deleting_a_manifest(repository: Repository, wire: WireRegistry) -> None:
    manifest = a_manifest()
    wire.add_manifest("team/app", manifest.raw, manifest.media_type, "v1")
    repository.delete(manifest.descriptor.digest)
    assert not wire.manifests
    with pytest.raises(NotFound):
        repository.delete(manifest.descriptor.digest)
    wire.on("DELETE", "/manifests/", lambda exchange: exchange.fail(405, "UNSUPPORTED"))
    with pytest.raises(Unsupported, match="does not allow deletion"):
        repository.delete(manifest.descriptor.digest)


def test_connections_are_used_again(repository: Repository, wire: WireRegistry) -> None:
    for number in range(5):
        data = b"%d" % number * 100000
        repository.exists(describe(data))
        repository.push(describe(data), [data])
        fetch_bytes(repository, describe(data))
    assert wire.connections == 2  # one of them found out that no TLS is spoken
