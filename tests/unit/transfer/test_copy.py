"""Copying images: between memory, a layout and a small registry over real sockets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from imagetool import limits
from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.errors import LimitExceeded, NetworkError, NotFound
from imagetool.image.verify import verify
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.progress import BlobAdvanced, BlobFinished, BlobStarted, Event
from imagetool.transfer import copy
from tests.support.images import add_image, add_index
from tests.support.wire import WireRegistry
from tests.unit.transfer.registries import opened

# -- what is copied ----------------------------------------------------------------------------


def test_an_image_arrives_byte_for_byte(source: MemoryStore) -> None:
    root = add_image(source)
    destination = MemoryStore()
    report = copy(source, destination, root, tags=["app:1", "app:latest"])
    assert destination.blobs == source.blobs
    assert destination.tags == {"app:1": root, "app:latest": root}
    assert report.root == root
    assert [blob.what for blob in report.blobs] == ["config", "layer 1 of 3", "layer 2 of 3", "layer 3 of 3"]
    assert {blob.outcome for blob in report.blobs} == {"done"}
    assert report.moved == sum(len(data) for digest, data in source.blobs.items() if digest != root.digest)


def test_documents_that_a_layout_has_are_not_written_anew_unless_they_are_damaged(
    source: MemoryStore, tmp_path: Path
) -> None:
    layout = LayoutStore.create(tmp_path / "layout")
    root = add_image(source)
    copy(source, layout, root, tags=["a"])
    before = {path: path.stat().st_ino for path in (tmp_path / "layout/blobs/sha256").iterdir()}
    copy(source, layout, root, tags=["b"])
    assert {path: path.stat().st_ino for path in before} == before
    layout.path(root.digest).write_bytes(bytes(root.size))
    copy(source, layout, root, tags=["b"])
    assert layout.resolve("b") == layout.resolve("a")
    with layout.fetch(root) as chunks:
        assert len(b"".join(chunks)) == root.size


def test_an_index_arrives_with_all_its_images(source: MemoryStore) -> None:
    root = add_index(source, ["linux/amd64", "linux/arm64"])
    destination = MemoryStore()
    report = copy(source, destination, root, tags=["app"])
    assert destination.blobs == source.blobs
    assert "layer 1 of 3 of linux/arm64" in [blob.what for blob in report.blobs]


def test_one_image_of_an_index_is_taken_by_platform(source: MemoryStore) -> None:
    root = add_index(source, ["linux/amd64", "linux/arm64"])
    destination = MemoryStore()
    report = copy(source, destination, root, tags=["app"], platform=Platform.parse("linux/arm64"))
    arm = Index.parse(source.blobs[root.digest]).manifests[1]
    assert report.root == arm
    assert destination.tags["app"] == arm
    assert len(destination.blobs) == 5
    with pytest.raises(NotFound, match=r"linux/s390x; it has: linux/amd64, linux/arm64"):
        copy(source, MemoryStore(), root, platform=Platform.parse("linux/s390x"))


def test_a_layer_that_two_images_share_moves_once(source: MemoryStore) -> None:
    config = push_bytes(source, b"{}", mediatype.OCI_CONFIG)
    layer = push_bytes(source, b"shared", mediatype.OCI_LAYER)
    manifests = [Manifest.make(config, [layer]), Manifest.make(config, [layer, layer])]
    entries = [push_bytes(source, manifest.raw, manifest.media_type) for manifest in manifests]
    index = Index.make(entries)
    root = push_bytes(source, index.raw, index.media_type)
    destination = MemoryStore()
    report = copy(source, destination, root)
    assert destination.blobs == source.blobs
    assert [blob.descriptor for blob in report.blobs] == [config, layer]


def test_an_index_may_hold_an_index_and_something_else(source: MemoryStore) -> None:
    inner = add_index(source, ["linux/amd64"])
    strange = push_bytes(source, b"?", "application/x-strange")
    index = Index.make([inner, strange])
    root = push_bytes(source, index.raw, index.media_type)
    destination = MemoryStore()
    copy(source, destination, root)
    assert destination.blobs == source.blobs


def test_documents_arrive_children_first_and_after_all_blobs(source: MemoryStore) -> None:
    inner = add_index(source, ["linux/amd64", "linux/arm64"])
    amd = Index.parse(source.blobs[inner.digest]).manifests[0]
    index = Index.make([amd, inner])
    root = push_bytes(source, index.raw, index.media_type)
    order: list[Descriptor] = []

    class Strict(MemoryStore):
        def push(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
            super().push(descriptor, chunks)
            order.append(descriptor)
            if descriptor.media_type in mediatype.DOCUMENTS:
                kind = Index if descriptor.media_type in mediatype.INDEXES else Manifest
                assert all(self.exists(child) for child in kind.parse(self.blobs[descriptor.digest]).children)

    copy(source, Strict(), root)
    assert order[-1] == root
    assert [d.media_type in mediatype.DOCUMENTS for d in order] == sorted(
        d.media_type in mediatype.DOCUMENTS for d in order
    )


def test_an_index_that_names_an_absent_image_says_how_to_copy_one(source: MemoryStore) -> None:
    root = add_index(source, ["linux/amd64", "linux/arm64"])
    del source.blobs[Index.parse(source.blobs[root.digest]).manifests[1].digest]
    with pytest.raises(NotFound) as missing:
        copy(source, MemoryStore(), root)
    assert "give its platform" in missing.value.__notes__[0]


def test_graphs_without_end_are_refused(source: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    root = add_image(source)
    for _ in range(limits.INDEX_DEPTH + 1):
        index = Index.make([root])
        root = push_bytes(source, index.raw, index.media_type)
    with pytest.raises(LimitExceeded, match="nested deeper"):
        copy(source, MemoryStore(), root)
    monkeypatch.setattr(limits, "GRAPH_DOCUMENTS", 5)
    wide = add_index(source, ["linux/amd64", "linux/arm64", "linux/386", "linux/arm", "linux/s390x"])
    with pytest.raises(LimitExceeded, match="more documents than the limit graph-documents=5,"):
        copy(source, MemoryStore(), wide)


# -- what is told ------------------------------------------------------------------------------


def test_progress_tells_every_byte_once(source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source, size=3 << 20)
    wire.on("PUT", "/uploads/", lambda e: e.fail(500, "UNKNOWN"), times=2)
    events: list[Event] = []
    report = copy(source, opened(wire), root, tags=["v1"], observer=events.append)
    started = {event.digest: event for event in events if isinstance(event, BlobStarted)}
    assert {event.action for event in started.values()} == {"push"}
    assert sorted(event.what for event in started.values()) == ["config", "layer", "layer", "layer"]
    for blob in report.blobs:
        digest = str(blob.descriptor.digest)
        amounts = [event.amount for event in events if isinstance(event, BlobAdvanced) and event.digest == digest]
        assert sum(amounts) == started[digest].size == blob.descriptor.size
        assert events.count(BlobFinished(digest, "done")) == 1


def test_a_push_says_pushing_and_a_pull_says_pulling(source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source)
    wire.on("POST", "/uploads/", lambda e: e.fail(400, "NAME_INVALID"), times=99)
    with pytest.raises(NetworkError) as pushing:
        copy(source, opened(wire), root, tags=["v1"])
    assert pushing.value.__notes__[0].startswith("while pushing ")
    wire.rules.clear()
    copy(source, opened(wire), root, tags=["v1"])
    wire.blobs.clear()
    with pytest.raises(NotFound) as pulling:
        copy(opened(wire), MemoryStore(), root)
    assert pulling.value.__notes__[0].startswith("while pulling ")


def test_a_layout_pulled_from_a_registry_verifies(tmp_path: Path, source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source, layers=0)
    copy(source, opened(wire), root, tags=["v1"])
    layout = LayoutStore.create(tmp_path / "layout")
    repository = opened(wire)
    copy(repository, layout, repository.fetch_root("v1"), tags=["app:v1"])
    assert all(not check.problem for check in verify(layout, layout.resolve("app:v1")))
