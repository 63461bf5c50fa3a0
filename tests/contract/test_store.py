"""What every blob store promises, run against every implementation that is registered here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import imagetool
from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.errors import DigestMismatch, NotFound, SizeMismatch
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest
from imagetool.remote.repository import Repository, open_repository
from imagetool.transports.dir import DirStore
from tests.support.wire import serving

BLOB = b"some bytes" * 1000


@contextmanager
def repository(_: Path) -> Iterator[Repository]:
    """A registry's repository, over real sockets; everything it says it keeps in memory."""
    with serving() as wire, open_repository(wire.host, "team/app") as opened:
        yield opened


def in_folder(folder: Path) -> AbstractContextManager[DirStore]:
    (folder / "dir").mkdir()
    return nullcontext(DirStore(folder / "dir"))


#: Every class that keeps blobs, and how to open an empty one.
IMPLEMENTATIONS: dict[type, Callable[[Path], AbstractContextManager[Any]]] = {
    MemoryStore: lambda _: nullcontext(MemoryStore()),
    LayoutStore: lambda folder: nullcontext(LayoutStore.create(folder / "layout")),
    DirStore: in_folder,
    Repository: repository,
}
INGESTERS = [kind for kind in IMPLEMENTATIONS if hasattr(kind, "ingest")]
#: Stores that have any number of names; a directory is one image, and a registry names what it gets itself.
NAMERS = [MemoryStore, LayoutStore]


def test_every_store_there_is_is_registered_here() -> None:
    found = set()
    for module in pkgutil.walk_packages(imagetool.__path__, "imagetool."):
        if module.name.endswith("__main__"):
            continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            is_store = hasattr(kind, "fetch") and hasattr(kind, "push")
            if is_store and kind.__module__ == module.name and not getattr(kind, "_is_protocol", False):
                found.add(kind)
    assert found == set(IMPLEMENTATIONS), "give the new store to the suite: an entry in IMPLEMENTATIONS"


@pytest.fixture
def kind() -> type:
    return LayoutStore


@pytest.fixture
def store(kind: type, tmp_path: Path) -> Iterator[Any]:
    with IMPLEMENTATIONS[kind](tmp_path) as opened:
        yield opened


every_store = pytest.mark.parametrize("kind", IMPLEMENTATIONS, ids=lambda kind: kind.__name__)
every_ingester = pytest.mark.parametrize("kind", INGESTERS, ids=lambda kind: kind.__name__)
every_namer = pytest.mark.parametrize("kind", NAMERS, ids=lambda kind: kind.__name__)


def describe(data: bytes) -> Descriptor:
    return Descriptor.of(data, "application/octet-stream")


def read(store: Any, descriptor: Descriptor) -> bytes:
    with store.fetch(descriptor) as chunks:
        return b"".join(chunks)


@every_store
@pytest.mark.parametrize("data", [b"", b"x", BLOB, b"z" * (3 << 20)], ids=len)
def test_what_was_pushed_comes_back(store: Any, data: bytes) -> None:
    descriptor = describe(data)
    assert not store.exists(descriptor)
    store.push(descriptor, [data[:5], data[5:]] if data else [])
    assert store.exists(descriptor)
    assert read(store, descriptor) == data


@every_store
def test_a_blob_may_be_pushed_twice(store: Any) -> None:
    store.push(describe(BLOB), [BLOB])
    store.push(describe(BLOB), [BLOB])
    assert read(store, describe(BLOB)) == BLOB


@every_store
def test_wrong_bytes_are_refused_and_stay_invisible(store: Any) -> None:
    descriptor = describe(BLOB)
    with pytest.raises(DigestMismatch):
        store.push(descriptor, [BLOB[:-1] + b"!"])
    assert not store.exists(descriptor)


@every_store
@pytest.mark.parametrize("data", [BLOB[:-1], BLOB + b"!"], ids=["short", "long"])
def test_a_blob_of_another_size_is_refused(store: Any, data: bytes) -> None:
    with pytest.raises(SizeMismatch):
        store.push(describe(BLOB), [data])
    assert not store.exists(describe(BLOB))


@every_store
def test_a_producer_that_fails_leaves_nothing_behind(store: Any) -> None:
    def broken() -> Iterator[bytes]:
        yield BLOB[:10]
        raise ConnectionError("the other end is gone")

    with pytest.raises(ConnectionError):
        store.push(describe(BLOB), broken())
    assert not store.exists(describe(BLOB))


@every_store
def test_a_missing_blob_is_reported_before_anything_is_read(store: Any) -> None:
    with pytest.raises(NotFound, match=str(describe(BLOB).digest)), store.fetch(describe(BLOB)):
        pass


@every_store
def test_sha512_blobs_are_stored_under_their_own_digest(store: Any) -> None:
    descriptor = Descriptor("application/octet-stream", Digest.of(BLOB, "sha512"), len(BLOB))
    store.push(descriptor, [BLOB])
    assert read(store, descriptor) == BLOB
    assert not store.exists(describe(BLOB))


@every_ingester
def test_ingest_finds_the_digest(store: Any) -> None:
    with store.ingest() as writer:
        writer.write(BLOB[:100])
        writer.write(BLOB[100:])
        assert writer.commit() == (Digest.of(BLOB), len(BLOB))
    assert read(store, describe(BLOB)) == BLOB


@every_ingester
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


@every_namer
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


@every_namer
def test_an_unknown_name_is_not_found(store: Any) -> None:
    with pytest.raises(NotFound, match="nothing"):
        store.resolve("nothing")


@every_namer
def test_a_tag_needs_its_document(store: Any) -> None:
    with pytest.raises(NotFound):
        store.tag(describe(BLOB), "app")


# -- several at once ---------------------------------------------------------------------------


@every_store
def test_several_threads_may_push_the_same_blob_and_others(store: Any) -> None:
    blobs = [b"%d" % number * 50_000 for number in range(6)]
    errors: list[BaseException] = []

    def push(start: int) -> None:
        try:
            for step in range(len(blobs)):
                data = blobs[(start + step) % len(blobs)]
                store.push(describe(data), [data[:7], data[7:]])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(read(store, describe(data)) == data for data in blobs)


@every_store
def test_a_reader_that_stops_in_the_middle_disturbs_nobody(store: Any) -> None:
    data = b"z" * (3 << 20)
    store.push(describe(data), [data])
    with store.fetch(describe(data)) as chunks:
        next(chunks)
    assert read(store, describe(data)) == data


@every_store
def test_a_descriptor_that_lies_about_the_size_is_not_believed(store: Any) -> None:
    store.push(describe(BLOB), [BLOB])
    for size in (len(BLOB) - 1, len(BLOB) + 1):
        lie = Descriptor("application/octet-stream", Digest.of(BLOB), size)
        with pytest.raises((SizeMismatch, NotFound)):
            read(store, lie)
