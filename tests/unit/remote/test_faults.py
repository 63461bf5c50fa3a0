"""Registries that fail, stall, lie or go away while something is read from them."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from imagetool.content.store import fetch_bytes
from imagetool.errors import (
    AuthError,
    DigestMismatch,
    NetworkError,
    NotFound,
    SizeMismatch,
    VerificationError,
)
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Manifest
from imagetool.remote.http import RetryPolicy
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from tests.support.wire import Exchange, WireRegistry, wait_for
from tests.unit.remote.blobs import BLOB, LAYER

MANIFEST = Manifest.make(Descriptor.of(b"{}", mediatype.OCI_CONFIG), [LAYER])


def read(repository: Repository, descriptor: Descriptor = LAYER) -> bytes:
    with repository.fetch(descriptor) as chunks:
        return b"".join(chunks)


def test_a_body_that_is_cut_is_taken_up_where_it_broke(repository: Repository, wire: WireRegistry) -> None:
    wire.add_blob(BLOB)
    wire.on("GET", "/blobs/", lambda e: e.cut(BLOB, 2_500_000))
    assert read(repository) == BLOB
    second = wire.requests("GET")[1].headers["range"]
    first = int(second.removeprefix("bytes=").removesuffix("-"))
    assert 0 < first <= 2_500_000


def test_a_body_may_be_cut_more_often_than_a_request_is_tried(repository: Repository, wire: WireRegistry) -> None:
    wire.add_blob(BLOB)

    def cut(exchange: Exchange) -> bool:
        first = int(exchange.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {first}-{len(BLOB) - 1}/{len(BLOB)}"}
        return exchange.cut(BLOB[first:], 300_000, 206 if first else 200, headers)

    wire.on("GET", "/blobs/", cut, times=8)
    assert read(repository) == BLOB
    assert len(wire.seen) == 9


def test_a_registry_without_ranges_sends_it_all_again(repository: Repository, wire: WireRegistry) -> None:
    wire.on("GET", "/blobs/", lambda e: e.cut(BLOB, 1_500_000))
    wire.on("GET", "/blobs/", lambda e: e.answer(200, BLOB))
    assert read(repository) == BLOB


def test_a_range_that_was_not_asked_for_is_refused(repository: Repository, wire: WireRegistry) -> None:
    wire.on("GET", "/blobs/", lambda e: e.cut(BLOB, 1_500_000))
    wire.on("GET", "/blobs/", lambda e: e.answer(206, BLOB[5:], {"Content-Range": f"bytes 5-{len(BLOB) - 1}/*"}))
    with pytest.raises(NetworkError, match="was sent bytes 5-"):
        read(repository)


def test_a_body_that_never_grows_is_given_up(repository: Repository, wire: WireRegistry, waits: list[float]) -> None:
    wire.on("GET", "/blobs/", lambda e: e.cut(BLOB, 0), times=99)
    with pytest.raises(NetworkError, match=str(LAYER.digest)):
        read(repository)
    assert len(wire.seen) == 5
    assert len(waits) == 4


def test_a_manifest_that_is_cut_is_asked_for_again(repository: Repository, wire: WireRegistry) -> None:
    wire.add_manifest("a/b", MANIFEST.raw, MANIFEST.media_type, "v1")
    wire.on("GET", "/manifests/", lambda e: e.cut(MANIFEST.raw, 20))
    assert repository.fetch_root("v1") == MANIFEST.descriptor


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_troubles_are_waited_out(
    repository: Repository, wire: WireRegistry, waits: list[float], status: int
) -> None:
    wire.add_blob(BLOB)
    wire.on("GET", "/blobs/", lambda e: e.fail(status, "TOO_BUSY"), times=2)
    assert read(repository) == BLOB
    assert 0.25 <= waits[0] <= 0.5
    assert 0.5 <= waits[1] <= 1


def test_a_connection_without_answer_is_tried_again(repository: Repository, wire: WireRegistry) -> None:
    wire.add_blob(BLOB)
    wire.on("GET", "/blobs/", lambda e: e.drop(), times=3)
    assert read(repository) == BLOB


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(repository: Repository, wire: WireRegistry, waits: list[float], form: str) -> None:
    value = "7" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)
    wire.on("HEAD", "/blobs/", lambda e: e.fail(429, "TOOMANYREQUESTS", {"Retry-After": value}))
    assert not repository.exists(LAYER)
    assert len(waits) == 1
    assert 6 <= waits[0] <= 9


def test_a_retry_after_of_an_hour_is_an_error_that_says_so(
    repository: Repository, wire: WireRegistry, waits: list[float]
) -> None:
    wire.on("GET", "/blobs/", lambda e: e.fail(429, "TOOMANYREQUESTS", {"Retry-After": "3600"}), times=9)
    with pytest.raises(NetworkError, match=r"429 Too Many Requests: TOOMANYREQUESTS.*'3600'"):
        read(repository)
    assert not waits
    assert len(wire.seen) == 1


def test_all_waiting_of_one_client_has_a_budget(wire: WireRegistry) -> None:
    waits: list[float] = []
    wire.on("HEAD", "/blobs/", lambda e: e.fail(503, "BUSY"), times=99)
    with Registry(wire.host, sleep=waits.append, policy=RetryPolicy(tries=50, budget=3)) as registry:
        for _ in range(2):
            with pytest.raises(NetworkError, match="503 Service Unavailable"):
                Repository(registry, "a/b").exists(LAYER)
    assert 1 < sum(waits) <= 3


def test_client_errors_are_not_tried_again(repository: Repository, wire: WireRegistry) -> None:
    wire.on("GET", "/blobs/", lambda e: e.fail(400, "NAME_INVALID"))
    with pytest.raises(NetworkError, match="400 Bad Request: NAME_INVALID: name invalid"):
        read(repository)
    assert len(wire.seen) == 1


def test_nobody_listening_is_one_clear_error_at_once(waits: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"  # taken and not listened on, so that nobody else does
        with (
            Registry(host, sleep=waits.append) as registry,
            pytest.raises(NetworkError, match=f"{host}: GET blob .* of a/b: Connection refused"),
        ):
            read(Repository(registry, "a/b"))
    assert not waits


def test_a_blob_with_wrong_bytes_is_refused(repository: Repository, wire: WireRegistry) -> None:
    wire.blobs[str(LAYER.digest)] = BLOB[:-1] + b"!"
    with pytest.raises(DigestMismatch, match=r"from 127\.0\.0\.1:\d+/a/b"):
        read(repository)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_blob_of_another_length_is_refused_before_it_is_read(
    repository: Repository, wire: WireRegistry, change: int
) -> None:
    wire.blobs[str(LAYER.digest)] = BLOB[:change] if change < 0 else BLOB + b"!"
    with pytest.raises(SizeMismatch), repository.fetch(LAYER) as chunks:
        next(chunks)


def test_an_endless_body_ends_one_chunk_after_its_size(repository: Repository, wire: WireRegistry) -> None:
    sent = 0

    def endless(exchange: Exchange) -> bool:
        nonlocal sent
        exchange.send_response(200)
        exchange.send_header("Transfer-Encoding", "chunked")
        exchange.end_headers()
        while sent < 1 << 30:
            exchange.wfile.write(b"10000\r\n" + b"\0" * 65536 + b"\r\n")
            sent += 65536
        return True

    wire.on("GET", "/blobs/", endless)
    with pytest.raises(SizeMismatch):
        read(repository, Descriptor(mediatype.OCI_LAYER, LAYER.digest, 100_000))
    assert sent < 64 << 20  # what the sockets between us hold


def test_a_blob_sent_with_content_encoding_is_refused_with_the_reason(
    repository: Repository, wire: WireRegistry
) -> None:
    zipped = gzip.compress(BLOB)
    wire.on("GET", "/blobs/", lambda e: e.answer(200, zipped, {"Content-Encoding": "gzip"}))
    with pytest.raises(VerificationError) as refused:
        read(repository)
    assert "Content-Encoding 'gzip'" in refused.value.__notes__[0]


def test_a_gzipped_layer_that_is_labelled_so_is_not_unpacked(repository: Repository, wire: WireRegistry) -> None:
    zipped = gzip.compress(BLOB)
    wire.on("GET", "/blobs/", lambda e: e.answer(200, zipped, {"Content-Encoding": "gzip"}))
    assert fetch_bytes(repository, Descriptor.of(zipped, mediatype.OCI_LAYER_GZIP)) == zipped


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(repository: Repository, wire: WireRegistry) -> None:
    digest = str(MANIFEST.descriptor.digest)
    wire.manifests[f"a/b@{digest}"] = (
        MANIFEST.media_type,
        MANIFEST.raw.replace(b'"schemaVersion"', b' "schemaVersion"'),
    )
    with pytest.raises(DigestMismatch):
        repository.fetch_root(digest)
    with pytest.raises((DigestMismatch, SizeMismatch)):
        read(repository, MANIFEST.descriptor)
    with pytest.raises(DigestMismatch):
        repository.resolve(digest)


def test_a_wrong_docker_content_digest_is_refused(repository: Repository, wire: WireRegistry) -> None:
    wrong = {"Docker-Content-Digest": f"sha256:{'0' * 64}", "Content-Type": MANIFEST.media_type}
    wire.on("GET", "/manifests/", lambda e: e.answer(200, MANIFEST.raw, wrong))
    with pytest.raises(DigestMismatch):
        repository.fetch_root("v1")
    wire.on("PUT", "/manifests/", lambda e: e.answer(201, b"", wrong))
    with pytest.raises(DigestMismatch, match="stored something else"):
        repository.push(MANIFEST.descriptor, [MANIFEST.raw])
    wire.on("PUT", "/uploads/", lambda e: e.answer(201, b"", wrong))
    with pytest.raises(DigestMismatch):
        repository.push(LAYER, [BLOB])


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthError), (403, AuthError), (404, NotFound), (418, NetworkError), (599, NetworkError)]
)
def test_statuses_become_the_errors_they_mean(
    repository: Repository, wire: WireRegistry, status: int, kind: type[Exception]
) -> None:
    wire.on("GET", "/blobs/", lambda e: e.fail(status, "CODE"), times=9)
    with pytest.raises(kind, match=f"{wire.host}: GET blob .*: {status}"):
        read(repository)


def test_a_server_that_says_nothing_is_given_up(
    repository: Repository, wire: WireRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagetool.remote.http._READ_SECONDS", 0.1)
    given_up = threading.Event()

    def mute(exchange: Exchange) -> bool:
        given_up.wait(60)
        return exchange.drop()

    wire.on("GET", "/blobs/", mute, times=9)
    try:
        with pytest.raises(NetworkError, match="no answer in time"):
            read(repository)
        wait_for(lambda: len(wire.seen) >= 5)  # it may read a request after the client has given it up
    finally:
        given_up.set()
    assert len(wire.seen) == 5


def test_a_server_that_drips_a_document_runs_out_of_time(
    repository: Repository, wire: WireRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagetool.remote.answer._DOCUMENT_SECONDS", 0.3)

    def drip(exchange: Exchange) -> bool:
        exchange.answer(200, b"{", {"Content-Length": "1000"})
        while True:  # until nobody reads any more
            time.sleep(0.05)
            exchange.wfile.write(b" ")

    wire.on("GET", "/manifests/", drip)
    with pytest.raises(NetworkError, match="took longer than"):
        repository.fetch_root("v1")


def test_the_broken_rest_of_an_answer_nobody_reads_is_no_error(repository: Repository, wire: WireRegistry) -> None:
    wire.on("POST", "/uploads/", lambda e: e.cut(b"x" * 100, 10, 202, {"Location": "/v2/a/b/blobs/uploads/u"}))
    wire.uploads["u"] = bytearray()
    repository.push(LAYER, [BLOB])
    assert wire.blobs[str(LAYER.digest)] == BLOB


def test_an_error_whose_explanation_is_cut_is_still_that_error(repository: Repository, wire: WireRegistry) -> None:
    wire.on("GET", "/blobs/", lambda e: e.cut(b"x" * 100, 10, 404))
    with pytest.raises(NotFound, match=r"404 Not Found$"):
        read(repository)
