"""A large blob goes to our server and back through our client, and neither holds more than a little of it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.store import push_bytes
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest
from imagetool.oci.platform import Platform
from tests.integration.registry.test_server import serving

SIZE = 768 << 20
CEILING_KIB = 160 << 10  # of each process; an interpreter with its libraries has about 60 MiB


def add_sparse_image(layout: Path) -> None:
    """Make a layout whose one layer is a hole of SIZE bytes: large for all who read it, nothing on the disk."""
    store = LayoutStore.create(layout)
    hasher, block = hashlib.sha256(), bytes(1 << 20)
    for _ in range(SIZE >> 20):
        hasher.update(block)
    digest = Digest("sha256", hasher.hexdigest())
    with open(layout / "blobs/sha256" / digest.hex, "wb") as file:
        file.truncate(SIZE)
    config = ImageConfig.make(platform=Platform(), run=RunConfig(), diff_ids=[digest], history=[], created="")
    push_bytes(store, config.raw, mediatype.OCI_CONFIG)
    manifest = Manifest.make(config.descriptor, [Descriptor(mediatype.OCI_LAYER, digest, SIZE)])
    store.tag(push_bytes(store, manifest.raw, manifest.media_type), "big")


REPORTED = """
import sys
from imagetool.__main__ import main
try:
    main()
finally:
    print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
"""


def peak(*args: str, root: Path) -> int:
    """Run imagetool; return the most memory it held, in KiB."""
    command = [sys.executable, "-c", REPORTED, "--root", str(root), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_both_ends_stream_a_large_blob_both_ways_in_bounded_memory(tmp_path: Path) -> None:
    add_sparse_image(tmp_path / "source")
    store = tmp_path / "store"
    with serving(tmp_path / "r", "--log", "none") as server:
        place = f"docker://127.0.0.1:{server.port}/app:big"
        pushing = peak("copy", f"oci:{tmp_path / 'source'}:big", place, root=store)
        pulling = peak("copy", place, f"oci:{tmp_path / 'back'}:big", root=store)
        status = dict(line.split(":", 1) for line in Path(f"/proc/{server.process.pid}/status").open())
        served = int(status["VmHWM"].split()[0])
    print(f"peak KiB: pushing {pushing}, pulling {pulling}, server {served}")
    assert max(pushing, pulling, served) < CEILING_KIB
    sizes = [path.stat().st_size for path in (tmp_path / "back/blobs/sha256").iterdir()]
    assert SIZE in sizes
