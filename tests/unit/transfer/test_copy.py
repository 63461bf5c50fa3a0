"""Copying images: between memory, a layout and a small registry over real sockets."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagetool import limits
from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.errors import AuthError, LimitExceeded, NetworkError, NotFound, StorageError, VerificationError
from imagetool.image.verify import verify
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.progress import BlobAdvanced, BlobFinished, BlobStarted, Event
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from imagetool.transfer import FolderOrigins, copy
from tests.support.images import add_image, add_index
from tests.support.wire import Exchange, WireRegistry, serving, token_server


@pytest.fixture
def wire() -> Iterator[WireRegistry]:
    with serving() as registry:
        yield registry


def opened(wire: WireRegistry, name: str = "team/app") -> Repository:
    return Repository(Registry(wire.host, sleep=lambda _: None), name)


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore()


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


# -- what it costs -----------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 4])
def test_pushing_a_new_image_stays_within_its_requests(source: MemoryStore, wire: WireRegistry, layers: int) -> None:
    root = add_image(source, layers=layers)
    copy(source, opened(wire), root, tags=["v1"])
    assert len(wire.seen) <= 3 * (layers + 1) + 1
    assert sorted(wire.summary()) == sorted(
        ["HEAD manifests", "PUT manifests", "POST uploads", "PUT uploads"]
        + ["HEAD blobs", "POST uploads", "PUT uploads"] * layers
    )
    assert wire.manifests["team/app@v1"][1] == source.blobs[root.digest]


def test_pushing_an_unchanged_tag_again_is_one_head(source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source)
    copy(source, opened(wire), root, tags=["v1"])
    wire.seen.clear()
    report = copy(source, opened(wire), root, tags=["v1"])
    assert wire.summary() == ["HEAD manifests"]
    assert report.moved == 0


def test_one_more_tag_on_the_same_image_costs_two_requests(source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source)
    copy(source, opened(wire), root, tags=["v1"])
    wire.seen.clear()
    copy(source, opened(wire), root, tags=["v1", "v2"])
    assert wire.summary() == ["HEAD manifests", "HEAD manifests", "PUT manifests"]
    assert "team/app@v2" in wire.manifests


def test_pushing_known_blobs_under_a_new_tag_sends_none(source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source)
    copy(source, opened(wire), root, tags=["v1"])
    wire.seen.clear()
    report = copy(source, opened(wire), root, tags=["v2"])
    assert sorted(wire.summary()) == ["HEAD blobs"] * 4 + ["HEAD manifests", "PUT manifests"]
    assert {blob.outcome for blob in report.blobs} == {"exists"}


@pytest.mark.parametrize("layers", [1, 4])
def test_pulling_an_image_takes_one_get_for_each_thing(source: MemoryStore, wire: WireRegistry, layers: int) -> None:
    root = add_image(source, layers=layers)
    copy(source, opened(wire), root, tags=["v1"])
    wire.seen.clear()
    pulled, repository = MemoryStore(), opened(wire)
    copy(repository, pulled, repository.fetch_root("v1"), tags=["app"])
    assert pulled.blobs == source.blobs
    assert sorted(wire.summary()) == ["GET blobs"] * (layers + 1) + ["GET manifests"]
    wire.seen.clear()
    copy(repository, pulled, repository.fetch_root("v1"), tags=["app"])
    assert wire.summary() == ["GET manifests"]


def test_a_pull_with_tokens_costs_a_challenge_and_a_token_more(source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source)
    copy(source, opened(wire), root, tags=["v1"])
    wire.seen.clear()
    wire.realm, wire.tokens = f"{wire.url}/token", {"t"}
    token_server(wire, lambda _: "t")
    repository = opened(wire)
    copy(repository, MemoryStore(), repository.fetch_root("v1"))
    assert sorted(wire.summary()) == ["GET blobs"] * 4 + ["GET manifests"] * 2 + ["GET token"]


def test_blobs_of_a_sibling_repository_are_mounted(source: MemoryStore, wire: WireRegistry, tmp_path: Path) -> None:
    root = add_image(source)
    origins = FolderOrigins(tmp_path)
    copy(source, opened(wire, "team/base"), root, tags=["v1"], origins=origins)
    wire.on("HEAD", "/team/app/blobs/", lambda e: e.fail(404, "BLOB_UNKNOWN"), times=9)
    report = copy(source, opened(wire), root, tags=["v1"], origins=origins)
    assert {blob.outcome for blob in report.blobs} == {"mounted"}
    assert report.moved == 0
    assert all("from=team%2Fbase" in seen.path for seen in wire.requests("POST", "team/app/blobs/uploads"))


def test_what_was_pulled_is_mounted_when_it_is_pushed_elsewhere_in_its_registry(
    source: MemoryStore, wire: WireRegistry, tmp_path: Path
) -> None:
    copy(source, opened(wire, "team/base"), add_image(source), tags=["v1"])
    base, local = opened(wire, "team/base"), MemoryStore()
    root = copy(base, local, base.fetch_root("v1"), origins=FolderOrigins(tmp_path)).root
    wire.on("HEAD", "/team/app/blobs/", lambda e: e.fail(404, "BLOB_UNKNOWN"), times=9)
    report = copy(local, opened(wire), root, tags=["v1"], origins=FolderOrigins(tmp_path))
    assert {blob.outcome for blob in report.blobs} == {"mounted"}


def test_a_hint_that_is_wrong_costs_no_request_more(source: MemoryStore, wire: WireRegistry, tmp_path: Path) -> None:
    root = add_image(source, layers=4)
    origins = FolderOrigins(tmp_path)
    for digest in source.blobs:
        origins.record(wire.host, "team/gone", digest)
    report = copy(source, opened(wire), root, tags=["v1"], origins=origins)
    assert {blob.outcome for blob in report.blobs} == {"done"}
    assert len(wire.seen) <= 3 * 5 + 1


def test_within_one_registry_blobs_are_mounted_from_the_source(source: MemoryStore, wire: WireRegistry) -> None:
    copy(source, opened(wire, "team/base"), add_image(source), tags=["v1"])
    wire.on("HEAD", "/team/app/blobs/", lambda e: e.fail(404, "BLOB_UNKNOWN"), times=9)
    with Registry(wire.host) as registry:
        base = Repository(registry, "team/base")
        report = copy(base, Repository(registry, "team/app"), base.fetch_root("v1"), tags=["v1"])
    assert {blob.outcome for blob in report.blobs} == {"mounted"}


def test_a_push_to_a_place_we_may_not_read_is_tried(source: MemoryStore, wire: WireRegistry) -> None:
    wire.on("HEAD", "/manifests/", lambda e: e.fail(403, "DENIED"))
    root = add_image(source)
    copy(source, opened(wire), root, tags=["v1"])
    assert "team/app@v1" in wire.manifests


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


# -- what goes wrong ---------------------------------------------------------------------------


def test_the_first_error_is_raised_with_its_blob_and_nothing_is_tagged(source: MemoryStore) -> None:
    root = add_image(source, layers=5)
    third = Manifest.parse(source.blobs[root.digest]).layers[2]
    source.blobs[third.digest] = b"!" * third.size
    destination = MemoryStore()
    with pytest.raises(VerificationError) as failed:
        copy(source, destination, root, tags=["app"])
    assert failed.value.__notes__ == [f"while copying layer 3 of 5 ({third.digest})"]
    assert not destination.tags
    assert not destination.exists(root)
    assert not destination.exists(third)


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


class _Gated(MemoryStore):
    """A source whose layers keep coming until `broken` is set for all but one, which fails at once."""

    def __init__(self, bad: Descriptor) -> None:
        super().__init__()
        self.bad = bad
        self.running = 0
        self.most = 0
        self.begun = threading.Event()
        self.failed = threading.Event()
        self.late = 0
        self.lock = threading.Lock()

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        if descriptor.media_type != mediatype.OCI_LAYER:
            with super().fetch(descriptor) as chunks:
                yield chunks
            return
        if descriptor == self.bad:
            self.failed.set()
            raise StorageError("disk on fire")
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.begun.set()
        try:
            yield self.endless()
        finally:
            with self.lock:
                self.running -= 1

    def endless(self) -> Iterator[bytes]:
        while True:
            time.sleep(0.01)
            with self.lock:
                self.late += self.failed.is_set()
            yield b""


def test_a_failure_stops_the_blobs_that_are_on_their_way(source: MemoryStore) -> None:
    root = add_image(source, layers=4)
    gated = _Gated(Manifest.parse(source.blobs[root.digest]).layers[3])
    gated.blobs = source.blobs
    with pytest.raises(StorageError, match="on fire"):
        copy(gated, MemoryStore(), root, jobs=5)
    assert gated.late < 300, "pieces that were still taken of the others; each takes 10 ms or more"
    assert gated.running == 0


def test_no_more_blobs_move_at_once_than_asked(source: MemoryStore) -> None:
    root = add_image(source, layers=6)

    class Slow(MemoryStore):
        running = most = 0
        lock = threading.Lock()
        three = threading.Event()

        def push(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
                if self.running == 3:
                    self.three.set()
            assert self.three.wait(60)  # the first two wait for the third
            time.sleep(0.05)  # a fourth would come now
            super().push(descriptor, chunks)
            with self.lock:
                self.running -= 1

    destination = Slow()
    copy(source, destination, root, jobs=3)
    assert destination.most == 3


def test_ctrl_c_stops_all_threads_and_tags_nothing(source: MemoryStore) -> None:
    root = add_image(source, layers=4)
    gated = _Gated(root)
    gated.blobs = source.blobs
    destination = MemoryStore()
    before = threading.active_count()

    def interrupt() -> None:
        if gated.begun.wait(60):
            signal.raise_signal(signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        copy(gated, destination, root, tags=["app"])
    interrupter.join()
    assert gated.most > 0
    deadline = time.monotonic() + 30  # on a busy machine the last thread may need a moment to end
    while (gated.running or threading.active_count() > before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gated.running == 0
    assert threading.active_count() == before
    assert not destination.tags


def test_a_pull_that_fails_leaves_no_staging_files(tmp_path: Path, source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source, layers=3, size=2 << 20)
    copy(source, opened(wire), root, tags=["v1"])
    bad = str(Manifest.parse(source.blobs[root.digest]).layers[1].digest)
    wire.blobs[bad] = bytes(len(wire.blobs[bad]))
    layout = LayoutStore.create(tmp_path / "layout")
    with pytest.raises(VerificationError):
        copy(opened(wire), layout, root, tags=["app"])
    assert not layout.names()
    assert not list((tmp_path / "layout" / ".staging").glob("*"))


def test_a_layout_pulled_from_a_registry_verifies(tmp_path: Path, source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source, layers=0)
    copy(source, opened(wire), root, tags=["v1"])
    layout = LayoutStore.create(tmp_path / "layout")
    repository = opened(wire)
    copy(repository, layout, repository.fetch_root("v1"), tags=["app:v1"])
    assert all(not check.problem for check in verify(layout, layout.resolve("app:v1")))


def test_a_damaged_local_image_is_repaired_by_pulling_again(source: MemoryStore, wire: WireRegistry) -> None:
    root = add_image(source)
    copy(source, opened(wire), root, tags=["v1"])
    pulled = MemoryStore()
    copy(opened(wire), pulled, root, tags=["app"])
    del pulled.blobs[Manifest.parse(source.blobs[root.digest]).layers[0].digest]
    copy(opened(wire), pulled, root, tags=["app"])
    assert pulled.blobs == source.blobs


def test_a_registry_to_registry_copy_does_not_retry_the_upload_for_the_sources_failure(
    source: MemoryStore, wire: WireRegistry
) -> None:
    root = add_image(source, layers=1, size=3 << 20)
    copy(source, opened(wire), root, tags=["v1"])
    layer = str(Manifest.parse(source.blobs[root.digest]).layers[0].digest)
    data = wire.blobs[layer]

    def cut(exchange: Exchange) -> bool:
        return exchange.cut(data, 0)

    wire.on("GET", f"/blobs/{layer}", cut, times=99)
    with serving() as other, pytest.raises(NetworkError):
        copy(opened(wire), opened(other), root, tags=["v1"])
    assert len(wire.requests("GET", f"/blobs/{layer}")) == 5


def test_wrong_credentials_are_one_error(source: MemoryStore, wire: WireRegistry) -> None:
    wire.user = ("me", "secret")
    root = add_image(source)
    with pytest.raises(AuthError, match="imagetool login"):
        copy(source, opened(wire), root, tags=["v1"])
