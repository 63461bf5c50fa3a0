"""unpack and repack by ordinary users and with maps of ids: whose the files are, and whose they are again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.layer.rootless import OWNER
from tests.support.command import imagetool
from tests.support.users import NOBODY, as_user, users_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners")


def test_rootless_records_owners_and_puts_them_back(store: Path, tmp_path: Path) -> None:
    imagetool("unpack", "--rootless", "app", tmp_path / "b", root=store)
    run = tmp_path / "b/rootfs/bin/run"
    assert (run.stat().st_uid, os.getxattr(run, OWNER)) == (os.geteuid(), bytes.fromhex("08e8071032"))
    run.write_text("#!/bin/other\n")
    imagetool("repack", tmp_path / "b", "app:2", root=store)
    entry = json.loads(imagetool("ls", "--json", "app:2", root=store).stdout)[1]
    assert (entry["path"], entry["uid"], entry["gid"], "xattrs" in entry) == ("bin/run", 1000, 50, False)


def test_an_ordinary_user_unpacks_edits_and_repacks_what_it_may_not_read(store: Path) -> None:
    with users_folder() as folder:
        context = folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM app\nCOPY --chmod=000 --chown=7:8 f /closed/f\n")
        (context / "f").write_text("x")
        imagetool("build", "-t", "closed", context, root=store)
        imagetool("copy", "closed", f"oci:{folder}/layout:a", root=store)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)

        def user(*args: str | Path) -> str:
            command = [sys.executable, "-m", "imagetool", "--root", folder / "store", *args]
            done = as_user(command, folder=folder, namespaces=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        user("unpack", f"oci:{folder}/layout:a", folder / "b")
        closed = folder / "b/rootfs/closed/f"
        assert (closed.stat().st_uid, closed.stat().st_mode & 0o7777) == (NOBODY, 0)
        assert "nothing" not in user("repack", folder / "b", f"oci:{folder}/layout:same")
        (folder / "b/rootfs/etc/conf").write_text("two\n")
        os.chown(folder / "b/rootfs/etc/conf", NOBODY, NOBODY)
        closed.parent.chmod(0o300)
        user("repack", folder / "b", f"oci:{folder}/layout:b")
        assert closed.parent.stat().st_mode & 0o7777 == 0o300
        imagetool("verify", f"oci:{folder}/layout:b", root=store)
        found = json.loads(
            imagetool("diff", "--json", "--total", "closed", f"oci:{folder}/layout:b", root=store).stdout
        )
        changed = {change["path"]: change["what"] for change in found["total"]["changed"]}
        assert changed == {"etc/conf": ["mtime", "content"], "closed": ["mode"]}
        assert found["total"]["added"] == found["total"]["removed"] == []


FIRST_SUBORDINATE = 300_000  # of `as_user`


def test_a_user_with_subordinate_ids_has_true_owners_and_gives_the_same_image_back(store: Path, tmp_path: Path) -> None:
    with users_folder() as folder:
        imagetool("copy", "app", f"oci:{folder}/layout:a", root=store)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)

        def user(*args: str | Path) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "imagetool", "--root", folder / "store", *args]
            done = as_user(command, folder=folder, subordinate=True)
            assert done.returncode == 0, done.stderr
            return done

        told = user("unpack", f"oci:{folder}/layout:a", folder / "b").stderr
        assert [line for line in told.splitlines() if "without root" in line] == [
            "unpacking without root: other owners are subordinate ids of this user; --rootless records them instead"
        ]
        run, conf = folder / "b/rootfs/bin/run", folder / "b/rootfs/etc/conf"
        status = run.stat()
        assert (status.st_uid, status.st_gid) == (FIRST_SUBORDINATE + 999, FIRST_SUBORDINATE + 49)
        assert status.st_mode & 0o7777 == 0o4755
        assert (conf.stat().st_uid, os.listxattr(run)) == (NOBODY, [])
        same = user("repack", folder / "b", f"oci:{folder}/layout:same")
        assert "nothing was changed" in same.stderr
        assert same.stdout.strip() == json.loads(imagetool("inspect", "app", root=store).stdout)["digest"]

        refused = imagetool("repack", folder / "b", f"oci:{folder}/layout:other", root=store, check=False)
        assert refused.returncode == 2
        assert "repack it as the user who unpacked it" in refused.stderr

        conf.write_text("two\n")  # as its owner
        os.chown(run, FIRST_SUBORDINATE + 6, FIRST_SUBORDINATE + 7)
        user("repack", folder / "b", f"oci:{folder}/layout:b")
        imagetool("verify", f"oci:{folder}/layout:b", root=store)
        listed = json.loads(imagetool("ls", "--json", f"oci:{folder}/layout:b", root=store).stdout)
        owners = {entry["path"]: (entry["uid"], entry["gid"]) for entry in listed}
        assert (owners["bin/run"], owners["etc/conf"]) == ((7, 8), (0, 0))
        total = json.loads(imagetool("diff", "--json", "--total", "app", f"oci:{folder}/layout:b", root=store).stdout)
        changed = {change["path"] for change in total["total"]["changed"]}
        assert changed == {"bin/run", "etc/conf"}


@pytest.mark.parametrize("way", ["--rootless", "no range", "no namespaces"])
def test_a_user_who_may_not_or_will_not_use_subordinate_ids_has_owners_recorded(
    store: Path, tmp_path: Path, way: str
) -> None:
    with users_folder() as folder:
        imagetool("copy", "app", f"oci:{folder}/layout:a", root=store)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)
        options = ["--rootless"] if way == "--rootless" else []
        command = [sys.executable, "-m", "imagetool", "--root", folder / "store", "unpack", *options]
        done = as_user(
            [*command, f"oci:{folder}/layout:a", folder / "b"],
            folder=folder,
            subordinate=way != "no range",
            namespaces=way != "no namespaces",
        )
        assert done.returncode == 0, done.stderr
        run = folder / "b/rootfs/bin/run"
        assert (run.stat().st_uid, os.getxattr(run, OWNER)) == (NOBODY, bytes.fromhex("08e8071032"))
        assert ("owners are recorded" in done.stderr) == (way != "--rootless")


def owners_of(rootfs: Path) -> dict[str, tuple[int, int]]:
    paths = [rootfs, *rootfs.rglob("*")]
    return {str(path.relative_to(rootfs)): (path.lstat().st_uid, path.lstat().st_gid) for path in paths}


MAPS = ("--uid-map", "0:100000:1000", "--uid-map=1000:500:1", "--gid-map=0:200000:65536")


def test_mapped_ids_are_turned_back_by_whoever_repacks(store: Path, tmp_path: Path) -> None:
    imagetool("unpack", *MAPS, "app", tmp_path / "b", root=store)
    rootfs = tmp_path / "b/rootfs"
    assert owners_of(rootfs) == {
        **dict.fromkeys((".", "etc", "etc/conf"), (100_000, 200_000)),
        **dict.fromkeys(("bin", "bin/run"), (500, 200_050)),
    }
    assert (rootfs / "bin/run").stat().st_mode & 0o7777 == 0o4755
    assert "nothing was changed" in imagetool("repack", tmp_path / "b", "app:same", root=store).stderr
    (rootfs / "etc/conf").write_text("two\n")
    os.chown(rootfs / "etc/conf", 500, 200_007)
    (rootfs / "new").write_text("x")
    refused = imagetool("repack", tmp_path / "b", "app:2", root=store, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "new: user 0 is not in the map of ids" in refused.stderr
    os.chown(rootfs / "new", 100_009, 200_000)
    (rootfs / "bin/run").unlink()
    imagetool("repack", "--refresh", tmp_path / "b", "app:2", root=store)
    listed = json.loads(imagetool("ls", "--json", "app:2", root=store).stdout)
    assert {entry["path"]: (entry["uid"], entry["gid"]) for entry in listed} == {
        "bin": (1000, 50),
        "etc": (0, 0),
        "etc/conf": (1000, 7),
        "new": (9, 0),
    }
    assert "nothing was changed" in imagetool("repack", tmp_path / "b", "app:3", root=store).stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--uid-map", "0:5"), "bin: user 1000 is in no map of ids; add one"),
        (("--uid-map", "x"), "give CONTAINER:HOST:SIZE"),
        (("--gid-map", "5:0:10"), "nothing of root"),
        (("--rootless", "--uid-map", "0:5:5000"), "give one or the other"),
    ],
)
def test_maps_that_cannot_be_are_said_in_one_line(
    store: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    done = imagetool("unpack", *options, "app", tmp_path / "b", root=store, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr
    assert not (tmp_path / "b/rootfs").exists()


def test_a_damaged_map_in_the_scan_is_no_map(store: Path, tmp_path: Path) -> None:
    imagetool("unpack", *MAPS, "app", tmp_path / "b", root=store)
    scan = tmp_path / "b/imagetool.scan"
    for owners in (b"0:100000:1000,1000:500:x/0:200000:65536", b"1:100000:1000,1000:500:1/0:200000:65536"):
        body = scan.read_bytes()[:-32].replace(b"0:100000:1000,1000:500:1/0:200000:65536", owners)
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c/imagetool.scan").write_bytes(body + hashlib.sha256(body).digest())
        done = imagetool("repack", tmp_path / "c", "app:2", root=store, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (6, 1)


def test_a_user_maps_to_the_subordinate_ids_it_has_and_to_no_others(store: Path, tmp_path: Path) -> None:
    with users_folder() as folder:
        imagetool("copy", "app", f"oci:{folder}/layout:a", root=store)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)

        def user(*args: str | Path, subordinate: bool = True) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "imagetool", "--root", folder / "store", *args]
            return as_user(command, folder=folder, subordinate=subordinate)

        maps = [f"--{kind}-map=0:{FIRST_SUBORDINATE + 100}:5000" for kind in ("uid", "gid")]
        done = user("unpack", *maps, f"oci:{folder}/layout:a", folder / "b")
        assert done.returncode == 0, done.stderr
        first = FIRST_SUBORDINATE + 100
        assert owners_of(folder / "b/rootfs") == {
            **dict.fromkeys((".", "etc", "etc/conf"), (first, first)),
            **dict.fromkeys(("bin", "bin/run"), (first + 1000, first + 50)),
        }
        os.chown(folder / "b/rootfs/etc/conf", first + 6, first + 7)
        done = user("repack", folder / "b", f"oci:{folder}/layout:b")
        assert done.returncode == 0, done.stderr
        listed = json.loads(imagetool("ls", "--json", f"oci:{folder}/layout:b", root=store).stdout)
        assert {entry["path"]: (entry["uid"], entry["gid"]) for entry in listed}["etc/conf"] == (6, 7)

        done = user("unpack", "--uid-map", "0:100000:5000", f"oci:{folder}/layout:a", folder / "c")
        assert (done.returncode, "--uid-map has others" in done.stderr) == (2, True)
        done = user(
            "unpack", *(f"--{kind}-map=0:0:5000" for kind in ("uid", "gid")), f"oci:{folder}/layout:a", folder / "c"
        )
        assert done.returncode == 2
        for kind in ("uid", "gid"):
            maps = [f"--{kind}-map=0:{NOBODY}:1" for kind in ("uid", "gid")]
        done = user("unpack", *maps, f"oci:{folder}/layout:a", folder / "c", subordinate=False)
        assert (done.returncode, "user 1000 is in no map" in done.stderr) == (2, True)
