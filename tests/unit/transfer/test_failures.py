"""Copies that fail or are interrupted: all threads stop, nothing is tagged, nothing is left."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.errors import AuthError, NetworkError, StorageError, VerificationError
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Manifest
from imagetool.transfer import copy
from tests.support.images import add_image
from tests.support.wire import Exchange, WireRegistry, serving
from tests.unit.transfer.registries import opened

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
