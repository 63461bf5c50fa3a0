"""On kernels that most users have, in virtual machines: they are older than this one, and mount by other calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool
from tests.support.guest import boot, guest_disk
from tests.support.systems import kernel

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.slow]

DOCKERFILE = """\
FROM busybox
RUN mkdir -p /a/gone && echo x > /a/f && chown 5:6 /a/f && touch /a/gone/old && head -n 1 /proc/self/uid_map
RUN rm -r /a/gone && mkdir /a/gone && touch /a/gone/new && test $(stat -c %u:%g /a/f) = 5:6
"""
CONTEXT = f"""\
mkdir -m 755 /context && cat > /context/Dockerfile <<'END'
{DOCKERFILE}END
build="build --network host --progress plain --no-cache -t x:1"
"""
AS_ROOT = "imagetool $build /context; imagetool $build --userns host /context"
AS_USER = """\
cp -a /store /home/user/store && chown -R user:user /home/user/store
as_user "IMAGETOOL_ROOT=/home/user/store; echo $build /context | commands"
"""
#: What must be on the console after all: nothing from the kernel, and no mount that is left.
LEFT = "\ndmesg | grep overlayfs:; echo $(grep -c overlay /proc/mounts) mounts\n"
OF_THE_RELEASE, NEWER = "linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"


@pytest.fixture(scope="module")
def disk(busybox_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_disk(tmp_path_factory, busybox_base)


@pytest.mark.parametrize(
    ("package", "builds", "maps"),
    [
        (OF_THE_RELEASE, AS_ROOT, ["0 1879048192 16777216", "0 0 4294967295"]),
        (OF_THE_RELEASE, AS_USER, ["0 1000 1"]),
        (NEWER, AS_ROOT, ["0 1879048192 16777216", "0 0 4294967295"]),
    ],
    ids=["root", "user", "newer"],
)
def test_steps_stack_their_layers_as_here(
    disk: Path, package: str, builds: str, maps: list[str], busybox_base: Path, tmp_path: Path
) -> None:
    """With mapped layers, as root of the host and as an ordinary user, where the kernel has other calls for it."""
    said = boot(disk, kernel(package), CONTEXT + builds + LEFT, tmp_path)
    root = store_with(busybox_base, tmp_path)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    imagetool("build", "-t", "x:1", "--network", "host", tmp_path, root=root)
    identity = json.loads(imagetool("inspect", "x:1", root=root).stdout)["id"]
    assert said.count(f"\n{identity}\n") == len(maps), said
    shown = [" ".join(line.split()) for line in said.splitlines() if line.startswith("           0")]
    assert shown == maps
    assert "warning" not in said
    assert "overlayfs: " not in said
    assert "\n0 mounts\n" in said
