"""zstd:chunked between us and skopeo: what it writes we read by its table, what we write it reads as zstd."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.image.image import load, open_tar
from imagetool.layer.annotations import CHUNKED_CHECKSUM, OLD_NAMES
from imagetool.layer.toc import compare, is_partial, read_toc
from tests.support.command import imagetool

pytestmark = pytest.mark.peer


@pytest.fixture
def context(tmp_path: Path) -> Path:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    folder = tmp_path / "context"
    (folder / "data/deep").mkdir(parents=True)
    noise = random.Random(3)
    for number in range(60):
        (folder / f"data/deep/{number}").write_bytes(noise.randbytes(number) * number)
    (folder / "data/big").write_bytes(noise.randbytes(1_000) * 7_000)
    (folder / "data/link").symlink_to("deep/7")
    (folder / "data/again").hardlink_to(folder / "data/deep/9")
    (folder / "data" / ("long" * 40)).write_text("x")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
    return folder


def build(context: Path, place: Path, compression: str) -> None:
    imagetool(
        "build", "--compression", compression, "-o", f"type=oci,dest={place}", context, root=place.parent / "root"
    )


def skopeo(*args: str | Path) -> None:
    subprocess.run(["skopeo", "copy", "-q", *args], check=True, capture_output=True)


def test_the_table_of_contents_that_skopeo_writes_is_read_and_agrees_with_its_tar(
    context: Path, tmp_path: Path
) -> None:
    build(context, tmp_path / "plain", "none")
    theirs = tmp_path / "theirs"
    skopeo("--dest-compress-format", "zstd:chunked", f"oci:{tmp_path / 'plain'}", f"oci:{theirs}:app")
    imagetool("verify", f"oci:{theirs}:app", root=tmp_path / "root")
    store = LayoutStore.open(theirs)
    image = load(store, store.resolve("app"))
    (layer,) = image.layers
    annotations = layer.descriptor.annotations
    assert is_partial(layer.descriptor)
    assert annotations.keys() & {CHUNKED_CHECKSUM, OLD_NAMES[CHUNKED_CHECKSUM]}
    blob = (theirs / "blobs/sha256" / layer.descriptor.digest.hex).read_bytes()
    toc = read_toc(lambda at, size: blob[at : at + size], len(blob), annotations, where="theirs")
    assert {entry.name for entry in toc} >= {b"data/deep/59", b"data/big", b"data/link", b"data/" + b"long" * 40}
    with open_tar(store, layer) as tar:
        assert list(compare(toc, tar, where="theirs")) == []
    again = tmp_path / "again"
    imagetool("copy", "--compression", "zstd", f"oci:{theirs}:app", f"oci:{again}:app", root=tmp_path / "root")
    store = LayoutStore.open(again)
    assert not any(is_partial(one.descriptor) for one in load(store, store.resolve("app")).layers)


@pytest.mark.parametrize("compression", ["zstd:chunked", "zstd:chunked:19", "zstd", "zstd:13", "zstd:3:long", "gzip:6"])
def test_skopeo_gets_the_very_same_tar_of_what_we_compressed(context: Path, tmp_path: Path, compression: str) -> None:
    build(context, tmp_path / "ours", compression)
    skopeo("--dest-decompress", f"oci:{tmp_path / 'ours'}", f"dir:{tmp_path / 'plain'}")
    manifest = json.loads((tmp_path / "plain/manifest.json").read_text())
    config = json.loads((tmp_path / "plain" / manifest["config"]["digest"].partition(":")[2]).read_text())
    found = [
        hashlib.sha256((tmp_path / "plain" / layer["digest"].partition(":")[2]).read_bytes()).hexdigest()
        for layer in manifest["layers"]
    ]
    assert [f"sha256:{digest}" for digest in found] == config["rootfs"]["diff_ids"]
