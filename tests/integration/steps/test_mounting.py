"""`mount`, `umount` and `unshare`: what other programs change in a container is a step of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.steps.conftest import Shop
from tests.support.bases import store_with
from tests.support.containers import separate_mounts
from tests.support.users import NOBODY, as_user, users_folder

pytestmark = pytest.mark.root


@pytest.fixture
def mounting(shop: Shop) -> Iterator[Shop]:
    """The shop, where no copy of a mount stays in the namespace that another test has made meanwhile."""
    with separate_mounts():
        yield shop
        shop.do("umount", "--all")


def test_what_is_changed_below_a_mount_is_a_step_and_steps_show_there(mounting: Shop) -> None:
    shop = mounting
    name = shop.do("from", "busybox")
    place = Path(shop.do("mount", name))
    (place / "by-hand").write_text("hand\n")
    (place / "bin/yes").unlink()
    assert shop.do("mount", name) == str(place), "it stays as it is"
    assert shop.do("mount") == f"{name} {place}"
    assert shop.do("run", name, "sh", "-c", "cat /by-hand; ls /bin/yes 2>/dev/null; echo run > /by-run") == "hand"
    assert (place / "by-run").read_text() == "run\n"
    assert json.loads(shop.do("containers", "--json"))[0]["mountpoint"] == str(place)
    (place / "later").write_text("later\n")
    shop.do("commit", name, "made")
    (place / "too-late").write_text("x")
    made = [entry["created_by"] for entry in json.loads(shop.do("history", "--json", "made"))]
    assert made[0] == made[2] == "changed by hand below its mount"
    assert made[1].startswith("RUN sh -c cat /by-hand")
    listed = {entry["path"] for entry in json.loads(shop.do("ls", "--json", "made"))}
    assert {"by-hand", "by-run", "later"} <= listed
    assert not {"too-late", "bin/yes"} & listed
    shop.do("umount", name)
    assert not (place / "later").exists()
    assert shop.do("run", name, "cat", "/too-late") == "x"
    assert shop.do("mount") == ""


def test_what_was_changed_is_there_after_the_mount_is_gone_without_umount(mounting: Shop) -> None:
    """As after the machine's next start: no mount, and no unpacked snapshot either."""
    shop = mounting
    name = shop.do("from", "busybox")
    place = Path(shop.do("mount", name))
    (place / "kept").write_text("kept\n")
    subprocess.run(["umount", str(place)], check=True)
    shutil.rmtree(shop.root / "snapshots")
    assert shop.do("run", name, "cat", "/kept") == "kept"
    shop.do("rm", name)
    assert [path.name for path in (shop.root / "containers").iterdir()] == [".new"]


def test_a_mounted_container_can_be_removed(mounting: Shop) -> None:
    name = mounting.do("from", "busybox")
    place = Path(mounting.do("mount", name))
    mounting.do("rm", name)
    assert not place.exists()
    mounting.do("mount", mounting.do("from", "busybox"))
    (place / "new").touch()
    mounting.do("commit", "--rm", name, "made")
    assert not place.exists()
    assert json.loads(mounting.do("ls", "--json", "--layer", "2", "made"))[0]["path"] == "new"
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


def test_a_container_that_is_mounted_in_another_namespace_must_be_unmounted_there_first(mounting: Shop) -> None:
    shop = mounting
    name = shop.do("from", "busybox")
    program = f"{sys.executable} -m imagetool"
    script = (
        f"m=$({program} mount {name}) && echo text > $m/there && echo begun && read line && {program} umount {name}"
    )
    command = [sys.executable, "-m", "imagetool", "--root", str(shop.root), "unshare", "--", "sh", "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert "mounted in another namespace" in shop.do("run", name, "true", code=2)
        assert shop.do("mount") == "", "nobody sees it here"
        assert process.communicate("\n", timeout=90)[1] == ""
    assert shop.do("run", name, "cat", "/there") == "text"


@pytest.mark.parametrize("subordinate", [True, False])
def test_an_ordinary_user_does_it_all(busybox_base: Path, subordinate: bool) -> None:
    program = f"{sys.executable} -m imagetool"
    with users_folder() as folder:
        root = store_with(busybox_base, folder)
        for path in (root, *root.rglob("*")):
            shutil.chown(path, NOBODY, NOBODY)
        (folder / "file").write_text("text\n")

        def do(script: str, code: int = 0) -> str:
            env = {"IMAGETOOL_ROOT": str(root), "T": program, "F": str(folder)}
            done = as_user(["sh", "-ec", script], folder=folder, subordinate=subordinate, env=env)
            assert done.returncode == code, f"{script}\n{done.stdout}\n{done.stderr}"
            return done.stdout.strip() if code == 0 else done.stderr

        assert do("$T from busybox; $T copy -q busybox-working-container $F/file /f") == "busybox-working-container"
        refused = do("$T mount busybox-working-container", code=9)
        assert "imagetool unshare" in refused
        assert refused.count("\n") == 1
        do(
            "$T unshare -- sh -ec 'm=$($T mount busybox-working-container); cat $m/f; echo hand > $m/hand; "
            "$T run busybox-working-container cat /hand'"
        )
        assert do("$T run busybox-working-container -- sh -c 'cat /hand; id -u; echo x > /x'").split() == ["hand", "0"]
        assert do("$T commit -q busybox-working-container made; $T ls made | grep -c '/\\(hand\\|x\\|f\\)$'")[-1] == "3"
        (folder / "Dockerfile").write_text("FROM busybox\nRUN echo left > /left; exit 4\n")
        assert "debug " in do("$T build -q -t app --keep-on-failure -f $F/Dockerfile $F/store/layout", code=1)
        assert do("$T debug app-failed -- sh -c 'cat /left; id -u'").split() == ["left", "0"]
        do("$T rm -a")
