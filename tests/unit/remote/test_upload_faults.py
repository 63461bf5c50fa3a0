"""Registries that fail, stall or lie while something is sent to them."""

from __future__ import annotations

import pytest

from imagetool.errors import (
    NetworkError,
    SizeMismatch,
    VerificationError,
)
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.remote.repository import Repository
from tests.support.wire import Exchange, WireRegistry
from tests.unit.remote.blobs import BLOB, LAYER


def test_an_upload_is_sent_again_after_a_failure(repository: Repository, wire: WireRegistry) -> None:
    wire.on("PUT", "/uploads/", lambda e: e.fail(500, "UNKNOWN"))
    repository.push(LAYER, [BLOB])
    assert wire.blobs[str(LAYER.digest)] == BLOB
    assert wire.summary() == ["POST uploads", "PUT uploads"] * 2


def test_an_upload_session_that_got_lost_is_opened_again(repository: Repository, wire: WireRegistry) -> None:
    wire.on("PUT", "/uploads/", lambda e: e.fail(404, "BLOB_UPLOAD_UNKNOWN"))
    repository.push(LAYER, [BLOB])
    assert wire.blobs[str(LAYER.digest)] == BLOB


def test_an_upload_from_an_iterator_is_not_sent_again(repository: Repository, wire: WireRegistry) -> None:
    wire.on("PUT", "/uploads/", lambda e: e.fail(500, "UNKNOWN"))
    with pytest.raises(NetworkError, match="500"):
        repository.push(LAYER, iter([BLOB]))
    assert not wire.blobs


@pytest.mark.parametrize("status", [405, 411, 413, 415, 501])
def test_a_registry_that_refuses_one_put_is_sent_chunks(
    repository: Repository, wire: WireRegistry, status: int
) -> None:
    big = BLOB * 7  # 21 MB: three chunks
    layer = Descriptor.of(big, mediatype.OCI_LAYER)
    wire.on("PUT", "/uploads/", lambda e: e.fail(status, "NO"))
    repository.push(layer, [big])
    assert wire.blobs[str(layer.digest)] == big
    ranges = [seen.headers["content-range"] for seen in wire.requests("PATCH")]
    assert ranges == ["0-8388607", "8388608-16777215", f"16777216-{len(big) - 1}"]


def test_a_connection_that_breaks_over_one_put_twice_makes_us_send_chunks(
    repository: Repository, wire: WireRegistry
) -> None:
    wire.on("early PUT", "/uploads/", lambda e: e.drop(), times=2)
    repository.push(LAYER, [BLOB])
    assert wire.blobs[str(LAYER.digest)] == BLOB
    assert len(wire.requests("PATCH")) == 1


def test_a_chunk_that_broke_is_continued_where_the_registry_has_it(repository: Repository, wire: WireRegistry) -> None:
    wire.on("PUT", "/uploads/", lambda e: e.fail(413, "NO"))

    def store_some_and_fail(exchange: Exchange) -> bool:
        wire.uploads["u1"] += exchange.body[:1000]
        return exchange.fail(500, "UNKNOWN")

    wire.on("PATCH", "/uploads/", store_some_and_fail)
    repository.push(LAYER, [BLOB])
    assert wire.blobs[str(LAYER.digest)] == BLOB
    assert wire.requests("PATCH")[1].headers["content-range"] == f"1000-{len(BLOB) - 1}"
    assert len(wire.requests("GET", "/uploads/")) == 1


def test_a_chunk_that_was_stored_though_the_answer_got_lost_is_not_sent_again(
    repository: Repository, wire: WireRegistry
) -> None:
    wire.on("PUT", "/uploads/", lambda e: e.fail(413, "NO"))

    def store_and_drop(exchange: Exchange) -> bool:
        wire.uploads["u1"] += exchange.body
        return exchange.drop()

    wire.on("PATCH", "/uploads/", store_and_drop)
    repository.push(LAYER, [BLOB])
    assert len(wire.requests("PATCH")) == 1
    assert wire.blobs[str(LAYER.digest)] == BLOB


def test_a_digest_the_registry_disputes_is_a_verification_error(repository: Repository, wire: WireRegistry) -> None:
    wire.on("PUT", "/uploads/", lambda e: e.fail(400, "DIGEST_INVALID"))
    with pytest.raises(VerificationError, match="DIGEST_INVALID"):
        repository.push(LAYER, [BLOB])


def test_an_upload_that_fails_for_good_is_cancelled(repository: Repository, wire: WireRegistry) -> None:
    with pytest.raises(SizeMismatch):
        repository.push(LAYER, [BLOB[:-1]])
    assert not wire.uploads


@pytest.mark.parametrize("form", ["absolute", "relative", "query"])
def test_every_form_of_an_upload_location_works(repository: Repository, wire: WireRegistry, form: str) -> None:
    wire.uploads["mine"] = bytearray()
    path = "/v2/a/b/blobs/uploads/mine"
    location = {"absolute": wire.url + path, "relative": "mine", "query": f"{path}?x=1&_state=%3D%2F"}[form]
    wire.on("POST", "/uploads/", lambda e: e.answer(202, b"", {"Location": location}))
    repository.push(LAYER, [BLOB])
    put = wire.requests("PUT")[0].path
    query = "?x=1&_state=%3D%2F&" if form == "query" else "?"
    assert put == f"{path}{query}digest={LAYER.digest}"


@pytest.mark.parametrize("location", ["", "ftp://x/y", "http://[bad", "http://user:pw@host/"])
def test_an_unusable_upload_location_is_an_error(repository: Repository, wire: WireRegistry, location: str) -> None:
    wire.on("POST", "/uploads/", lambda e: e.answer(202, b"", {"Location": location}))
    with pytest.raises(NetworkError, match=r"Location|no http URL"):
        repository.push(LAYER, [BLOB])


def test_a_registry_that_has_less_than_it_confirmed_is_not_trusted_with_the_rest(
    repository: Repository, wire: WireRegistry
) -> None:
    big = BLOB * 7
    layer = Descriptor.of(big, mediatype.OCI_LAYER)
    wire.on("PUT", "/uploads/", lambda e: e.fail(413, "NO"))

    def forget(exchange: Exchange) -> bool:
        if exchange.headers["Content-Range"].startswith("0-"):
            return False
        wire.uploads["u1"].clear()
        return exchange.fail(500, "UNKNOWN")

    wire.on("PATCH", "/uploads/", forget, times=2)
    with pytest.raises(NetworkError, match="the registry has 1 bytes, we sent 16777216"):
        repository.push(layer, [big])
    assert not wire.blobs
