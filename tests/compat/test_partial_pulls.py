"""podman pulls our zstd:chunked layers in parts, from Debian's registry, and gets the very same files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command import imagetool
from tests.support.peers import docker_registry

pytestmark = [pytest.mark.root, pytest.mark.peer]

STORAGE = """[storage]
driver = "overlay"
runroot = "{0}/run"
graphroot = "{0}/graph"
[storage.options]
pull_options = {{enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}}
"""


def test_podman_pulls_in_parts_what_we_wrote(tmp_path: Path) -> None:
    for program in ("podman", "docker-registry"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    context = tmp_path / "context"
    (context / "data/deep").mkdir(parents=True)
    noise = random.Random(1)
    for number in range(50):
        (context / f"data/deep/{number}").write_bytes(noise.randbytes(100 * number))
    (context / "data/big").write_bytes(noise.randbytes(9_000_000))
    os.symlink("deep/7", context / "data/link")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY data /data\nLABEL a=b\n")
    root = tmp_path / "root"
    imagetool("build", "-t", "parts:1", "--compression", "zstd:chunked", context, root=root)
    (tmp_path / "storage.conf").write_text(STORAGE.format(tmp_path / "podman"))
    podman = ["podman", "--storage-driver", "overlay"]
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf")}
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as address:
        name = f"{address}/parts:1"
        imagetool("--no-tls-verify", "push", "parts:1", f"docker://{name}", root=root)
        pull = [*podman, "--log-level", "debug", "pull", "--tls-verify=false", f"docker://{name}"]
        done = subprocess.run(pull, capture_output=True, text=True, env=environment, timeout=110, check=False)
        if "driver not supported" in done.stderr or "not supported over" in done.stderr:
            pytest.skip("podman cannot use overlay here")
        assert done.returncode == 0, done.stderr
    try:
        assert "Retrieved partial blob" in done.stderr, done.stderr
        mount = [*podman, "image", "mount", name]
        mounted = subprocess.run(mount, capture_output=True, text=True, env=environment, check=True).stdout.strip()
        assert (
            subprocess.run(
                ["diff", "-r", "--no-dereference", f"{mounted}/data", context / "data"], check=False
            ).returncode
            == 0
        )
    finally:
        subprocess.run([*podman, "image", "umount", "-a"], env=environment, capture_output=True, check=False)
        subprocess.run(["umount", tmp_path / "podman/graph/overlay"], capture_output=True, check=False)
