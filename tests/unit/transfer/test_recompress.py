"""Layers compressed anew: the same image in other blobs, whatever kind of document it stands in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.content.store import fetch_bytes, push_bytes
from imagetool.errors import DigestMismatch
from imagetool.image.image import load, open_tar
from imagetool.image.verify import verify
from imagetool.image.write import write_image, write_layer
from imagetool.layer.annotations import CHUNKED_CHECKSUM
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.progress import BlobAdvanced, BlobFinished, BlobStarted, Event
from imagetool.streams.codecs import Codec, sniff
from imagetool.transfer import copy
from imagetool.transfer.recompress import recompress
from tests.support import tars
from tests.support.command import imagetool


def tar_of(name: str, size: int = 3000) -> bytes:
    return tars.file(name.encode(), name.encode() * (size // len(name))) + tars.END


def add(store: Any, *tars_: bytes, spec: str = "gzip", platform: str = "linux/amd64") -> Descriptor:
    layers = [write_layer([tar], store, Codec.parse(spec)) for tar in tars_]
    config = ImageConfig.make(
        platform=Platform.parse(platform),
        run=RunConfig(),
        diff_ids=[layer.diff_id for layer in layers],
        history=[],
        created="",
    )
    return write_image(store, config, layers).descriptor


def as_docker(store: MemoryStore, root: Descriptor) -> Descriptor:
    """Store an OCI image's manifest as Docker's."""
    text = fetch_bytes(store, root).decode()
    for oci, docker in (
        (mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST),
        (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG),
        (mediatype.OCI_LAYER_GZIP, mediatype.DOCKER_LAYER_GZIP),
    ):
        text = text.replace(oci, docker)
    return push_bytes(store, text.encode(), mediatype.DOCKER_MANIFEST)


def kinds(store: Any, root: Descriptor) -> list[str]:
    """Return the format each layer really has."""
    found = []
    for layer in load(store, root).layers:
        with store.fetch(layer.descriptor) as chunks:
            found.append(sniff(next(chunks)[:6]))
    return found


def tars_in(store: Any, root: Descriptor) -> list[bytes]:
    found = []
    for layer in load(store, root).layers:
        with open_tar(store, layer) as tar:
            found.append(b"".join(tar))
    return found


@pytest.mark.parametrize("before", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("after", ["none", "gzip:9", "zstd:5"])
def test_the_tars_and_the_image_id_stay(before: str, after: str) -> None:
    source, scratch = MemoryStore(), MemoryStore()
    tars_ = [tar_of("one"), tar_of("two", 3_000_000)]
    root = add(source, *tars_, spec=before)
    made = recompress(source, root, scratch, Codec.parse(after))
    destination = MemoryStore()
    copy(made.content, destination, made.root, tags=["x"])
    assert kinds(destination, made.root) == [after.partition(":")[0]] * 2
    assert tars_in(destination, made.root) == tars_
    assert load(destination, made.root).config.raw == load(source, root).config.raw
    assert [check.problem for check in verify(destination, made.root) if check.problem] == []
    name = after.partition(":")[0]
    assert {layer.media_type for layer in load(destination, made.root).manifest.layers} == {
        mediatype.OCI_LAYER_OF[name]
    }
    assert (made.layers == ()) == (before == after)


def test_layers_that_are_so_already_keep_their_bytes() -> None:
    source, scratch = MemoryStore(), MemoryStore()
    root = add(source, tar_of("one"), tar_of("two"), spec="zstd:19")
    made = recompress(source, root, scratch, Codec.parse("zstd"))
    assert (made.root, made.layers, scratch.blobs) == (root, (), {})
    assert recompress(source, root, scratch, Codec.parse("zstd:1")).layers


def test_the_bytes_decide_and_not_the_media_type() -> None:
    source, scratch = MemoryStore(), MemoryStore()
    honest = fetch_bytes(source, add(source, tar_of("one"), spec="none"))
    lying = honest.replace(b'layer.v1.tar"', b'layer.v1.tar+zstd"')
    assert lying != honest
    root = push_bytes(source, lying, mediatype.OCI_MANIFEST)
    made = recompress(source, root, scratch, Codec.parse("zstd"))
    assert kinds(made.content, made.root) == ["zstd"]


def test_unknown_fields_of_the_manifest_survive_to_the_byte() -> None:
    source, scratch = MemoryStore(), MemoryStore()
    tree = json.loads(fetch_bytes(source, add(source, tar_of("one"))))
    tree["layers"][0] |= {"annotations": {"mine": "yes", CHUNKED_CHECKSUM: "sha256:old"}, "data": "AA==", "x-own": 1.50}
    raw = json.dumps(tree).replace('"schemaVersion"', '"x-odd" : 1.50,  "schemaVersion"').encode()
    root = push_bytes(source, raw, mediatype.OCI_MANIFEST)
    made = recompress(source, root, scratch, Codec.parse("zstd"))
    new = fetch_bytes(made.content, made.root)
    assert b'"x-odd" : 1.50,  "schemaVersion"' in new
    layer = json.loads(new)["layers"][0]
    assert layer["annotations"] == {"mine": "yes"}
    assert "data" not in layer
    assert layer["x-own"] == 1.50


def test_docker_manifests_stay_docker_s_but_for_zstd() -> None:
    source = MemoryStore()
    root = as_docker(source, add(source, tar_of("one"), spec="gzip"))
    plain = recompress(source, root, MemoryStore(), Codec.parse("none"))
    manifest = load(plain.content, plain.root).manifest
    assert (manifest.media_type, manifest.layers[0].media_type) == (mediatype.DOCKER_MANIFEST, mediatype.DOCKER_LAYER)
    zstd = recompress(source, root, MemoryStore(), Codec.parse("zstd"))
    manifest = load(zstd.content, zstd.root).manifest
    assert zstd.root.media_type == manifest.media_type == mediatype.OCI_MANIFEST
    assert manifest.config.media_type == mediatype.OCI_CONFIG
    assert manifest.config.digest == load(source, root).manifest.config.digest
    assert manifest.layers[0].media_type == mediatype.OCI_LAYER_ZSTD


def test_an_index_gets_new_entries_and_its_attestations_follow() -> None:
    source, scratch = MemoryStore(), MemoryStore()
    shared = tar_of("shared")
    images = [add(source, shared, tar_of(name), platform=f"linux/{name}") for name in ("amd64", "arm64")]
    blob = push_bytes(source, b"{}", "application/vnd.in-toto+json")
    empty = push_bytes(source, b"{} ", mediatype.OCI_EMPTY)
    statement = Manifest.make(empty, [blob])
    push_bytes(source, statement.raw, statement.media_type)
    entries = [
        Descriptor(image.media_type, image.digest, image.size, platform=Platform.parse(f"linux/{name}"))
        for image, name in zip(images, ("amd64", "arm64"), strict=True)
    ]
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": str(images[0].digest)}
    entries.append(Descriptor(statement.media_type, statement.descriptor.digest, len(statement.raw), about))
    index = Index.make(entries)
    root = push_bytes(source, index.raw, index.media_type)
    made = recompress(source, root, scratch, Codec.parse("zstd"))
    assert len(made.layers) == 3, "the shared layer is compressed once"
    new = Index.parse(fetch_bytes(made.content, made.root))
    assert [str(entry.platform) for entry in new.manifests[:2]] == ["linux/amd64", "linux/arm64"]
    assert new.manifests[2].digest == statement.descriptor.digest
    assert new.manifests[2].annotations["vnd.docker.reference.digest"] == str(new.manifests[0].digest)
    destination = MemoryStore()
    copy(made.content, destination, made.root)
    assert [check.problem for check in verify(destination, made.root) if check.problem] == []
    one = recompress(source, root, MemoryStore(), Codec.parse("zstd"), platform=Platform.parse("linux/arm64"))
    assert one.root.digest == new.manifests[1].digest


def test_layers_that_may_not_be_distributed_stay() -> None:
    source = MemoryStore()
    raw = fetch_bytes(source, add(source, tar_of("one"))).replace(b"layer.v1", b"layer.nondistributable.v1")
    root = push_bytes(source, raw, mediatype.OCI_MANIFEST)
    assert recompress(source, root, MemoryStore(), Codec.parse("zstd")).root == root


def test_a_layer_that_is_not_its_diff_id_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source, scratch = MemoryStore(), LayoutStore.create(tmp_path)
    layers = [write_layer([tar_of(name, 4_000_000)], source, Codec()) for name in ("one", "two")]
    config = ImageConfig.make(
        platform=Platform(), run=RunConfig(), diff_ids=[layers[0].diff_id] * 2, history=[], created=""
    )
    root = write_image(source, config, layers).descriptor
    with pytest.raises(DigestMismatch, match="uncompressed") as refused:
        recompress(source, root, scratch, Codec.parse("zstd"))
    assert "while compressing layer" in "".join(refused.value.__notes__)
    assert len(list((tmp_path / "blobs/sha256").iterdir())) <= 1
    assert not (tmp_path / ".staging").exists()


def test_progress_tells_of_the_blobs_that_are_read() -> None:
    source = MemoryStore()
    root = add(source, tar_of("one", 5_000_000), spec="none")
    seen: list[Event] = []
    made = recompress(source, root, MemoryStore(), Codec.parse("zstd"), observer=seen.append)
    (before, _), *_ = made.layers
    assert seen[0] == BlobStarted(str(before.digest), before.size, "layer", "copy")
    assert sum(event.amount for event in seen if isinstance(event, BlobAdvanced)) == before.size
    assert seen[-1] == BlobFinished(str(before.digest), "done")


@pytest.mark.parametrize("place", ["oci:{}:app", "oci-archive:{}.tar:app", "dir:{}"])
def test_copy_compresses_anew_on_request_and_says_what_changed(place: str, tmp_path: Path) -> None:
    store = LayoutStore.create(tmp_path / "source")
    root = add(store, tar_of("one"))
    store.tag(root, "app")
    source, target = f"oci:{tmp_path / 'source'}:app", place.format(tmp_path / "made")
    done = imagetool("copy", "--compression", "zstd", source, target, root=tmp_path / "root")
    assert done.stdout.strip() != str(root.digest)
    assert f"image {root.digest} → {done.stdout.strip()}" in done.stderr
    assert "FAILED" not in imagetool("verify", target, root=tmp_path / "root").stdout
    back = imagetool("copy", source, target.replace("made", "same"), root=tmp_path / "root")
    assert back.stdout.strip() == str(root.digest)
    assert "→" not in back.stderr


def test_reproducible_compression_gives_the_same_digest_from_any_compression(tmp_path: Path) -> None:
    digests = set()
    for spec in ("none", "gzip", "zstd"):
        store = LayoutStore.create(tmp_path / spec)
        store.tag(add(store, tar_of("one", 2_500_000), spec=spec), "app")
        places = (f"oci:{tmp_path / spec}:app", f"oci:{tmp_path / 'out'}:{spec}")
        options = ("--compression", "gzip:1", "--reproducible-compression")
        digests.add(imagetool("copy", *options, *places, root=tmp_path / "root").stdout)
    assert digests == {"sha256:c7e2bd3710aad60edb5147445f806d377b060216c55b264db21f3ab2a0d6625b\n"}


def test_zstd_cannot_be_reproducible(tmp_path: Path) -> None:
    options = ("--compression", "zstd", "--reproducible-compression")
    done = imagetool("copy", *options, "oci:a", "oci:b", root=tmp_path, check=False)
    assert done.returncode == 2
    assert "reproducible compression is gzip[:0-9] or none" in done.stderr
