"""How many requests a copy costs, and which blobs it need not send."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from imagetool.transfer import FolderOrigins, copy
from tests.support.images import add_image
from tests.support.wire import WireRegistry, token_server
from tests.unit.transfer.registries import opened

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
