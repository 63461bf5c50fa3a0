"""A disk that is full, at any moment: one clear error, and nothing half-visible."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool, registry
from tests.support.remains import assert_nothing_left, assert_one_error, small_disk

pytestmark = pytest.mark.root

_DOCKERFILE = """\
FROM busybox
COPY big /a
RUN cp /a /b
WORKDIR /new
COPY --from=busybox /bin/busybox /c
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(4_000_000))
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    return folder


@pytest.mark.parametrize("kibibytes", [16, 1200, 3000, 5200, 6500, 8500, 10500, 12500, 14500, 16500, 18500])
def test_a_whole_build(busybox_base: Path, context: Path, tmp_path: Path, kibibytes: int) -> None:
    """The sizes are such that the disk is full at another step each time; the last ones may be enough."""
    with small_disk(tmp_path / "disk", f"{kibibytes}k") as disk:
        try:
            shutil.copytree(busybox_base / "layout", disk / "layout")
        except shutil.Error:  # not even the base fits
            shutil.rmtree(disk / "layout")
        done = imagetool("build", "-t", "made:1", context, root=disk, check=False)
        if done.returncode:
            status = 1 if "'RUN cp" in done.stderr else 8
            if not (disk / "layout/blobs").exists() or "pulling busybox" in done.stderr:
                status = done.returncode  # without a base there is nothing to see here
                assert status in (5, 8), done.stderr
            assert_one_error(done, status)
            assert status == 5 or "No space left on device" in done.stderr, done.stderr
        assert_nothing_left(disk)
        listed = imagetool("images", root=disk, check=False).stdout
        assert ("made:1" in listed) is (done.returncode == 0)


def test_there_is_enough_at_the_end_and_too_little_before(busybox_base: Path, context: Path, tmp_path: Path) -> None:
    """The same disk, freed: what failed before is done now, from what was kept."""
    with small_disk(tmp_path / "disk", "24m") as disk:
        shutil.copytree(busybox_base / "layout", disk / "layout")
        (disk / "ballast").write_bytes(bytes(17_000_000))
        assert_one_error(imagetool("build", context, root=disk, check=False), 8, "No space left on device")
        (disk / "ballast").unlink()
        imagetool("build", "-t", "made:1", context, root=disk)
        assert_nothing_left(disk)


@pytest.fixture
def pushed(busybox_base: Path, context: Path, tmp_path: Path) -> Path:
    root = store_with(busybox_base, tmp_path)
    imagetool("build", "-t", "made:1", context, root=root)
    return root


def test_a_pull(pushed: Path, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address, small_disk(tmp_path / "disk", "3000k") as disk:
        imagetool("push", "made:1", f"docker://{address}/made:1", root=pushed)
        done = imagetool("pull", f"{address}/made:1", root=disk, check=False)
        assert_one_error(done, 8, "No space left on device", "free some space")
        assert_nothing_left(disk)
        assert "made:1" not in imagetool("images", root=disk).stdout


def test_a_push_to_a_server_whose_disk_is_full(pushed: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3000k") as disk:
        with registry(disk / "registry") as address:
            done = imagetool("push", "made:1", f"docker://{address}/made:1", root=pushed, check=False)
            assert done.returncode != 0
            assert_one_error(done, 5)
            assert "No space left" in done.stderr or "space" in done.stderr, done.stderr
            refused = imagetool("pull", f"{address}/made:1", root=tmp_path / "other", check=False)
            assert refused.returncode == 3, refused.stderr
        assert (disk / "registry").exists()


@pytest.mark.parametrize("target", ["oci:", "oci-archive:", "docker-archive:", "dir:", "aci:"])
def test_a_copy_to_every_kind_of_place(pushed: Path, tmp_path: Path, target: str) -> None:
    with small_disk(tmp_path / "disk", "3000k") as disk:
        verb = "convert" if target == "aci:" else "copy"
        done = imagetool(verb, "made:1", f"{target}{disk}/out", root=pushed, check=False)
        assert_one_error(done, 8, "No space left on device")
        if target.endswith(("archive:", "aci:")):
            assert os.listdir(disk) == []
        assert_nothing_left(pushed)


@pytest.mark.parametrize("kind", ["local", "tar", "oci", "docker"])
def test_an_output_of_a_build(pushed: Path, context: Path, tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / "disk", "3000k") as disk:
        done = imagetool("build", "-o", f"type={kind},dest={disk}/out.tar", context, root=pushed, check=False)
        assert_one_error(done, 8, "No space left on device")
        if kind in ("tar", "docker", "oci"):
            assert os.listdir(disk) == [], "half an archive is there"


def test_a_base(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "600k") as disk:
        assert_one_error(imagetool("base", "busybox", root=disk, check=False), 8, "No space left on device")
        assert_nothing_left(disk)


def test_a_disk_that_is_read_only(pushed: Path, context: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "30m"):
        shutil.copytree(pushed / "layout", disk / "layout")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert imagetool("verify", "made:1", root=disk).stdout
        done = imagetool("build", "-t", "more:1", context, root=disk, check=False)
        assert_one_error(done, 8, "Read-only file system", "choose a place you may write to (for the store: --root)")
