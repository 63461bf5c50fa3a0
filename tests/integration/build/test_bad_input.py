"""What goes wrong ends with one clear error, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool, registry
from tests.support.remains import (
    assert_nothing_left,
    assert_one_error,
    interrupted,
    mounted_below,
    processes_with,
)
from tests.support.users import as_user, users_folder
from tests.support.wire import Exchange, WireRegistry, serving, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "file").write_text("text\n")
    (folder / "Dockerfile").write_text("FROM busybox\nRUN echo a > /a\nCOPY file /\nRUN echo b > /b\n")
    return folder


@pytest.mark.parametrize(
    ("dockerfile", "status", "texts"),
    [
        ("FROM busybox\nRUNN true\n", 1, ("Dockerfile:2", "RUNN", "RUN")),
        ("", 1, ("empty",)),
        ("# nothing\n", 1, ("Dockerfile",)),
        ("FROM busybox\nCOPY nothing /\n", 1, ("'nothing' not found", "Dockerfile:2")),
        ("FROM busybox\nCOPY fil /\n", 1, ("'fil' not found", "did you mean file?")),
        ("FROM busybox\nCOPY *.nope /\n", 1, ("*.nope", "Dockerfile:2")),
        ("FROM busybox\nCOPY ../../etc/passwd /\n", 1, ("not found",)),
        ("FROM busybox\nADD nothing.tar /\n", 1, ("'nothing.tar' not found",)),
        ("FROM busybox\nCOPY --from=busybox /nothing /\n", 1, ("not found",)),
        ("FROM busybox\nCOPY --from=1 / /\n", 1, ("--from=1", "Dockerfile:2")),
        ("FROM busybox\nCOPY --chown=nosuch file /\n", 1, ("nosuch",)),
        ("FROM busybox\nCOPY --chmod=9 file /\n", 1, ("--chmod", "Dockerfile:2")),
        ("FROM busybox\nCOPY file /bin/busybox/below\n", 1, ("busybox", "Dockerfile:2")),
        ("FROM busybox\nRUN exit 7\n", 1, ("exit code 7", "Dockerfile:2")),
        ("FROM busybox\nRUN kill -9 $$\n", 1, ("signal 9",)),
        ('FROM busybox\nRUN ["/no/such/program"]\n', 1, ("/no/such/program", "exit code 127")),
        ('FROM busybox\nRUN ["/etc/passwd"]\n', 1, ("exit code 126",)),
        ("FROM scratch\nRUN true\n", 1, ("/bin/sh",)),
        ("FROM busybox\nUSER nobodyhere\nRUN true\n", 1, ("nobodyhere", "/etc/passwd")),
        ("FROM busybox\nWORKDIR /etc/passwd\n", 1, ("/etc/passwd",)),
        ("FROM busybox\nARG x\nCOPY ${x:?needed} /\n", 1, ("needed", "Dockerfile:3")),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required true\n", 2, ("secret",)),
        ("FROM busybox\nRUN --mount=type=bind,source=nothing,target=/x true\n", 1, ("nothing",)),
        ("FROM busybox\nRUN --mount=type=nosuch,target=/x true\n", 1, ("nosuch", "Dockerfile:2")),
        ("FROM ${nothing}\n", 1, ("Dockerfile:1",)),
        ("FROM Not/A/Reference\n", 1, ("Dockerfile:1",)),
        ("FROM absent.invalid/x\n", 5, ("absent.invalid", "Dockerfile:1", "`imagetool base`")),
        ("FROM busybox\nADD http://127.0.0.1:9/x /\n", 5, ("127.0.0.1:9",)),
        ("FROM busybox\nONBUILD FROM x\n", 1, ("ONBUILD", "Dockerfile:2")),
        ("FROM busybox\nRUN cat <<E\nno end\n", 1, ("Dockerfile:2", "E")),
        ("FROM busybox\n\xff\xfe", 1, ("Dockerfile:2",)),
    ],
)
def test_a_wrong_dockerfile(context: Path, store: Path, dockerfile: str, status: int, texts: tuple[str, ...]) -> None:
    (context / "Dockerfile").write_bytes(dockerfile.encode("latin-1"))
    done = imagetool("build", "-t", "x:1", "--iidfile", context / "iid", context, root=store, check=False)
    assert_one_error(done, status, *texts)
    assert not (context / "iid").exists()
    assert_nothing_left(store)
    assert "x:1" not in imagetool("images", root=store).stdout


@pytest.mark.parametrize(
    ("args", "status", "text"),
    [
        (("build", "nowhere"), 3, "nowhere"),
        (("build", "-f", "nofile", "."), 3, "nofile"),
        (("build", "--target", "nosuch", "."), 2, "nosuch"),
        (("build", "-t", "UPPER", "."), 2, "UPPER"),
        (("push", "absent:1"), 3, "absent:1"),
        (("verify", "absent:1"), 3, "absent:1"),
        (("copy", "busybox", "nosuch://x"), 2, "nosuch"),
        (("copy", "oci:nowhere", "x"), 3, "nowhere"),
        (("copy", "oci-archive:Dockerfile", "x"), 6, "Dockerfile"),
        (("convert", "aci:Dockerfile", "x"), 6, "Dockerfile"),
        (("convert", "aci:nowhere", "x"), 3, "nowhere"),
        (("base", "nowhere"), 3, "nowhere"),
        (("base", "Dockerfile"), 6, "Dockerfile"),
        (("pull", "127.0.0.1:9/x"), 5, "127.0.0.1:9"),
    ],
)
def test_a_wrong_command(context: Path, store: Path, args: tuple[str, ...], status: int, text: str) -> None:
    assert_one_error(imagetool(*args, root=store, check=False, cwd=context), status, text)
    assert_nothing_left(store)


def test_an_unreadable_file_in_the_context_of_an_ordinary_user(busybox_base: Path) -> None:
    with users_folder() as folder:
        store = store_with(busybox_base, folder / "own")
        context = folder / "context"
        context.mkdir()
        (context / "secret").write_text("s")
        (context / "secret").chmod(0)
        (context / "Dockerfile").write_text("FROM busybox\nCOPY . /c\n")
        subprocess.run(["chown", "-R", "--no-dereference", "65534:65534", folder / "own"], check=True)
        command = [sys.executable, "-m", "imagetool", "--root", store, "build", context]
        done = as_user(command, folder=folder)
        assert_one_error(done, 8, "secret", "Permission denied", "Dockerfile:2")
        assert_nothing_left(store)
        (context / ".dockerignore").write_text("secret\n")
        assert as_user(command, folder=folder).returncode == 0, "what is ignored is not read"


# -- a registry that lies ----------------------------------------------------------------------


@pytest.fixture
def wire(store: Path, context: Path) -> Iterator[WireRegistry]:
    """A registry that has image team/app:1; what it answers is up to the test."""
    imagetool("build", "-t", "app:1", context, root=store)
    with serving() as registry:
        imagetool("push", "app:1", f"docker://{registry.host}/team/app:1", root=store)
        yield registry


def _layer(wire: WireRegistry) -> str:
    raw = wire.manifests["team/app@1"][1]
    digest: str = json.loads(raw)["layers"][0]["digest"]
    return digest


def _pull_fails(wire: WireRegistry, tmp_path: Path, status: int, *texts: str) -> None:
    root = tmp_path / "other"
    done = imagetool("pull", f"{wire.host}/team/app:1", root=root, check=False)
    assert_one_error(done, status, *texts)
    assert_nothing_left(root)
    assert imagetool("images", root=root).stdout.count("\n") <= 1
    (tmp_path / "Dockerfile").write_text(f"FROM {wire.host}/team/app:1\nRUN true\n")
    built = imagetool("build", "-t", "x", tmp_path, root=root, check=False)
    assert_one_error(built, status, *texts)
    assert_nothing_left(root)


def test_a_layer_with_other_bytes(wire: WireRegistry, tmp_path: Path) -> None:
    digest = _layer(wire)
    data = wire.blobs[digest]
    wire.blobs[digest] = data[:-1] + bytes([data[-1] ^ 1])
    _pull_fails(wire, tmp_path, 6, digest, "expected")


def test_a_layer_that_is_too_short(wire: WireRegistry, tmp_path: Path) -> None:
    digest = _layer(wire)
    wire.blobs[digest] = wire.blobs[digest][:-1]
    _pull_fails(wire, tmp_path, 6, digest)


def test_a_layer_that_is_missing(wire: WireRegistry, tmp_path: Path) -> None:
    digest = _layer(wire)
    del wire.blobs[digest]
    _pull_fails(wire, tmp_path, 3, digest)


def test_a_manifest_that_is_another_one(wire: WireRegistry, tmp_path: Path) -> None:
    media_type, raw = wire.manifests["team/app@1"]
    digest = wire.add_manifest("team/app", raw, media_type)
    wire.manifests[f"team/app@{digest}"] = (media_type, raw.replace(b'"schemaVersion":2', b'"schemaVersion": 2'))
    root = tmp_path / "other"
    done = imagetool("pull", f"{wire.host}/team/app@{digest}", root=root, check=False)
    assert_one_error(done, 6, digest)
    assert_nothing_left(root)


def test_a_diff_id_that_is_a_lie_is_found_before_anything_is_run(wire: WireRegistry, tmp_path: Path) -> None:
    media_type, raw = wire.manifests["team/app@1"]
    manifest = json.loads(raw)
    config = json.loads(wire.blobs[manifest["config"]["digest"]])
    config["rootfs"]["diff_ids"][0] = "sha256:" + "1" * 64
    data = json.dumps(config).encode()
    manifest["config"].update(digest=wire.add_blob(data), size=len(data))
    wire.add_manifest("team/app", json.dumps(manifest).encode(), media_type, "1")
    root = tmp_path / "other"
    imagetool("pull", f"{wire.host}/team/app:1", root=root)  # a copy moves bytes, it does not unpack them
    assert imagetool("verify", f"{wire.host}/team/app:1", root=root, check=False).returncode == 6
    (tmp_path / "Dockerfile").write_text(f"FROM {wire.host}/team/app:1\nRUN true\n")
    done = imagetool("build", "-t", "x:1", tmp_path, root=root, check=False)
    assert_one_error(done, 6, "1" * 64)
    assert [name for name in os.listdir(root / "snapshots") if name not in ("empty", "boot")] == []


# -- ^C ------------------------------------------------------------------------------------------


def _assert_interrupted(done: subprocess.CompletedProcess[str], root: Path, tmp_path: Path) -> None:
    assert_one_error(done, 130, "interrupted")
    assert_nothing_left(root)
    assert mounted_below(tmp_path) == []


def test_an_interrupted_run(store: Path, context: Path, tmp_path: Path) -> None:
    mark = f"{1_000_000_000 + os.getpid()}"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN (sleep {mark} &) ; sleep {mark}\n")
    done = interrupted(
        ["build", "-t", "x:1", "--iidfile", tmp_path / "iid", context],
        root=store,
        when=lambda: len([line for line in processes_with(mark) if line.startswith("sleep")]) == 2,
    )
    _assert_interrupted(done, store, tmp_path)
    wait_for(lambda: not processes_with(f"sleep {mark}"))
    assert not (tmp_path / "iid").exists()


def test_an_interrupted_copy_of_a_big_file(store: Path, context: Path, tmp_path: Path) -> None:
    with open(context / "big", "wb") as file:
        for _ in range(60):
            file.write(os.urandom(4_000_000))
    (context / "Dockerfile").write_text("FROM busybox\nCOPY big /big\n")

    def half_done() -> bool:
        try:
            return any(entry.stat().st_size > 1_000_000 for entry in os.scandir(store / "layout/.staging"))
        except FileNotFoundError:  # what is done is given its name, and the folder goes with the last
            return False

    done = interrupted(["build", "-t", "x:1", context], root=store, when=half_done)
    _assert_interrupted(done, store, tmp_path)
    assert "x:1" not in imagetool("images", root=store).stdout


def test_an_interrupted_unpacking_of_the_base(store: Path, context: Path, tmp_path: Path) -> None:
    (context / "many").mkdir()
    for number in range(4000):
        (context / f"many/{number}").write_text("x")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY many /many\nRUN sleep 1000\n")
    snapshots = store / "snapshots"
    done = interrupted(
        ["build", "-t", "x:1", context],
        root=store,
        when=lambda: snapshots.is_dir() and any(name.startswith("new-") for name in os.listdir(snapshots)),
    )
    _assert_interrupted(done, store, tmp_path)


@pytest.mark.parametrize("verb", ["pull", "push", "convert"])
def test_an_interrupted_transfer(wire: WireRegistry, store: Path, tmp_path: Path, verb: str) -> None:
    reached, release = threading.Event(), threading.Event()

    def stall(exchange: Exchange) -> bool:
        reached.set()
        release.wait(30)
        return exchange.drop()

    def stall_within(exchange: Exchange) -> bool:
        data = wire.blobs[_layer(wire)]
        exchange.answer(200, data[:20_000], {"Content-Length": str(len(data))})
        exchange.wfile.flush()
        return stall(exchange)

    name = f"docker://{wire.host}/team/app:1"
    root = store if verb == "push" else tmp_path / "other"
    if verb == "push":
        command = ["push", "app:1", f"docker://{wire.host}/new/app:1"]
        wire.blobs.clear()
        wire.on("early PUT", "/blobs/uploads/", stall, times=100)
        wire.on("PUT", "/blobs/uploads/", stall, times=100)
    elif verb == "pull":
        command = ["pull", name]
        wire.on("GET", _layer(wire), stall_within, times=100)
    else:
        command = ["convert", name, f"aci:{tmp_path}/out.aci"]
        wire.on("GET", _layer(wire), stall_within, times=100)
    try:
        done = interrupted(command, root=root, when=reached.is_set)
        _assert_interrupted(done, root, tmp_path)
        assert not list(tmp_path.glob("*out.aci*"))
        assert "new/app@1" not in wire.manifests
        assert f"{wire.host}/team/app" not in imagetool("images", root=root).stdout
    finally:
        release.set()


def test_a_registry_that_was_ended_serves_what_it_has_acknowledged(store: Path, context: Path, tmp_path: Path) -> None:
    imagetool("build", "-t", "app:1", context, root=store)
    with registry(tmp_path / "registry") as address:
        digest = imagetool("push", "app:1", f"docker://{address}/app:1", root=store).stdout
    with registry(tmp_path / "registry") as address:
        assert imagetool("pull", f"{address}/app:1", root=tmp_path / "other").stdout == digest
