"""One shell script that builds an image, run with buildah and with imagetool: the same image, which others read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool
from tests.support.peers import peer

pytestmark = [pytest.mark.root, pytest.mark.peer]

SCRIPT = """\
set -eu
c=$($B from --name hand $BASE)
$B copy $c hello.txt /srv/
$B copy --chown 1:2 $c sub /srv/sub
$B add $c archive.tar /unpacked
$B run $c -- sh -c 'echo "$PATH" > /ran; rm /bin/yes; chmod 4711 /ran'
$B config --env A=1 --env B='$A/2' --label l=v --label gone=x --annotation a=b $c
$B config --entrypoint '["/bin/sh"]' $c
$B config --cmd "-c 'a b'" --user nobody --port 80 --port 90/udp --volume /data $c
$B config --stop-signal SIGINT --author me --workingdir /srv --label gone- --port 90/udp- $c
$B run --user 5:6 --env X=y --workingdir /tmp $c -- sh -c 'id -u; echo $X; pwd' > said
m=$($B mount $c)
echo hand > $m/hand
rm $m/bin/tar
$B umount $c > /dev/null
$B commit --rm $c oci:$OUT:x
test -z "$($B containers -q)"
"""


def run(program: str, base: str, folder: Path, out: Path) -> dict[str, Any]:
    """Run the script with a program; return the config of the image it made."""
    env = {
        **os.environ,
        "B": program,
        "BASE": base,
        "OUT": str(out),
        "BUILDAH_ISOLATION": "chroot",
        "HOME": str(folder),
    }
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["sh", "-c", SCRIPT], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (folder / "said").read_text().split() == ["5", "y", "/tmp"]
    config: dict[str, Any] = json.loads(peer("skopeo", "inspect", "--config", f"oci:{out}:x"))
    return config


def test_a_script_for_buildah_makes_the_same_image_with_imagetool(busybox_base: Path, tmp_path: Path) -> None:
    if not shutil.which("buildah"):
        pytest.skip("buildah is not installed")
    folder = tmp_path / "work"
    (folder / "sub").mkdir(parents=True)
    (folder / "hello.txt").write_text("hello\n")
    (folder / "sub/inner").write_text("inner\n")
    (folder / "sub/link").symlink_to("inner")
    subprocess.run(["tar", "-cf", "archive.tar", "hello.txt"], cwd=folder, check=True)
    root = store_with(busybox_base, tmp_path)
    theirs = f"buildah --root {tmp_path}/storage --runroot {tmp_path}/run --storage-driver vfs"
    other = run(theirs, f"oci:{root}/layout:busybox:latest", folder, tmp_path / "theirs")
    made = run(f"{sys.executable} -m imagetool --root {root}", "busybox", folder, tmp_path / "ours")
    other["config"]["Labels"].pop("io.buildah.version", None)
    assert other["config"]["ExposedPorts"] in ({"80": {}}, {"80/tcp": {}}), "buildah of old leaves the protocol unsaid"
    other["config"]["ExposedPorts"] = {"80/tcp": {}}
    assert made["config"] == other["config"]
    assert {key: made[key] for key in ("architecture", "os", "author")} == {
        key: other[key] for key in ("architecture", "os", "author")
    }
    manifests = [
        json.loads(peer("skopeo", "inspect", "--raw", f"oci:{tmp_path}/{name}:x")) for name in ("ours", "theirs")
    ]
    assert [manifest["annotations"]["a"] for manifest in manifests] == ["b", "b"]
    compared = imagetool("diff", "--total", f"oci:{tmp_path}/theirs:x", f"oci:{tmp_path}/ours:x", root=root).stdout
    lines = [line for line in compared.splitlines()[1:] if not line.endswith("  (mtime)")]
    # Volumes, files for the container's network and where they were mounted: buildah makes them in the image.
    expected = ("/data", "/etc/host", "/etc/resolv.conf", "/run", "/dev", "/proc", "/sys")
    assert [line for line in lines if not line.split()[1].startswith(expected)] == []


def test_buildah_goes_on_where_imagetool_has_committed(busybox_base: Path, tmp_path: Path) -> None:
    root = store_with(busybox_base, tmp_path)
    name = imagetool("from", "busybox", root=root).stdout.strip()
    imagetool("run", name, "--", "sh", "-c", "echo ours > /ours", root=root)
    imagetool("commit", "--squash", name, "docker.io/library/ours:1", root=root)
    storage = ("--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
    imagetool("copy", "ours:1", f"oci-archive:{tmp_path}/ours.tar", root=root)
    theirs = peer("buildah", *storage, "from", f"oci-archive:{tmp_path}/ours.tar").strip().splitlines()[-1]
    assert peer("buildah", *storage, "run", "--isolation", "chroot", theirs, "cat", "/ours") == "ours\n"
