"""What we build runs where other people's tools run it, and their runtime runs our steps."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool, registry
from tests.support.peers import peer

pytestmark = [pytest.mark.root, pytest.mark.peer]

DOCKERFILE = """\
FROM busybox
RUN mkdir /d && echo held > /d/f && ln /d/f /d/h && chmod 4755 /d/f \\
 && echo someone:x:1234:1234::/d:/bin/sh >> /etc/passwd
ENV WHO="the world"
WORKDIR /d
USER someone
CMD ["sh", "-c", "echo hello $WHO; id -u; pwd; cat h; stat -c %a f"]
"""
EXPECTED = "hello the world\n1234\n/d\nheld\n4755\n"


@pytest.fixture
def store(busybox_base: Path, tmp_path: Path) -> Path:
    root = store_with(busybox_base, tmp_path)
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(DOCKERFILE)
    imagetool("build", "-t", "demo:1", tmp_path / "context", root=root)
    return root


def test_runc_runs_what_umoci_unpacks(store: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    imagetool("copy", "demo:1", f"oci:{tmp_path}/layout:x", root=store)
    peer("umoci", "unpack", "--image", f"{tmp_path}/layout:x", bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = False
    (bundle / "config.json").write_text(json.dumps(config))
    name = f"imagetool-test-{os.getpid()}"
    assert peer("runc", "--root", tmp_path / "state", "run", "--bundle", bundle, name) == EXPECTED


def test_buildah_pulls_and_runs_it(store: Path, tmp_path: Path) -> None:
    storage = ("--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
    with registry(tmp_path / "registry") as address:
        imagetool("push", "demo:1", f"docker://{address}/team/demo:1", root=store)
        name = peer("buildah", *storage, "from", "--tls-verify=false", f"docker://{address}/team/demo:1").strip()
    shown = json.loads(peer("buildah", *storage, "inspect", name))
    command = shown["OCIv1"]["config"]["Cmd"]
    assert peer("buildah", *storage, "run", "--isolation", "chroot", name, "--", *command) == EXPECTED
    peer("buildah", *storage, "rm", name)


def test_runc_runs_our_steps_to_the_same_image(store: Path, tmp_path: Path) -> None:
    """The layers are the same bytes, whichever runtime made them."""
    if subprocess.run(["which", "runc"], capture_output=True, check=False).returncode:
        pytest.skip("runc is not installed")
    embedded = imagetool("build", "--no-cache", tmp_path / "context", root=store)
    hosted = imagetool("build", "--no-cache", "--runtime", "runc", tmp_path / "context", root=store)
    assert "Using cache" not in hosted.stderr
    assert hosted.stdout == embedded.stdout
    (tmp_path / "context/Dockerfile").write_text("FROM busybox\nRUN echo before; exit 9\n")
    failed = imagetool("build", "--runtime", "runc", tmp_path / "context", root=store, check=False)
    assert failed.returncode == 1
    assert "before" in failed.stderr
    assert "exit code 9" in failed.stderr


def test_an_unknown_runtime_is_refused(store: Path, tmp_path: Path) -> None:
    done = imagetool("build", "--no-cache", "--runtime", "nosuch", tmp_path / "context", root=store, check=False)
    assert done.returncode == 9
    assert "the runtime nosuch is not installed" in done.stderr
