"""Manifests and indexes over their raw bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagetool import limits
from imagetool.errors import InvalidDocument, LimitExceeded, Unsupported
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest, parse
from imagetool.oci.platform import Platform

BLOB = {"mediaType": "x/y", "digest": str(Digest.of(b"x")), "size": 1}


def manifest(**fields: Any) -> bytes:
    tree = {"schemaVersion": 2, "config": BLOB, "layers": [BLOB], **fields}
    return json.dumps({key: value for key, value in tree.items() if value is not ...}, indent=1).encode()


def index(**fields: Any) -> bytes:
    tree = {"schemaVersion": 2, "manifests": [BLOB], **fields}
    return json.dumps({key: value for key, value in tree.items() if value is not ...}, indent=1).encode()


def test_a_manifest_keeps_its_bytes_and_its_digest() -> None:
    raw = manifest(unknown={"kept": 1.0}, annotations={"a": "b"})
    found = parse(raw, media_type=f"{mediatype.OCI_MANIFEST}; charset=utf-8")
    assert isinstance(found, Manifest)
    assert found.raw == raw
    assert found.descriptor == Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw))
    assert [child.size for child in found.children] == [1, 1]
    assert found.annotations == {"a": "b"}


@pytest.mark.parametrize(
    ("raw", "claimed", "kind"),
    [
        (manifest(), "", Manifest),
        (manifest(mediaType=mediatype.DOCKER_MANIFEST), "", Manifest),
        (index(), "", Index),
        (index(mediaType=mediatype.DOCKER_INDEX), mediatype.DOCKER_INDEX, Index),
        (index(subject=BLOB), mediatype.OCI_INDEX, Index),
    ],
)
def test_the_kind_is_told_by_the_carrier_then_the_document(raw: bytes, claimed: str, kind: type) -> None:
    assert type(parse(raw, media_type=claimed)) is kind


@pytest.mark.parametrize(
    ("raw", "claimed", "text"),
    [
        (manifest(manifests=[BLOB]), "", "another kind"),
        (index(layers=[BLOB]), "", "another kind"),
        (index(config=BLOB), mediatype.OCI_INDEX, "another kind"),
        (manifest(fsLayers=[]), "", "another kind"),
        (manifest(), mediatype.OCI_INDEX, "another kind"),
        (manifest(mediaType=mediatype.OCI_MANIFEST), mediatype.DOCKER_MANIFEST, "was delivered as"),
        (manifest(mediaType="text/plain"), "", "neither a manifest nor an index"),
        (manifest(schemaVersion=3), "", r"$.schemaVersion is 3"),
        (manifest(schemaVersion=...), "", r"$.schemaVersion is missing"),
        (manifest(config=...), "", "$.config"),
        (manifest(layers={}), "", "$.layers is an object, expected an array"),
        (manifest(layers=[BLOB, {**BLOB, "size": -1}]), "", "$.layers[1].size is negative"),
        (manifest(layers=[{**BLOB, "digest": "sha256:x"}]), "", "$.layers[0].digest"),
        (manifest(layers=[{**BLOB, "size": True}]), "", "$.layers[0].size is a boolean"),
        (manifest(config={**BLOB, "mediaType": 1}), "", "$.config.mediaType is an integer"),
        (manifest(subject=[]), "", "$.subject is an array"),
        (manifest(annotations={"a": 1}), "", "$.annotations.a is an integer"),
        (index(manifests=[{**BLOB, "platform": 1}]), "", "$.manifests[0].platform is an integer"),
    ],
)
def test_what_is_refused_and_where(raw: bytes, claimed: str, text: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse(raw, media_type=claimed, what="doc")
    assert text in str(refused.value)
    assert str(refused.value).startswith("doc: ")


def test_schema_1_is_unsupported_and_says_what_to_do() -> None:
    with pytest.raises(Unsupported, match="push the image again"):
        parse(b'{"schemaVersion":1,"fsLayers":[]}')


def test_layers_and_manifests_at_their_bounds() -> None:
    assert len(Manifest.parse(manifest(layers=[BLOB] * limits.IMAGE_LAYERS)).layers) == limits.IMAGE_LAYERS
    with pytest.raises(LimitExceeded, match="layers"):
        Manifest.parse(manifest(layers=[BLOB] * (limits.IMAGE_LAYERS + 1)))
    assert Index.parse(index(manifests=[BLOB] * limits.INDEX_MANIFESTS))
    with pytest.raises(LimitExceeded, match="manifests"):
        Index.parse(index(manifests=[BLOB] * (limits.INDEX_MANIFESTS + 1)))


def test_other_entries_of_an_edited_index_keep_their_bytes() -> None:
    raw = (
        b'{ "schemaVersion": 2, "x": 1.50,\n "manifests": '
        b'[ {"mediaType":"a/b", "digest":"%b" ,"size":1, "u":"\\u0041"} ] }' % str(Digest.of(b"x")).encode()
    )
    before = Index.parse(raw)
    new = Descriptor("c/d", Digest.of(b"y"), 1, platform=Platform("linux", "arm64"))
    after = before.with_manifests([*before.manifests, new])
    start, entry = raw.removesuffix(b" ] }").split(b"[ ")
    assert after.raw.startswith(start + b"[" + entry + b",{")
    assert after.manifests[1].platform == Platform("linux", "arm64")
    assert after.with_manifests([before.manifests[0]]).manifests == before.manifests
    assert before.with_manifests([]).manifests == ()


def test_a_descriptor_keeps_unknown_fields_and_compares_by_identity() -> None:
    tree = {**BLOB, "annotations": {"k": "v"}, "urls": ["https://x"], "data": "eA==", "artifactType": "t/u"}
    found = Descriptor.read(tree, path="$", what="doc")
    assert found.tree() == tree
    assert found == Descriptor("x/y", Digest.of(b"x"), 1)
    assert found != Descriptor("x/z", Digest.of(b"x"), 1)
    with pytest.raises(InvalidDocument, match="size is -1"):
        Descriptor("x/y", Digest.of(b"x"), -1)


def test_what_we_make_is_canonical() -> None:
    config, layer = Descriptor.of(b"{}", mediatype.OCI_CONFIG), Descriptor.of(b"l", mediatype.OCI_LAYER_GZIP)
    made = Manifest.make(config, [layer], annotations={"b": "2", "a": "1"})
    assert made.raw == Manifest.make(config, [layer], annotations={"a": "1", "b": "2"}).raw
    assert b" " not in made.raw
    assert json.loads(made.raw)["mediaType"] == mediatype.OCI_MANIFEST
