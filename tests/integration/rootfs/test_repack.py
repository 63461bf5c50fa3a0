"""unpack, repack, squash and diff as a user types them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import imagetool
from tests.support.trees import describe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners")


def edit(rootfs: Path) -> None:
    (rootfs / "etc" / "conf").write_text("two\n")
    (rootfs / "etc" / "new").symlink_to("conf")
    (rootfs / "bin" / "run").unlink()


def test_edits_of_an_unpacked_image_become_a_layer(store: Path, tmp_path: Path) -> None:
    printed = imagetool("unpack", "app", tmp_path / "b", root=store).stdout
    rootfs = tmp_path / "b" / "rootfs"
    assert printed == f"{rootfs}\n"
    status = (rootfs / "bin/run").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 50, 0o4755)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
    edit(rootfs)
    digest = imagetool("repack", "--comment", "mended", tmp_path / "b", "app:2", root=store).stdout.strip()
    imagetool("verify", "app:2", root=store)
    imagetool("unpack", "app:2", tmp_path / "again", root=store)
    assert describe(tmp_path / "again" / "rootfs") == describe(rootfs)
    shown = json.loads(imagetool("inspect", "app:2", root=store).stdout)
    assert shown["digest"] == digest
    assert shown["config"]["Cmd"] == ["/bin/run"]
    steps = json.loads(imagetool("history", "--json", "app:2", root=store).stdout)
    assert (steps[0]["created_by"], steps[0]["comment"], len(shown["layers"])) == ("imagetool repack", "mended", 3)


def test_without_edits_the_image_stays_what_it_was(store: Path, tmp_path: Path) -> None:
    imagetool("unpack", "app", tmp_path / "b", root=store)
    conf = tmp_path / "b/rootfs/etc/conf"
    old = conf.stat()
    conf.write_text("one\n")  # touched and put back: told by its content
    os.utime(conf, ns=(old.st_atime_ns, old.st_mtime_ns))
    done = imagetool("repack", tmp_path / "b", "same", root=store)
    assert "nothing was changed" in done.stderr
    assert done.stdout.strip() == json.loads(imagetool("inspect", "app", root=store).stdout)["digest"]


def test_refresh_goes_on_from_the_new_image(store: Path, tmp_path: Path) -> None:
    imagetool("unpack", "app", tmp_path / "b", root=store)
    for number in (1, 2):
        (tmp_path / "b/rootfs" / f"file{number}").write_text("x")
        imagetool("repack", "--refresh", tmp_path / "b", f"app:r{number}", root=store)
    listed = imagetool("ls", "--layer", "4", "app:r2", root=store).stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in listed] == ["/file2"]


def test_layouts_are_repacked_where_they_are(store: Path, tmp_path: Path) -> None:
    layout = f"oci:{tmp_path}/layout"
    imagetool("copy", "app", f"{layout}:a", root=store)
    imagetool("unpack", f"{layout}:a", tmp_path / "b", root=tmp_path / "other")
    edit(tmp_path / "b/rootfs")
    imagetool("repack", tmp_path / "b", f"{layout}:b", root=tmp_path / "other")
    shutil.rmtree(tmp_path / "other")
    imagetool("verify", f"{layout}:b", root=tmp_path / "other")
    total = json.loads(imagetool("diff", "--json", f"{layout}:a", f"{layout}:b", root=tmp_path / "other").stdout)[
        "total"
    ]
    assert total["added"] == ["etc/new"]
    assert total["removed"] == ["bin/run"]
    changed = {change["path"]: change["what"] for change in total["changed"]}
    assert changed["etc/conf"] == ["mtime", "content"]


def test_a_squashed_image_differs_in_nothing_but_its_layers(store: Path, tmp_path: Path) -> None:
    imagetool("squash", "app", "flat", root=store)
    assert imagetool("diff", "--total", "--exit-code", "app", "flat", root=store).stdout.endswith(": 0 entries\n")
    imagetool("verify", "flat", root=store)
    shown = json.loads(imagetool("inspect", "flat", root=store).stdout)
    assert (len(shown["layers"]), shown["config"]["Cmd"]) == (1, ["/bin/run"])
    assert len(json.loads(imagetool("history", "--json", "flat", root=store).stdout)) == 4


def inspected(store: Path, name: str) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = json.loads(imagetool("inspect", name, root=store).stdout)["layers"]
    return layers


def layers_of(store: Path, name: str) -> list[str]:
    return [layer["diffID"] for layer in inspected(store, name)]


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ((), []),
        (("--from", "2"), [0]),
        (("--from=3", "--to=4"), [0, 1, 4]),
        (("--to", "3"), [3, 4]),
        (("--keep-base", "app"), [0, 1]),
        (("--keep-base", "app", "--to", "4"), [0, 1, 4]),
    ],
    ids=lambda words: "-".join(map(str, words)) or "all",
)
def test_some_layers_are_merged_and_the_others_stay(
    store: Path, tmp_path: Path, args: tuple[str, ...], kept: list[int]
) -> None:
    context = tmp_path / "more"
    context.mkdir()
    (context / "new").write_text("new\n")
    steps = "COPY new /etc/conf\nENV A=b\nCOPY new /etc/new\nCOPY --chmod=600 new /bin/new\n"
    (context / "Dockerfile").write_text(f"FROM app\n{steps}")
    imagetool("build", "--tag", "more", context, root=store)
    before = layers_of(store, "more")
    assert len(before) == 5
    imagetool("squash", *args, "more", "less", root=store)
    after = layers_of(store, "less")
    assert [layer for layer in after if layer in before] == [before[number] for number in kept]
    assert len(after) == len(kept) + 1
    assert imagetool("diff", "--total", "--exit-code", "more", "less", root=store).stdout.endswith(": 0 entries\n")
    imagetool("verify", "less", root=store)
    told = json.loads(imagetool("history", "--json", "less", root=store).stdout)
    assert len(told) == len(json.loads(imagetool("history", "--json", "more", root=store).stdout)) + 1
    (merged,) = (step for step in told if step["created_by"] == "imagetool squash")
    assert merged["size"] == next(layer["size"] for layer in inspected(store, "less") if layer["diffID"] not in before)


def test_a_difference_is_told_by_the_exit_code_when_asked(store: Path, tmp_path: Path) -> None:
    imagetool("unpack", "app", tmp_path / "b", root=store)
    (tmp_path / "b/rootfs/etc/conf").chmod(0o600)
    imagetool("repack", tmp_path / "b", "app:2", root=store)
    done = imagetool("diff", "--exit-code", "app", "app:2", root=store, check=False)
    assert done.returncode == 1
    assert "C /etc/conf  (mode)" in done.stdout
    assert imagetool("diff", "app", "app:2", root=store).returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("unpack", "nowhere", "b"), 3, "nowhere"),
        (("unpack", "app", "full"), 2, "not empty"),
        (("repack", "full", "x"), 3, "not what `imagetool unpack` made"),
        (("repack", "damaged", "x"), 6, "unpack the image again"),
        (("ls", "--layer", "9", "app"), 2, "number from 1 to 2"),
        (("ls", "--layer", "ffff", "app"), 2, "number from 1 to 2"),
        (("diff", "app", "nowhere"), 3, "nowhere"),
        (("squash", "--from", "3", "app", "x"), 2, "--from '3': give a number from 1 to 2"),
        (("squash", "--from", "2", "--to", "1", "app", "x"), 2, "none is left"),
        (("squash", "--from", "2", "--keep-base", "app", "app", "x"), 2, "give one of them"),
        (("squash", "--keep-base", "app", "app", "x"), 2, "none is left"),
        (("squash", "--keep-base", "other", "app", "x"), 2, "no base of app"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    store: Path, tmp_path: Path, args: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "damaged").mkdir()
    imagetool("squash", "app", "other", root=store)
    (tmp_path / "damaged/imagetool.scan").write_bytes(b"imagetool scan 2\n" + bytes(100))
    done = imagetool(*args, root=store, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_hostile_image_leaves_no_half_unpacked_bundle(store: Path, tmp_path: Path) -> None:
    imagetool("copy", "app", f"oci:{tmp_path}/layout:a", root=store)
    blobs = sorted((tmp_path / "layout/blobs/sha256").iterdir(), key=lambda blob: blob.read_bytes()[:2] != b"\x1f\x8b")
    raw = bytearray(blobs[0].read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    blobs[0].chmod(0o644)
    blobs[0].write_bytes(raw)
    done = imagetool("unpack", f"oci:{tmp_path}/layout:a", tmp_path / "b", root=store, check=False)
    assert done.returncode == 6
    assert os.listdir(tmp_path / "b") == []
