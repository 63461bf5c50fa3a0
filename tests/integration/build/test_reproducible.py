"""The same inputs give the same digest, wherever, whenever and by whomever they are built."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bases import store_with, unpack_image
from tests.support.command import imagetool
from tests.support.remains import small_disk
from tests.support.users import as_user, users_folder

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox AS build
WORKDIR /work/deep
COPY . .
ADD archive.tar /unpacked/
RUN for i in 3 1 2; do mkdir -p /made/$i && echo $i > /made/$i/file; done && ln /made/1/file /made/hard && env > /env
RUN rm -r /made/2 /work/deep/b && echo > /work/deep/b && touch -d '1970-01-02 00:00:00' /made/old \\
 && ls /work/deep > /listing
FROM busybox
COPY --from=build /made /made
COPY --from=build --parents /work/./deep /env /listing /out/
COPY --chmod=u=rwX,go=rX --exclude=*.skip a /a/
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t echo x > /cache/x && echo y > /t/y && echo z > /z
LABEL made="here"
"""


def fill(folder: Path, *, backwards: bool = False) -> Path:
    """Make the same context, its files in one order or the other."""
    folder.mkdir()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("one", "two"):
            member = tarfile.TarInfo(name)
            member.mtime, member.uid, member.size = 86_400, 12, 3
            tar.addfile(member, io.BytesIO(b"abc"))
    files = {f"a/{number}": b"x" * number for number in range(40)}
    files |= {"a/no.skip": b"skip", "b/c/d": b"deep", "archive.tar": archive.getvalue(), "ünï": b"\n"}
    files |= {"Dockerfile": DOCKERFILE.encode(), "holes": bytes(200_000) + b"end"}
    for name, data in sorted(files.items(), reverse=backwards):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "holes" and backwards:
            with open(path, "wb") as file:
                file.truncate(200_000)
                file.seek(200_000)
                file.write(b"end")
        else:
            path.write_bytes(data)
        path.chmod(0o755 if name == "a/7" else 0o644)
    os.link(folder / "a/5", folder / "a/five")
    (folder / "a/link").symlink_to("../b")
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        if backwards:
            os.utime(path, (10**9, 10**9 + len(path.name)), follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def first(busybox_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest that all the others must have."""
    folder = tmp_path_factory.mktemp("first")
    root = store_with(busybox_base, folder)
    context = fill(folder / "context")
    imagetool("build", "-t", "x:1", context, root=root)
    return digest_of(root)


def digest_of(root: Path) -> str:
    shown: str = json.loads(imagetool("inspect", "x:1", root=root).stdout)["digest"]
    return shown


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)


def test_elsewhere_with_other_times_order_umask_zone_and_language(first: str, umask: None, tmp_path: Path) -> None:
    context = fill(tmp_path / "somewhere-else", backwards=True)
    env = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "de_DE.UTF-8", "HOME": "/nonexistent", "COLUMNS": "20"}
    root = tmp_path / "another" / "store"
    imagetool("base", "busybox", root=root, env=env)
    imagetool("build", "-t", "x:1", ".", root=root, env=env, cwd=context)
    assert digest_of(root) == first


def test_on_another_file_system(first: str, busybox_base: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "100m") as disk:
        context = fill(disk / "context", backwards=True)
        root = store_with(busybox_base, tmp_path)
        imagetool("build", "-t", "x:1", context, root=root)
        assert digest_of(root) == first
        imagetool("base", "busybox", root=disk / "store")
        imagetool("build", "-t", "x:1", context, root=disk / "store")
        assert digest_of(disk / "store") == first


@pytest.mark.parametrize("subordinate", [False, True])
def test_by_an_ordinary_user(first: str, subordinate: bool) -> None:
    with users_folder() as folder:
        (folder / "own").mkdir()
        context = fill(folder / "own/context", backwards=True)
        subprocess.run(["chown", "-R", "--no-dereference", "65534:65534", folder / "own"], check=True)
        root = folder / "own/store"
        for command in (["base", "busybox"], ["build", "-t", "x:1", context]):
            done = as_user(
                [sys.executable, "-m", "imagetool", "--root", root, *command], folder=folder, subordinate=subordinate
            )
            assert done.returncode == 0, done.stderr
        assert digest_of(root) == first


def test_from_the_cache_and_without_it(first: str, busybox_base: Path, tmp_path: Path) -> None:
    root = store_with(busybox_base, tmp_path)
    context = fill(tmp_path / "context")
    for flags in ((), (), ("--no-cache",), ("--runtime", "runc", "--no-cache")):
        imagetool("build", "-t", "x:1", *flags, context, root=root)
        assert digest_of(root) == first, flags


# -- SOURCE_DATE_EPOCH -----------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "file").write_text("x")
    os.utime(folder / "file", ns=(1_234_567_890_123_456_789, 1_234_567_890_123_456_789))
    (folder / "Dockerfile").write_text(
        "FROM busybox\nCOPY file /file\nRUN echo $SOURCE_DATE_EPOCH > /epoch && touch -d '1970-01-03 00:00:00' /old\n"
    )
    return folder


def built(
    root: Path, context: Path, *flags: str | Path, env: dict[str, str] | None = None
) -> tuple[dict[str, int], str]:
    """Build; return the time of each file, and `created`, after checking that the config does not hold the epoch."""
    imagetool("build", "-t", "x:1", *flags, context, root=root, env=env)
    shown = json.loads(imagetool("inspect", "x:1", "--config", root=root).stdout)
    assert not [value for value in shown["config"].get("Env", []) if "SOURCE_DATE_EPOCH" in value]
    tree = unpack_image(root, "x:1", context.with_name(f"tree-{len(list(context.parent.iterdir()))}"))
    times = {name: os.lstat(tree / name).st_mtime_ns for name in ("file", "epoch", "old")}
    times["seen"] = int((tree / "epoch").read_text() or -1)
    assert shown["history"][-1]["created"] == shown["created"]
    return times, shown["created"]


def test_the_documented_constant_without_git(store: Path, context: Path) -> None:
    times, created = built(store, context)
    assert created == "1980-01-01T00:00:00Z"
    second = 10**9
    assert times == {
        "file": 315_532_800 * second,
        "epoch": 315_532_800 * second,
        "old": 172_800 * second,
        "seen": 315_532_800,
    }


def test_the_commit_time_of_a_git_context(store: Path, context: Path) -> None:
    env = {**os.environ, "GIT_COMMITTER_DATE": "1500000000 +0200"}
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", "-C", context, *command], check=True, env=env)
    times, created = built(store, context)
    assert created == "2017-07-14T02:40:00Z"
    assert times["seen"] == 1_500_000_000
    assert times["file"] == times["epoch"] == 1_500_000_000 * 10**9


def test_the_environment_or_a_build_argument_say_otherwise(store: Path, context: Path) -> None:
    env = {"SOURCE_DATE_EPOCH": "1000000000"}
    times, created = built(store, context, env=env)
    assert (created, times["seen"]) == ("2001-09-09T01:46:40Z", 1_000_000_000)
    times, created = built(store, context, "--build-arg", "SOURCE_DATE_EPOCH=0", env=env)
    assert (created, times["seen"], times["file"], times["old"]) == ("1970-01-01T00:00:00Z", 0, 0, 0)


def test_a_wrong_epoch_is_refused(store: Path, context: Path) -> None:
    for wrong in ("yesterday", "-1", "1e9"):
        done = imagetool("build", context, root=store, check=False, env={"SOURCE_DATE_EPOCH": wrong})
        assert done.returncode == 2
        assert wrong in done.stderr


def test_times_can_be_preserved(store: Path, context: Path) -> None:
    times, created = built(store, context, "--timestamps", "preserve", env={"SOURCE_DATE_EPOCH": "1000000000"})
    assert times["file"] == 1_234_567_890_123_456_789
    assert times["epoch"] > 1_700_000_000 * 10**9, "written now"
    assert times["seen"] == 1_000_000_000
    assert created == "2001-09-09T01:46:40Z", "who says when, is told that"
    _, created = built(store, context, "--timestamps", "preserve", env={"SOURCE_DATE_EPOCH": ""})
    assert created > "2023"


@pytest.mark.parametrize("flags", [("--rewrite-timestamp",), ("--timestamps", "rewrite")])
def test_later_times_can_be_rewritten_and_earlier_ones_kept(store: Path, context: Path, flags: tuple[str, ...]) -> None:
    epoch, second = "1300000000", 10**9
    times, created = built(store, context, *flags, "--source-date-epoch", epoch)
    assert times == {
        "file": 1_234_567_890_123_456_789,
        "epoch": 1_300_000_000 * second,
        "old": 172_800 * second,
        "seen": 1_300_000_000,
    }
    assert created == "2011-03-13T07:06:40Z"
    times, _ = built(store, context, *flags, "--timestamp", "1000000000")
    assert times["file"] == times["epoch"] == 1_000_000_000 * second


def test_times_cannot_be_both_rewritten_and_preserved(store: Path, context: Path) -> None:
    flags = ("--rewrite-timestamp", "--timestamps", "preserve")
    done = imagetool("build", *flags, context, root=store, check=False)
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


def test_a_dockerfile_may_say_when_too(store: Path, context: Path) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("ARG SOURCE_DATE_EPOCH=1200000000\n" + dockerfile.read_text())
    assert built(store, context)[1] == "2008-01-10T21:20:00Z"
    assert built(store, context, env={"SOURCE_DATE_EPOCH": "1300000000"})[1] == "2011-03-13T07:06:40Z"
    assert built(store, context, "--build-arg", "SOURCE_DATE_EPOCH=1400000000")[1] == "2014-05-13T16:53:20Z"
    flags = ("--timestamp", "1500000000", "--build-arg", "SOURCE_DATE_EPOCH=1400000000")
    assert built(store, context, *flags)[1] == "2017-07-14T02:40:00Z"


def test_the_context_may_be_named_as_the_one_that_says_when(store: Path, context: Path) -> None:
    env = {**os.environ, "GIT_COMMITTER_DATE": "1500000000 +0200"}
    commit = ["-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "-q", "-m", "x"]
    for command in (["init", "-q"], ["add", "."], commit):
        subprocess.run(["git", "-C", context, *command], check=True, env=env)
    flags = ("--build-arg", "SOURCE_DATE_EPOCH=context", "--timestamps", "preserve")
    assert built(store, context, *flags, env={"SOURCE_DATE_EPOCH": "7"})[1] == "2017-07-14T02:40:00Z"
    done = imagetool("build", "--build-arg", "SOURCE_DATE_EPOCH=first", context, root=store, check=False)
    assert done.returncode == 2
    assert "'first'" in done.stderr


def test_layers_of_the_base_stay_as_they_are(store: Path, context: Path) -> None:
    """Another epoch, and times later than it, do not touch what is there already."""
    imagetool("base", "busybox", "-t", "late:1", root=store, env={"SOURCE_DATE_EPOCH": "1700000000"})
    (context / "Dockerfile").write_text("FROM late:1\nRUN true\nCOPY file /\n")
    built_layers = []
    for epoch in ("1000000000", "5"):
        imagetool("build", "-t", "x:1", context, root=store, env={"SOURCE_DATE_EPOCH": epoch})
        built_layers.append(json.loads(imagetool("inspect", "x:1", root=store).stdout)["layers"])
    base = json.loads(imagetool("inspect", "late:1", root=store).stdout)["layers"]
    assert [layers[: len(base)] for layers in built_layers] == [base, base]
    history = json.loads(imagetool("inspect", "x:1", "--config", root=store).stdout)["history"]
    assert history[0]["created"] == "2023-11-14T22:13:20Z"
    assert {entry["created"] for entry in history[1:]} == {"1970-01-01T00:00:05Z"}
