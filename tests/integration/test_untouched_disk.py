"""What squashing, listing and comparing images touch on the disk: the blobs they read and those they make."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import imagetool
from tests.support.peers import peer

pytestmark = [pytest.mark.peer, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it traces system calls")]
#: Calls that change what is at a path; `open` and `openat` do so by their flags.
_CHANGING = "creat,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat,rename,renameat,renameat2,truncate,mount"
_OPENING = "open,openat,openat2"
FILES = 200


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with an image of three layers, `app`, of a few hundred files, of which one is removed."""
    context = tmp_path / "context"
    (context / "many").mkdir(parents=True)
    for number in range(FILES):
        (context / f"many/file{number}").write_bytes(os.urandom(3000))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY many /a\nCOPY many/file1 /a/file2\nCOPY many/file3 /b/c\n")
    imagetool("build", "-t", "app", context, root=tmp_path / "store")
    return tmp_path / "store"


def traced(store: Path, *args: str) -> tuple[list[str], list[str]]:
    """Run the program; return the paths it opened to read below the store's folder, and all that it changed."""
    trace = store.parent / "trace"
    program = [sys.executable, "-m", "imagetool", "--root", str(store), *args]
    peer("strace", "-f", "-qq", "-y", "-s", "4096", "-e", f"trace={_CHANGING},{_OPENING}", "-o", trace, *program)
    read, changed = [], []
    for call, arguments in _succeeded(trace):
        path = re.findall(r'"([^"]*)"', arguments)[-1]
        if call in _OPENING.split(",") and not re.search("O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|O_TRUNC", arguments):
            if path.startswith(str(store.parent)):
                read.append(path.removeprefix(f"{store.parent}/"))
        elif path != "/dev/null":
            changed.append(path.removeprefix(f"{store.parent}/"))
    return read, changed


def _succeeded(trace: Path) -> Iterator[tuple[str, str]]:
    """Yield the calls and their arguments; those that another thread's parted into two lines are put together."""
    begun: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        thread, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            text = begun.pop(thread) + resumed[1]
        found = re.match(r"(\w+)\((.*)\) += (-?\d+|\?)", text)
        assert found, line
        call, arguments, result = found.groups()
        if not result.startswith("-"):
            yield call, arguments


def kinds(paths: list[str]) -> set[str]:
    return {re.sub("[0-9a-f]{16,}", "*", path) for path in paths}


READ = {"store/layout/blobs/sha256/*", "store/layout/index.json"}


@pytest.mark.parametrize("args", [("ls", "app"), ("ls", "--layer", "2", "app"), ("diff", "app", "other")], ids=" ".join)
def test_listing_and_comparing_read_blobs_and_write_nothing(store: Path, args: tuple[str, ...]) -> None:
    imagetool("squash", "--to", "2", "app", "other", root=store)
    read, changed = traced(store, *args)
    assert changed == []
    assert {"store/layout/blobs/sha256/*"} <= kinds(read)
    assert {path for path in kinds(read) if path.startswith("store/layout/")} <= READ | {"store/layout/oci-layout"}
    assert len(read) < FILES / 2


@pytest.mark.parametrize("place", ["flat", "oci:{}/out:flat"], ids=["store", "layout"])
@pytest.mark.parametrize("args", [(), ("--from", "2")], ids=["all", "some"])
def test_squashing_writes_the_new_blobs_and_the_index_and_no_file_of_the_image(
    store: Path, tmp_path: Path, place: str, args: tuple[str, ...]
) -> None:
    read, changed = traced(store, "squash", *args, "app", place.format(tmp_path))
    layouts = ["store/layout", "out"] if place != "flat" else ["store/layout"]
    allowed = {f"{layout}/{path}" for layout in layouts for path in (".staging", ".staging/*", "blobs/sha256/*")}
    allowed |= {"store/layout/index.json", "out", "out/blobs", "out/blobs/sha256", "out/index.json", "out/oci-layout"}
    assert kinds(changed) <= allowed
    # The merged layer, the config and the manifest; in another place those again, and the layer that stayed.
    for layout, count in zip(layouts, (3, 4 if args else 3), strict=False):
        assert len({path for path in changed if path.startswith(f"{layout}/blobs/sha256/")}) == count
    assert len(changed) < FILES / 2
    assert len([path for path in read if "/blobs/" in path]) < FILES / 2
    assert not [path for path in changed if "file" in Path(path).name]


def test_the_trace_would_show_an_unpacking(store: Path, tmp_path: Path) -> None:
    _, changed = traced(store, "unpack", "app", str(tmp_path / "b"))
    assert len([path for path in changed if path.startswith("file")]) >= FILES - 1
    assert subprocess.run(["test", "-f", tmp_path / "b/rootfs/a/file7"], check=False).returncode == 0
