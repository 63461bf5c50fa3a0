"""Verification finds each kind of damage, says where it is, and goes on with the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool import limits
from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.image.image import Image, load
from imagetool.image.verify import Watched, verify
from imagetool.image.write import write_image, write_layer
from imagetool.layer.tarcodec import write
from imagetool.oci import mediatype
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.progress import BlobAdvanced, BlobFinished, BlobStarted, Event
from imagetool.streams.codecs import Codec
from tests.support.workshop import file


def stored(store: MemoryStore, *names: str) -> Image:
    """Put an image of real layers into a store, one for each name."""
    layers = [write_layer(write([file(name, f"text of {name} " * 20)]), store, Codec()) for name in names]
    config = ImageConfig.make(
        platform=Platform(),
        run=RunConfig(),
        diff_ids=[each.diff_id for each in layers],
        history=[History(created_by=name) for name in names],
        created="",
    )
    return load(store, write_image(store, config, layers).descriptor)


def problems(store: MemoryStore, root: Descriptor) -> list[tuple[str, Digest, str]]:
    return [(check.what, check.descriptor.digest, check.problem) for check in verify(store, root) if check.problem]


def rewritten(store: MemoryStore, image: Image, edit: Callable[[dict[str, Any]], None], *, part: str) -> Descriptor:
    """Store the image with its config or manifest edited; every digest above is made to fit."""
    config: dict[str, Any] = json.loads(image.config.raw)
    manifest: dict[str, Any] = json.loads(image.manifest.raw)
    if part == "config":
        edit(config)
    made = push_bytes(store, json.dumps(config).encode(), mediatype.OCI_CONFIG)
    manifest["config"] = made.tree()
    if part == "manifest":
        edit(manifest)
    return push_bytes(store, json.dumps(manifest).encode(), mediatype.OCI_MANIFEST)


def test_a_whole_image_has_no_problem_and_every_part_is_looked_at() -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    checks = list(verify(store, image.descriptor))
    assert [check.what for check in checks] == ["manifest", "config", "layer", "layer"]
    assert {check.descriptor.digest for check in checks} == set(store.blobs)
    assert {check.problem for check in checks} == {""}


def test_what_an_index_attests_of_its_images_is_no_layer_but_must_be_whole() -> None:
    store = MemoryStore()
    image = stored(store, "a")
    statement = push_bytes(store, b'{"_type": "https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")
    nowhere = Platform(os="unknown", architecture="unknown")
    config = ImageConfig.make(platform=nowhere, run=RunConfig(), diff_ids=[statement.digest], history=[], created="")
    attested = Manifest.make(push_bytes(store, config.raw, mediatype.OCI_CONFIG), [statement])
    index = Index.make([image.descriptor, push_bytes(store, attested.raw, attested.media_type)])
    root = push_bytes(store, index.raw, index.media_type)
    checks = list(verify(store, root))
    assert [check.what for check in checks] == ["index", "manifest", "config", "layer", "manifest", "config", "blob"]
    assert {check.problem for check in checks} == {""}
    store.blobs[statement.digest] = store.blobs[statement.digest].replace(b"v0.1", b"v9.9")
    (found,) = problems(store, root)
    assert found[:2] == ("blob", statement.digest)


def test_an_index_is_verified_with_all_its_images() -> None:
    store = MemoryStore()
    images = [stored(store, "a", "b"), stored(store, "a", "c")]
    index = Index.make([image.descriptor for image in images])
    root = push_bytes(store, index.raw, index.media_type)
    checks = list(verify(store, root))
    assert [check.what for check in checks] == ["index", *["manifest", "config", "layer", "layer"] * 2]
    del store.blobs[images[1].layers[1].descriptor.digest]
    (found,) = problems(store, root)
    assert found[:2] == ("layer", images[1].layers[1].descriptor.digest)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_flipped_bit_of_any_blob_is_found_and_named(data: st.DataObject) -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    digest = data.draw(st.sampled_from(list(store.blobs)))
    blob = bytearray(store.blobs[digest])
    place = data.draw(st.integers(0, len(blob) - 1))
    blob[place] ^= 1 << data.draw(st.integers(0, 7))
    store.blobs[digest] = bytes(blob)
    found = problems(store, image.descriptor)
    assert [each[1] for each in found] == [digest]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_blob_that_is_longer_or_shorter_or_gone_is_found(data: st.DataObject) -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    digest = data.draw(st.sampled_from(list(store.blobs)))
    blob = store.blobs[digest]
    change = data.draw(st.sampled_from(["longer", "shorter", "gone", "empty"]))
    if change == "gone":
        del store.blobs[digest]
    else:
        store.blobs[digest] = {"longer": blob + b"\0", "shorter": blob[:-1], "empty": b""}[change]
    ((_, named, problem),) = problems(store, image.descriptor)
    assert named == digest
    assert str(digest) in problem
    if change == "gone":
        assert "is not in memory" in problem


def test_a_diff_id_that_is_not_the_tars() -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    wrong = str(Digest.of(b"other"))
    root = rewritten(store, image, lambda tree: tree["rootfs"]["diff_ids"].__setitem__(1, wrong), part="config")
    ((what, digest, problem),) = problems(store, root)
    assert (what, digest) == ("layer", image.layers[1].descriptor.digest)
    assert wrong in problem
    assert str(image.layers[1].diff_id) in problem


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_diff_ids_than_layers(count: int) -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    ids = [str(image.layers[0].diff_id), str(image.layers[1].diff_id), str(Digest.of(b"x"))][:count]

    def edit(tree: dict[str, Any]) -> None:
        tree["rootfs"]["diff_ids"] = ids
        del tree["history"]

    root = rewritten(store, image, edit, part="config")
    ((what, _, problem),) = problems(store, root)
    assert (what, problem) == ("config", f"has {count} diff IDs for 2 layers")
    assert len(list(verify(store, root))) == 4


def test_a_history_of_another_number_of_layers() -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    root = rewritten(store, image, lambda tree: tree["history"].pop(), part="config")
    checks = list(verify(store, root))
    assert [(check.what, bool(check.problem)) for check in checks] == [
        ("manifest", False),
        ("config", True),
        ("blob", False),
        ("blob", False),
    ]
    assert "$.history tells of 1 layers" in checks[1].problem


def test_layers_in_another_order() -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    root = rewritten(store, image, lambda tree: tree["layers"].reverse(), part="manifest")
    assert [what for what, *_ in problems(store, root)] == ["layer", "layer"]


@pytest.mark.parametrize(
    ("media_type", "problem"),
    [
        (mediatype.OCI_LAYER, "is gzip, its media type says none"),
        (mediatype.OCI_LAYER_ZSTD, "is gzip, its media type says zstd"),
        (mediatype.DOCKER_LAYER, "is gzip, its media type says none"),
    ],
)
def test_a_compression_that_is_not_the_media_types(media_type: str, problem: str) -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    root = rewritten(store, image, lambda tree: tree["layers"][1].__setitem__("mediaType", media_type), part="manifest")
    ((what, digest, found),) = problems(store, root)
    assert (what, digest, found) == ("layer", image.layers[1].descriptor.digest, problem)


@pytest.mark.parametrize("media_type", [mediatype.OCI_INDEX, mediatype.DOCKER_MANIFEST, "text/plain"])
def test_a_manifest_delivered_as_another_kind_of_document(media_type: str) -> None:
    store = MemoryStore()
    image = stored(store, "a")
    root = Descriptor(media_type, image.descriptor.digest, image.descriptor.size)
    ((what, digest, problem),) = problems(store, root)
    assert (what, digest) == ("document", image.descriptor.digest)
    assert "media type" in problem or "mediaType" in problem


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_a_size_that_the_parent_has_wrong(which: str) -> None:
    store = MemoryStore()
    image = stored(store, "a")
    root = image.descriptor
    if which == "manifest":
        root = Descriptor(root.media_type, root.digest, root.size + 1)
        damaged = root.digest
    else:

        def edit(tree: dict[str, Any]) -> None:
            (tree["config"] if which == "config" else tree["layers"][0])["size"] += 1

        damaged = image.layers[0].descriptor.digest
        root = rewritten(store, image, edit, part="manifest")
    ((what, digest, problem),) = problems(store, root)
    assert what == {"manifest": "document"}.get(which, which)
    if which != "config":
        assert digest == damaged
    assert "shorter" in problem


def test_a_layer_that_is_no_tar() -> None:
    store = MemoryStore()
    noise = bytes(range(256)) * 10
    layer = write_layer([noise], store, Codec())
    config = ImageConfig.make(platform=Platform(), run=RunConfig(), diff_ids=[layer.diff_id], history=[], created="")
    root = write_image(store, config, [layer]).descriptor
    ((what, digest, problem),) = problems(store, root)
    assert (what, digest) == ("layer", layer.descriptor.digest)
    assert str(digest) in problem


def test_all_damage_is_reported_not_only_the_first() -> None:
    store = MemoryStore()
    image = stored(store, "a", "b", "c")
    for number in (0, 2):
        store.blobs[image.layers[number].descriptor.digest] = b"x"
    assert [digest for _, digest, _ in problems(store, image.descriptor)] == [
        image.layers[number].descriptor.digest for number in (0, 2)
    ]


def test_an_artifact_is_verified_blob_by_blob() -> None:
    store = MemoryStore()
    empty = push_bytes(store, b"{}", mediatype.OCI_EMPTY)
    blob = push_bytes(store, b"anything at all", "text/plain")
    manifest = Manifest.make(empty, [blob])
    root = push_bytes(store, manifest.raw, manifest.media_type)
    assert [check.what for check in verify(store, root)] == ["manifest", "blob", "blob"]
    store.blobs[blob.digest] = b"anything at ALL"
    ((what, digest, _),) = problems(store, root)
    assert (what, digest) == ("blob", blob.digest)


def test_indexes_nested_without_end_are_a_problem_and_no_recursion() -> None:
    store = MemoryStore()
    root = stored(store, "a").descriptor
    for depth in range(2000):
        index = Index.make([root])
        root = push_bytes(store, index.raw, index.media_type)
        if depth + 1 == limits.INDEX_DEPTH:
            assert problems(store, root) == []
    ((what, _, problem),) = problems(store, root)
    assert what == "document"
    assert problem == f"indexes are nested deeper than {limits.named('INDEX_DEPTH')}"


def test_what_is_reached_on_many_ways_is_read_once() -> None:
    store = MemoryStore()
    image = stored(store, "a")
    root = image.descriptor
    for _ in range(limits.INDEX_DEPTH - 1):  # 1000 ** 3 ways lead to the image
        index = Index.make([root] * limits.INDEX_MANIFESTS)
        root = push_bytes(store, index.raw, index.media_type)
    events: list[Event] = []
    assert all(not check.problem for check in verify(Watched(store, events.append), root))
    started = [event.digest for event in events if isinstance(event, BlobStarted)]
    assert sorted(started) == sorted(map(str, store.blobs))


def test_progress_tells_of_every_byte() -> None:
    store = MemoryStore()
    image = stored(store, "a", "b")
    events: list[Event] = []
    list(verify(Watched(store, events.append), image.descriptor))
    sizes: dict[str, int] = {}
    for event in events:
        if isinstance(event, BlobAdvanced):
            sizes[event.digest] = sizes.get(event.digest, 0) + event.amount
    assert sizes == {str(digest): len(data) for digest, data in store.blobs.items()}
    started, finished = (
        [event.digest for event in events if isinstance(event, kind)] for kind in (BlobStarted, BlobFinished)
    )
    assert sorted(started) == sorted(finished)
