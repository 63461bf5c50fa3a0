"""Pushing and pulling: our client and server against skopeo and Debian's docker-registry.

Cost is that of client and server together. Layers are gzip without compression over noise, so
that nobody packs or unpacks anything: what is measured is moving, hashing and storing.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Bench, Cost, measured
from imagetool.content.layout import LayoutStore
from imagetool.content.store import push_bytes
from imagetool.oci import mediatype
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest
from imagetool.oci.platform import Platform

TITLE = "Registry"
NEEDS = ("skopeo", "docker-registry")

_CONFIG = """
version: 0.1
log: {{accesslog: {{disabled: true}}, level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def run(bench: Bench) -> None:
    """Move one image of few large layers, and one of many small ones, there and back."""
    _add_image(bench.folder / "large", layers=4, size=160 << 20)
    _add_image(bench.folder / "small", layers=100, size=20_000)
    for name, what in (("large", "4 layers of 160 MiB"), ("small", "100 layers of 20 kB")):
        for figure, target in (("wall", 1.0), ("cpu", 1.0)):
            for step in ("push", "pull"):
                bench.compare(
                    f"{step} {what}",
                    "skopeo + docker-registry",
                    ours=lambda name=name, step=step: _ours(bench, name, step),
                    theirs=lambda name=name, step=step: _theirs(bench, name, step),
                    figure=figure,
                    target=target,
                )


def _ours(bench: Bench, name: str, step: str) -> Cost:
    port = _free_port()
    server = [sys.executable, "-m", "imagetool", "registry", "serve", "--log", "none"]
    server += ["--root", str(bench.folder / "registry"), "--listen", f"127.0.0.1:{port}"]
    place = f"docker://127.0.0.1:{port}/bench:v1"
    push = bench.imagetool("copy", "--progress", "quiet", f"oci:{bench.folder / name}:v1", place)
    pull = bench.imagetool("copy", "--progress", "quiet", place, f"oci:{bench.folder / 'back'}:v1")
    return _measured(bench, server, port, push, pull, step)


def _theirs(bench: Bench, name: str, step: str) -> Cost:
    port = _free_port()
    config = bench.folder / "config.yml"
    config.write_text(_CONFIG.format(root=bench.folder / "registry", port=port))
    place = f"docker://127.0.0.1:{port}/bench:v1"
    skopeo = ["skopeo", "copy", "-q"]
    push = [*skopeo, "--dest-tls-verify=false", f"oci:{bench.folder / name}:v1", place]
    pull = [*skopeo, "--src-tls-verify=false", place, f"oci:{bench.folder / 'back'}:v1"]
    return _measured(bench, ["docker-registry", "serve", str(config)], port, push, pull, step)


def _measured(bench: Bench, server: list[str], port: int, push: list[str], pull: list[str], step: str) -> Cost:
    bench.remove("registry", "back", "ours")
    with _serving(server, port) as pid:
        if step == "pull":
            measured(push)
        before = _cpu(pid)
        cost = measured(push if step == "push" else pull)
        return Cost(cost.wall, cost.cpu + _cpu(pid) - before, cost.rss)


@contextmanager
def _serving(command: list[str], port: int) -> Iterator[int]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended at once")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.terminate()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _add_image(layout: Path, *, layers: int, size: int) -> None:
    store = LayoutStore.create(layout)
    noise = random.Random(layers)
    descriptors, diff_ids = [], []
    for _ in range(layers):
        data = noise.randbytes(size)
        packer = zlib.compressobj(0, zlib.DEFLATED, 31)
        packed = packer.compress(data) + packer.flush()
        descriptors.append(push_bytes(store, packed, mediatype.OCI_LAYER_GZIP))
        diff_ids.append(Digest.of(data))
    config = ImageConfig.make(platform=Platform(), run=RunConfig(), diff_ids=diff_ids, history=[], created="")
    push_bytes(store, config.raw, mediatype.OCI_CONFIG)
    manifest = Manifest.make(config.descriptor, descriptors)
    store.tag(push_bytes(store, manifest.raw, manifest.media_type), "v1")
