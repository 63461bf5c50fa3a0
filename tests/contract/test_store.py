"""What every blob store promises, run against every implementation that is registered here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.errors import DigestMismatch, NotFound, SizeMismatch
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest

BLOB = b"some bytes" * 1000
IMPLEMENTATIONS: dict[str, Callable[[Path], Any]] = {
    "memory": lambda _: MemoryStore(),
    "layout": lambda folder: LayoutStore.create(folder / "layout"),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return IMPLEMENTATIONS[request.param](tmp_path)


def describe(data: bytes) -> Descriptor:
    return Descriptor.of(data, "application/octet-stream")


def read(store: Any, descriptor: Descriptor) -> bytes:
    with store.fetch(descriptor) as chunks:
        return b"".join(chunks)


@pytest.mark.parametrize("data", [b"", b"x", BLOB, b"z" * (3 << 20)], ids=len)
def test_what_was_pushed_comes_back(store: Any, data: bytes) -> None:
    descriptor = describe(data)
    assert not store.exists(descriptor)
    store.push(descriptor, [data[:5], data[5:]] if data else [])
    assert store.exists(descriptor)
    assert read(store, descriptor) == data


def test_a_blob_may_be_pushed_twice(store: Any) -> None:
    store.push(describe(BLOB), [BLOB])
    store.push(describe(BLOB), [BLOB])
    assert read(store, describe(BLOB)) == BLOB


def test_wrong_bytes_are_refused_and_stay_invisible(store: Any) -> None:
    descriptor = describe(BLOB)
    with pytest.raises(DigestMismatch):
        store.push(descriptor, [BLOB[:-1] + b"!"])
    assert not store.exists(descriptor)


@pytest.mark.parametrize("data", [BLOB[:-1], BLOB + b"!"], ids=["short", "long"])
def test_a_blob_of_another_size_is_refused(store: Any, data: bytes) -> None:
    with pytest.raises(SizeMismatch):
        store.push(describe(BLOB), [data])
    assert not store.exists(describe(BLOB))


def test_a_producer_that_fails_leaves_nothing_behind(store: Any) -> None:
    def broken() -> Iterator[bytes]:
        yield BLOB[:10]
        raise ConnectionError("the other end is gone")

    with pytest.raises(ConnectionError):
        store.push(describe(BLOB), broken())
    assert not store.exists(describe(BLOB))


def test_a_missing_blob_is_reported_before_anything_is_read(store: Any) -> None:
    with pytest.raises(NotFound, match=str(describe(BLOB).digest)), store.fetch(describe(BLOB)):
        pass


def test_sha512_blobs_are_stored_under_their_own_digest(store: Any) -> None:
    descriptor = Descriptor("application/octet-stream", Digest.of(BLOB, "sha512"), len(BLOB))
    store.push(descriptor, [BLOB])
    assert read(store, descriptor) == BLOB
    assert not store.exists(describe(BLOB))


def test_ingest_finds_the_digest(store: Any) -> None:
    with store.ingest() as writer:
        writer.write(BLOB[:100])
        writer.write(BLOB[100:])
        assert writer.commit() == (Digest.of(BLOB), len(BLOB))
    assert read(store, describe(BLOB)) == BLOB


def test_ingest_without_commit_leaves_nothing(store: Any) -> None:
    with store.ingest() as writer:
        writer.write(BLOB)
    assert not store.exists(describe(BLOB))


def a_manifest(store: Any) -> Descriptor:
    config = describe(b"{}")
    store.push(config, [b"{}"])
    manifest = Manifest.make(config, [])
    store.push(manifest.descriptor, [manifest.raw])
    return manifest.descriptor


def test_a_tag_resolves_to_what_it_was_put_on_last(store: Any) -> None:
    first = a_manifest(store)
    store.tag(first, "app:1")
    assert store.resolve("app:1") == first
    assert store.resolve(str(first.digest)) == first
    blob = b'{"schemaVersion":2,"manifests":[]}'
    second = Descriptor.of(blob, mediatype.OCI_INDEX)
    store.push(second, [blob])
    store.tag(second, "app:1")
    assert store.resolve("app:1") == second


def test_an_unknown_name_is_not_found(store: Any) -> None:
    with pytest.raises(NotFound, match="nothing"):
        store.resolve("nothing")


def test_a_tag_needs_its_document(store: Any) -> None:
    with pytest.raises(NotFound):
        store.tag(describe(BLOB), "app")
