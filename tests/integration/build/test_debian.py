"""The main job on a real Debian root filesystem: users, capabilities, links, and files that come and go."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.bases import unpack_image
from tests.support.command import imagetool, registry
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def tree(debian_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_image(debian_images, "stage:1", tmp_path_factory.mktemp("tree") / "rootfs")


def test_users_by_name(tree: Path) -> None:
    assert (tree / "home/app/who").read_text() == "app\nteam audio video\n0022\n/srv/app\n"
    for name, owner in (("srv/app/plain", (701, 700)), ("home/app/who", (701, 700)), ("srv/app/setuid", (0, 0))):
        status = os.lstat(tree / name)
        assert (status.st_uid, status.st_gid) == owner, name
    assert (tree / "etc/passwd").read_text().count("app:x:701:700:") == 1


def test_the_second_stage_is_the_first_one_copied(debian_images: Path, tree: Path, tmp_path: Path) -> None:
    copied = unpack_image(debian_images, "app:1", tmp_path / "copied")
    assert (copied / "home/app/again").read_text() == "app\naudio\n"
    before, after = describe(tree), describe(copied)
    for name in (b"home/app/again", b"usr/bin/hard", b"home/app"):
        after.pop(name)
        before.pop(name, None)
    assert after == before


def test_setuid_and_file_capabilities_survive(tree: Path) -> None:
    assert stat.S_IMODE(os.lstat(tree / "srv/app/setuid").st_mode) == 0o4755
    for name in ("usr/bin/pinger", "usr/local/bin/pinger2"):
        shown = subprocess.run(["getcap", tree / name], capture_output=True, text=True, check=True).stdout
        assert shown.strip().endswith("cap_net_raw=ep"), name
    assert (tree / "bin").is_symlink(), "COPY to /bin/ goes through Debian's symlink"


def test_links_of_both_kinds(tree: Path) -> None:
    app = tree / "srv/app"
    assert os.lstat(app / "setuid").st_ino == os.lstat(app / "hard").st_ino
    assert os.readlink(app / "soft") == "../app/hard"
    assert os.readlink(app / "link") == "plain"
    assert (app / "second").read_text() == "6\n", "a link made later than its file"
    assert os.lstat(app / "first").st_ino == os.lstat(app / "second").st_ino
    assert stat.S_ISFIFO(os.lstat(app / "fifo").st_mode)


def test_what_later_layers_remove_and_replace(tree: Path) -> None:
    app = tree / "srv/app"
    assert not {"removed", "gone"} & set(os.listdir(app))
    assert (app / "swap/file/inside").read_text() == "in\n"
    assert (app / "swap/dir").read_text() == "now\n"
    assert os.readlink(app / "linked") == "swap"
    assert os.listdir(app / "refilled") == ["new"]
    assert not [name for name in describe(tree) if os.path.basename(name).startswith(b".wh.")]


def test_times_are_no_later_than_the_epoch_and_else_kept(tree: Path) -> None:
    assert os.lstat(tree / "home/app/who").st_mtime == 315_532_800
    # 2001 is later than the epoch of a directory outside Git, so it is clamped as well.
    assert os.lstat(tree / "srv/app/old").st_mtime == 315_532_800


def test_push_pull_verify_convert(debian_images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with registry(tmp_path / "registry") as address:
        pushed = imagetool("push", "stage:1", f"docker://{address}/team/stage:1", root=debian_images).stdout
        assert imagetool("pull", f"{address}/team/stage:1", root=other).stdout == pushed
    name = f"{address}/team/stage:1"
    assert "FAILED" not in imagetool("verify", name, root=other).stdout
    aci = tmp_path / "stage.aci"
    imagetool("convert", name, f"aci:{aci}", root=other)
    imagetool("convert", f"aci:{aci}", "back:1", root=other)
    assert "FAILED" not in imagetool("verify", "back:1", root=other).stdout
    before = json.loads(imagetool("inspect", "stage:1", root=debian_images).stdout)
    after = json.loads(imagetool("inspect", "back:1", root=other).stdout)
    assert before["config"] == after["config"]
    expected = describe(unpack_image(debian_images, "stage:1", tmp_path / "before"))
    assert describe(unpack_image(other, name, tmp_path / "pulled")) == expected
    assert describe(unpack_image(other, "back:1", tmp_path / "back")) == expected
    capability = bytes.fromhex("0100000200200000") + bytes(12)  # revision 2, effective: CAP_NET_RAW permitted
    assert expected[b"usr/bin/pinger"][5] == ((b"security.capability", capability),)
