"""Images: read from a store, chosen out of an index, made in one."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool import limits
from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.errors import DigestMismatch, InvalidDocument, LimitExceeded, NotFound
from imagetool.image.append import append_layer
from imagetool.image.image import Image, Layer, load, open_tar, select
from imagetool.image.write import tar_digest, write_image, write_layer
from imagetool.layer.tarcodec import write
from imagetool.oci import mediatype
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from tests.support.images import add_image, add_index
from tests.support.workshop import file, folder, texts


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def layer(store: MemoryStore, name: str, codec: Codec | None = None) -> Layer:
    return write_layer(write([file(name, name * 10)]), store, codec or Codec())


def entry(platform: str, number: int = 0, **annotations: str) -> Descriptor:
    found = Platform(*platform.split("/")) if platform else None
    digest = Digest.of(f"{platform} {number}".encode())
    return Descriptor(mediatype.OCI_MANIFEST, digest, 2, annotations, found)


# -- written and read --------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["none", "gzip", "zstd"])
def test_a_layer_is_hashed_twice_and_stored_once(store: MemoryStore, format_: str) -> None:
    tar = b"".join(write([folder("d"), file("d/f", "text" * 1000)]))
    codec = Codec(format_)  # type: ignore[arg-type]
    made = write_layer([tar[:100], tar[100:]], store, codec)
    blob = store.blobs[made.descriptor.digest]
    assert made.diff_id.hex == hashlib.sha256(tar).hexdigest()
    assert made.descriptor.digest.hex == hashlib.sha256(blob).hexdigest()
    assert made.descriptor.size == len(blob)
    assert made.descriptor.media_type == mediatype.OCI_LAYER_OF[format_]
    assert list(store.blobs) == [made.descriptor.digest]
    with open_tar(store, made) as chunks:
        assert b"".join(chunks) == tar
    assert tar_digest([tar]) == made.diff_id


def test_a_tar_that_ends_in_an_error_stores_nothing(store: MemoryStore) -> None:
    def broken() -> Any:
        yield bytes(1 << 20)
        yield bytes(1 << 20)
        yield bytes(1 << 20)
        raise NotFound("the disk went away")

    with pytest.raises(NotFound, match="went away"):
        write_layer(broken(), store, Codec())
    assert store.blobs == {}


def test_an_image_is_read_as_it_was_written(store: MemoryStore) -> None:
    layers = [layer(store, "a"), layer(store, "b")]
    config = ImageConfig.make(
        platform=Platform(), run=RunConfig(user="x"), diff_ids=[each.diff_id for each in layers], history=[], created=""
    )
    manifest = write_image(store, config, layers)
    image = load(store, manifest.descriptor)
    assert (image.manifest, image.config, image.layers) == (manifest, config, tuple(layers))
    assert image.descriptor == manifest.descriptor
    assert texts(image) == {"a": "a" * 10, "b": "b" * 10}


def test_the_chain_is_that_of_the_specification(store: MemoryStore) -> None:
    image = load(store, add_image(store, layers=3))
    ids = [str(each.diff_id) for each in image.layers]
    wanted = [ids[0]]
    for each in ids[1:]:
        wanted.append("sha256:" + hashlib.sha256(f"{wanted[-1]} {each}".encode()).hexdigest())
    assert [str(each) for each in image.chain] == wanted


def test_an_image_without_layers_has_no_chain(store: MemoryStore) -> None:
    image = load(store, add_image(store, layers=0))
    assert image.chain == ()
    assert image.openers() == []


def test_another_tar_than_the_diff_id_says_is_told_at_its_end(store: MemoryStore) -> None:
    made = layer(store, "a")
    wrong = Layer(made.descriptor, Digest.of(b"other"))
    with open_tar(store, wrong) as chunks, pytest.raises(DigestMismatch) as refused:
        list(chunks)
    assert str(made.descriptor.digest) in str(refused.value)
    assert refused.value.got == str(made.diff_id)


def test_the_openers_name_their_layers(store: MemoryStore) -> None:
    image = load(store, add_image(store, layers=2))
    assert [where for _, where in image.openers()] == [f"layer {each.descriptor.digest}" for each in image.layers]


# -- what cannot be an image -------------------------------------------------------------------


def test_manifest_and_config_must_have_as_many_layers(store: MemoryStore) -> None:
    good = load(store, add_image(store, layers=2))
    manifest = Manifest.make(good.config.descriptor, [good.layers[0].descriptor])
    root = push_bytes(store, manifest.raw, manifest.media_type)
    with pytest.raises(InvalidDocument, match="1 layers, but its config has 2 diff IDs") as refused:
        load(store, root)
    assert str(root.digest) in str(refused.value)


def test_an_artifact_is_not_an_image_and_the_error_says_what_it_is(store: MemoryStore) -> None:
    empty = push_bytes(store, b"{}", mediatype.OCI_EMPTY)
    manifest = Manifest.make(empty, [])
    root = push_bytes(store, manifest.raw, manifest.media_type)
    with pytest.raises(InvalidDocument, match=r"is an artifact of type application/vnd\.oci\.empty.*not an image"):
        load(store, root)


@pytest.mark.parametrize("part", ["manifest", "config"])
def test_a_missing_document_is_named(store: MemoryStore, part: str) -> None:
    root = add_image(store)
    digest = root.digest if part == "manifest" else load(store, root).config.descriptor.digest
    del store.blobs[digest]
    with pytest.raises(NotFound, match=str(digest)):
        load(store, root)


@pytest.mark.parametrize("part", ["manifest", "config"])
def test_a_changed_document_is_refused(store: MemoryStore, part: str) -> None:
    root = add_image(store)
    digest = root.digest if part == "manifest" else load(store, root).config.descriptor.digest
    store.blobs[digest] = store.blobs[digest].replace(b"a", b"b", 1)
    with pytest.raises(DigestMismatch):
        load(store, root)


def nested(store: MemoryStore, root: Descriptor, depth: int) -> Descriptor:
    for _ in range(depth):
        index = Index.make([Descriptor(root.media_type, root.digest, root.size, platform=Platform())])
        root = push_bytes(store, index.raw, index.media_type)
    return root


def test_indexes_may_be_nested_so_deep_and_no_deeper(store: MemoryStore) -> None:
    image = add_image(store)
    assert load(store, nested(store, image, limits.INDEX_DEPTH)).descriptor.digest == image.digest
    with pytest.raises(LimitExceeded, match="nested deeper than the limit index-depth=4,"):
        load(store, nested(store, image, limits.INDEX_DEPTH + 1))


# -- which image of an index -------------------------------------------------------------------


def test_the_image_for_the_platform_is_read(store: MemoryStore) -> None:
    root = add_index(store, ["linux/amd64", "linux/arm64", "linux/arm/v7"])
    for name in ("linux/arm64", "linux/arm64/v8", "linux/amd64", "linux/arm/v7", "linux/arm"):
        assert load(store, root, platform=Platform.parse(name)).config.platform.normal() == Platform.parse(name)
    assert load(store, root).config.platform == Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("have", "wanted", "number"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64", 1),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["linux/arm64"], "linux/arm64/v8", 0),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm", 1),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", 0),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
        (["windows/amd64", "linux/amd64"], "linux/amd64", 1),
        ([""], "linux/s390x", 0),
    ],
)
def test_selection(have: list[str], wanted: str, number: int) -> None:
    entries = [entry(name, index) for index, name in enumerate(have)]
    assert select(Index.make(entries), Platform.parse(wanted), where="x").digest == entries[number].digest


@pytest.mark.parametrize(
    ("have", "wanted", "listed"),
    [
        (["linux/arm64", "linux/amd64"], "linux/s390x", "linux/amd64, linux/arm64"),
        (["windows/amd64"], "linux/amd64", "windows/amd64"),
        (["linux/arm/v6"], "linux/arm/v7", "linux/arm/v6"),
        (["", ""], "linux/amd64", "none that says so"),
        ([], "linux/amd64", "none that says so"),
    ],
)
def test_an_index_without_the_platform_says_what_it_has(have: list[str], wanted: str, listed: str) -> None:
    index = Index.make([entry(name, number) for number, name in enumerate(have)])
    with pytest.raises(NotFound) as refused:
        select(index, Platform.parse(wanted), where="index sha256:abc")
    assert str(refused.value) == f"index sha256:abc has no image for {wanted}; it has: {listed}"


def test_attestations_are_not_images() -> None:
    about = {"vnd.docker.reference.type": "attestation-manifest"}
    image, note = entry("linux/amd64"), entry("linux/amd64", 1, **about)
    assert select(Index.make([note, image]), Platform(), where="x").digest == image.digest
    with pytest.raises(NotFound):
        select(Index.make([note]), Platform(), where="x")


def test_windows_versions_are_told_apart() -> None:
    entries = [
        Descriptor(mediatype.OCI_MANIFEST, Digest.of(text.encode()), 1, platform=Platform("windows", "amd64", "", text))
        for text in ("10.0.17763", "10.0.20348")
    ]
    wanted = Platform("windows", "amd64", "", "10.0.20348")
    assert select(Index.make(entries), wanted, where="x").digest == entries[1].digest


_platforms = st.sampled_from(
    ["linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7", "windows/amd64", "linux/386"]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(_platforms, max_size=6), _platforms)
def test_the_first_that_fits_is_taken_whatever_stands_around_it(have: list[str], wanted: str) -> None:
    entries = [entry(name, number) for number, name in enumerate(have)]
    if wanted not in have:
        with pytest.raises(NotFound):
            select(Index.make(entries), Platform.parse(wanted), where="x")
        return
    found = select(Index.make(entries), Platform.parse(wanted), where="x")
    assert found.digest == entries[have.index(wanted)].digest


# -- one layer more ----------------------------------------------------------------------------


def based(store: MemoryStore, history: list[History], *, docker: bool = False, unknown: bool = False) -> Image:
    first = layer(store, "a")
    config = ImageConfig.make(
        platform=Platform(), run=RunConfig(), diff_ids=[first.diff_id], history=history, created="2020-01-01T00:00:00Z",
        extra={"moby.later": {"x": 1.0}} if unknown else {},
    )  # fmt: skip
    manifest = write_image(store, config, [first])
    if docker:
        raw = manifest.raw
        for oci, other in (
            (mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST),
            (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG),
            (mediatype.OCI_LAYER_GZIP, mediatype.DOCKER_LAYER_GZIP),
        ):
            raw = raw.replace(oci.encode(), other.encode())
        return load(store, push_bytes(store, raw, mediatype.DOCKER_MANIFEST))
    return load(store, manifest.descriptor)


STEP = History("2021-01-01T00:00:00Z", "COPY b")


@pytest.mark.parametrize("docker", [False, True])
def test_a_layer_on_top(store: MemoryStore, docker: bool) -> None:
    before = based(store, [History("2020-01-01T00:00:00Z", "FROM")], docker=docker, unknown=True)
    after = append_layer(before, layer(store, "b"), STEP, store)
    assert load(store, after.descriptor) == after
    assert after.layers[0] == before.layers[0]
    assert texts(after) == {"a": "a" * 10, "b": "b" * 10}
    assert [step.created_by for step in after.config.history] == ["FROM", "COPY b"]
    assert after.config.created == STEP.created
    assert b'"moby.later":{"x":1.0}' in after.config.raw
    assert after.manifest.media_type == before.manifest.media_type
    kinds = {each.media_type for each in after.manifest.layers}
    assert kinds == {mediatype.DOCKER_LAYER_GZIP if docker else mediatype.OCI_LAYER_GZIP}
    assert after.config.media_type == (mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG)


def test_a_history_that_tells_of_no_layer_does_not_begin_to(store: MemoryStore) -> None:
    after = append_layer(based(store, []), layer(store, "b"), STEP, store)
    assert after.config.history == ()
    assert len(after.config.diff_ids) == 2


def test_a_layer_can_be_read_by_tar(store: MemoryStore) -> None:
    image = load(store, based(store, []).descriptor)
    with image.openers()[0][0]() as chunks:
        members = tarfile.open(fileobj=io.BytesIO(b"".join(chunks))).getnames()
    assert members == ["a"]
