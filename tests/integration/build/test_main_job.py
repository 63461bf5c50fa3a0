"""The main job through the command line, on real input: build, push, pull, verify, convert."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.image.image import load
from imagetool.layer.entry import Entry
from imagetool.layer.merge import flatten
from tests.support.command import imagetool, registry

pytestmark = pytest.mark.root

DOCKERFILE = """\
ARG BASE=busybox
FROM ${BASE} AS build
WORKDIR /work
COPY --chown=7:8 src/ .
RUN cat a b > out && chmod 4755 out && echo kept > /tmp/kept && id -u > /tmp/uid
RUN <<EOF
rm a
mkdir -p /opt/swap && echo 1 > /opt/swap/file
EOF
RUN rm -r /opt/swap && echo file > /opt/swap
FROM ${BASE}
ENV NAME=value
COPY --from=build /work/out /app/out
COPY --from=build /opt /opt
COPY <<TEXT /app/text
hello $NAME
TEXT
RUN test "$(cat /opt/swap)" = file && test "$(cat /app/text)" = "hello value" && rm -rf /home
USER 1000:1000
CMD ["cat", "/app/out"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "src").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "src/a").write_text("first\n")
    (folder / "src/b").write_text("second\n")
    (folder / "src/link").symlink_to("a")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    imagetool("base", "busybox", root=root)
    return root


def tree(root: Path, name: str) -> dict[bytes, tuple[Entry, bytes]]:
    with opened(name, Workplace(root)) as (store, descriptor):
        items = flatten(load(store, descriptor).openers())
        found = {entry.name: (entry, b"".join(content)) for entry, content in items}
    found.pop(b".", None)
    return found


def mounts(folder: Path) -> list[str]:
    """Return what is mounted below the test's own folder: elsewhere others mount meanwhile."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def test_build_push_pull_verify_convert(context: Path, store: Path, tmp_path: Path) -> None:
    identity = imagetool("build", "-t", "demo:1", context, root=store).stdout.strip()
    assert mounts(tmp_path) == []
    with registry(tmp_path / "registry") as address:
        pushed = imagetool("push", "demo:1", f"docker://{address}/team/demo:1", root=store).stdout.strip()
        other = tmp_path / "other"
        assert imagetool("pull", f"{address}/team/demo:1", root=other).stdout.strip() == pushed
    name = f"{address}/team/demo:1"
    assert "FAILED" not in imagetool("verify", name, root=other).stdout
    shown = json.loads(imagetool("inspect", name, root=other).stdout)
    assert (shown["id"], shown["digest"]) == (identity, pushed)
    assert shown["config"]["User"] == "1000:1000"
    assert not any(value.startswith("SOURCE_DATE_EPOCH") for value in shown["config"]["Env"])
    files = tree(other, name)
    assert files[b"app/out"][1] == b"first\nsecond\n"
    assert files[b"app/out"][0].mode == 0o4755
    assert files[b"opt/swap"][0].kind == "file"
    assert b"home" not in files
    assert not {b"etc/resolv.conf", b"etc/hosts", b"proc", b"dev", b"sys"} & files.keys(), "mount points were committed"
    aci = tmp_path / "demo.aci"
    assert imagetool("convert", name, f"aci:{aci}", root=other).stdout.startswith("sha512-")
    imagetool("convert", f"aci:{aci}", "back:1", root=other)
    assert tree(other, "back:1") == files
    back = json.loads(imagetool("inspect", "back:1", root=other).stdout)
    assert back["config"] == shown["config"]


def test_a_second_build_takes_everything_from_the_cache(context: Path, store: Path) -> None:
    first = imagetool("build", "-t", "demo:1", context, root=store)
    for path in (context / "src").iterdir():
        os.utime(path, (1, 1), follow_symlinks=False)
    second = imagetool("build", "-t", "demo:1", context, root=store)
    assert second.stdout == first.stdout
    assert second.stderr.count("Using cache") == 9
    (context / "src/b").write_text("changed\n")
    third = imagetool("build", "-t", "demo:1", context, root=store)
    assert third.stdout != first.stdout
    assert third.stderr.count("Using cache") == 1


def test_the_same_build_elsewhere_has_the_same_digest(context: Path, store: Path, tmp_path: Path) -> None:
    first = imagetool("build", context, root=store).stdout
    other, moved = tmp_path / "elsewhere", tmp_path / "moved"
    subprocess.run(["cp", "-r", "--no-preserve=all", context, moved], check=True)
    names = sorted((moved / "src").iterdir(), reverse=True)
    for number, path in enumerate(names):
        os.utime(path, (10**9 + number, 10**9 + number), follow_symlinks=False)
    os.chmod(moved / "src/a", 0o644)
    env = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "LANG": "C"}
    old = os.umask(0o077)
    try:
        imagetool("base", "busybox", root=other, env=env)
        second = imagetool("build", moved, root=other, env=env).stdout
    finally:
        os.umask(old)
    assert second == first


@pytest.mark.parametrize(
    ("dockerfile", "status", "text"),
    [
        ("FROM busybox\nRUNN true\n", 1, "Dockerfile:2"),
        ("FROM busybox\nCOPY nothing /\n", 1, "'nothing' not found"),
        ("FROM busybox\nRUN exit 7\n", 1, "exit code 7"),
        ("FROM busybox\nUSER nobodyhere\nRUN true\n", 1, "nobodyhere"),
        ("FROM absent.invalid/x\n", 5, "absent.invalid"),
    ],
)
def test_a_bad_build_ends_with_one_clear_error(
    context: Path, store: Path, dockerfile: str, status: int, text: str
) -> None:
    (context / "Dockerfile").write_text(dockerfile)
    done = imagetool("build", "--iidfile", context / "iid", context, root=store, check=False)
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (context / "iid").exists()


def test_an_interrupt_ends_the_container_and_leaves_nothing(context: Path, store: Path) -> None:
    mark = 1_000_000 + os.getpid()  # this test may run beside itself
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN echo started && sleep {mark}\n")
    command = [sys.executable, "-m", "imagetool", "--root", str(store), "build", str(context)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "  started" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"sleep {mark}" not in running
    assert mounts(store) == []
    assert not [name for name in os.listdir(store / "snapshots") if name.startswith("new-")]


def test_a_damaged_blob_is_found(context: Path, store: Path) -> None:
    imagetool("build", "-t", "demo:1", context, root=store)
    shown = json.loads(imagetool("inspect", "demo:1", root=store).stdout)
    algorithm, _, name = shown["layers"][-1]["digest"].partition(":")
    path = store / "layout/blobs" / algorithm / name
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 1
    path.write_bytes(raw)
    done = imagetool("verify", "demo:1", root=store, check=False)
    assert done.returncode == 6
    assert done.stdout.count("FAILED") == 1
    assert name in done.stdout
