"""Online garbage collection over the real stores."""

from __future__ import annotations

import os
import time
from pathlib import Path

from imagetool.oci.digest import Digest
from registry_server.gc import Collected, collect
from tests.support.registry import Client


def files(root: Path) -> list[Path]:
    return [path for name in ("blobs", "uploads") for path in (root / name).rglob("*") if path.is_file()]


def test_only_what_nobody_needs_goes_and_only_after_the_grace(client: Client, tmp_path: Path) -> None:
    root = tmp_path / "registry"
    image = client.image("v1")
    before = len(files(root))
    client.blob(b"nobody's")
    client("POST", "/v2/app/blobs/uploads/")
    session = client.stores.blobs.begin()
    client.stores.blobs.append(session, 0, [b"lost"])
    client.stores.blobs.commit(session, Digest.of(b"lost"))  # and then the server died
    assert len(files(root)) == before + 3
    now = time.time()
    assert collect(client.stores, now=now, grace=60) == Collected()
    assert collect(client.stores, now=now + 120, grace=60) == Collected(blobs=1, uploads=1, orphans=1)
    assert len(files(root)) == before
    assert client("GET", f"/v2/app/manifests/{image}").status == 200
    for layer in client("GET", "/v2/app/manifests/v1").json["layers"]:
        assert client("GET", f"/v2/app/blobs/{layer['digest']}").status == 200


def test_a_collection_that_was_cut_off_is_finished_by_the_next(client: Client, tmp_path: Path) -> None:
    client.blob(b"nobody's")
    client.stores.metadata.condemn(time.time() + 60)
    assert client("GET", f"/v2/app/blobs/{Digest.of(b'nobody')}").status == 404
    assert len(files(tmp_path / "registry")) == 1
    collect(client.stores, now=time.time(), grace=3600)
    assert not files(tmp_path / "registry")
    assert not client.stores.metadata.garbage(10)


def test_a_blob_uploaded_again_while_it_is_collected_survives(client: Client) -> None:
    digest = client.blob(b"wanted after all")
    client.stores.metadata.condemn(time.time() + 60)
    assert client("HEAD", f"/v2/app/blobs/{digest}").status == 404
    client.blob(b"wanted after all")
    collect(client.stores, now=time.time(), grace=3600)
    assert client("GET", f"/v2/app/blobs/{digest}").body == b"wanted after all"


def test_the_command_cleans_a_registry(tmp_path: Path) -> None:
    from tests.support.command import imagetool

    root = tmp_path / "registry"
    client = Client.open(root)
    client.image("v1")
    client.blob(b"nobody's")
    for path in files(root):
        os.utime(path, (0, 0))
    done = imagetool("registry", "gc", "--root", root, "--grace", "0", root=tmp_path / "store")
    assert done.stderr == "removed 1 blobs, 0 uploads, 0 files without a record\n"
    missing = imagetool("registry", "gc", "--root", tmp_path / "none", root=tmp_path / "store", check=False)
    assert missing.returncode == 3
