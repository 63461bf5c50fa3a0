"""Hostile layers by class: resource exhaustion, races while packing, parser differentials, archives of images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.errors import ImagetoolError
from imagetool.layer.diff import diff_directory
from imagetool.layer.directory import Scan, scan_directory
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import unpack
from tests.fuzz.run import corpus, mutated
from tests.fuzz.targets import summed
from tests.support.command import imagetool
from tests.support.tars import END, base256, chunks, extended, file, header, padded, record, write_archive
from tests.support.trees import describe

SECRET = b"the canary's own words"


# Archives that ask for more than there is: an error, or little time and memory

SPARSE = b"".join(record(b"GNU.sparse." + k, v) for k, v in ((b"major", b"1"), (b"minor", b"0"), (b"realsize", b"1")))
MANY_KEYS = b"".join(record(b"k%d" % number, b"") for number in range(200_000))
FEWER_KEYS = b"".join(record(b"k%d" % number, b"") for number in range(60_000))
FLOODS: dict[str, Callable[[], bytes]] = {
    "a size below zero": lambda: header(size=base256(-512, 12)),
    "a long name of 8 GiB": lambda: header(b"x", b"L", size=base256(8 << 30, 12)) + bytes(4 << 20),
    "an extended header of 8 GiB": lambda: header(b"x", b"x", size=base256(8 << 30, 12)) + bytes(4 << 20),
    "200,000 pax records": lambda: extended(b"x", MANY_KEYS) + file(b"f"),
    "60,000 pax records within the limit": lambda: extended(b"x", FEWER_KEYS) + file(b"f"),
    "20,000 global headers": lambda: extended(b"g", record(b"uid", b"1")) * 20_000 + file(b"f"),
    "100,000 entries of nothing": lambda: file(b"f") * 100_000,
    "100,000 names that differ": lambda: b"".join(file(b"%d/%d" % (n % 300, n)) for n in range(100_000)),
    "a sparse map of a million regions": lambda: extended(b"x", SPARSE) + file(b"s", padded(b"1000000\n0\n")),
    "a sparse map without end": lambda: extended(b"x", SPARSE) + file(b"s", b"1" * (8 << 20)),
    "a name of 1,300 directories": lambda: extended(b"x", record(b"path", b"d/" * 1300 + b"f")) + file(b"f"),
    "a digit string of a megabyte": lambda: extended(b"x", record(b"size", b"9" * 1_000_000)) + file(b"f"),
}  # fmt: skip

CHILD = """
import sys, time
from imagetool.errors import ImagetoolError
from imagetool.layer.tarreader import read
data = open(sys.argv[1], "rb")
started, first = time.process_time(), open("/proc/self/status").read()
try:
    for _, content in read(iter(lambda: data.read(1 << 20), b""), where="layer 1"):
        for _ in content: pass
    said = "taken"
except ImagetoolError as error:
    said = str(error)
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(time.process_time() - started, peak[0], said)
"""


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_ends_soon_in_little_memory(case: str, tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(FLOODS[case]() + END)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "tar"], capture_output=True, text=True, check=True, timeout=100
    )
    seconds, peak, said = done.stdout.rstrip("\n").split(" ", 2)
    assert int(peak) < 64 * 1024, f"{peak} KiB"
    assert float(seconds) < 4  # of our own CPU time; a few tenths on a machine with nothing else to do
    assert said == "taken" or (said.startswith("layer 1") and "\n" not in said)


def test_a_bomb_in_an_image_names_the_layer_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(40 << 20))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY zeros /\n")
    imagetool("build", "-t", "bomb", tmp_path, root=tmp_path / "store")
    env = {"IMAGETOOL_LIMITS": "layer-bytes=16MiB"}
    done = imagetool("unpack", "bomb", tmp_path / "out", root=tmp_path / "store", check=False, env=env)
    assert done.returncode == 6
    assert "layer sha256:" in done.stderr
    assert "16777216" in done.stderr
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("limit", "says"), [("layer-bytes=70MiB", "layer-bytes=73400320"), ("layer-ratio=100", "layer-ratio=100")]
)
def test_a_bomb_of_several_files_names_the_one_that_went_too_far(tmp_path: Path, limit: str, says: str) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(bytes(30 << 20))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a b c /\n")
    imagetool("build", "-t", "bomb", tmp_path, root=tmp_path / "store")
    args = ("--limit", limit, "--limit", "layer-ratio-floor=50MiB", "unpack", "bomb", tmp_path / "out")
    done = imagetool(*args, root=tmp_path / "store", check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("imagetool: layer sha256:")
    assert says in done.stderr
    assert done.stderr.endswith(f"; reached in entry {'b' if 'ratio' in limit else 'c'}\n")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path / "out") == []


# Trees that change while they are packed


def flip(path: Path, outside: Path, stop: threading.Event) -> None:
    """Turn a path into a directory, a symlink out, a file and a FIFO, in a circle."""
    real = path.with_name("real")
    while not stop.is_set():
        with contextlib.suppress(OSError):
            os.rename(path, real)
        with contextlib.suppress(OSError):
            os.symlink(outside, path)
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.mkfifo(path)
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rename(real, path)


@pytest.mark.parametrize("way", ["upper", "directory", "file"])
def test_what_is_swapped_while_it_is_packed_brings_nothing_from_outside(tmp_path: Path, way: str) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "sub").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (outside / "sub" / "secret").write_bytes(SECRET)
    (tree / "d" / "sub").mkdir(parents=True)
    (tree / "d" / "secret").write_bytes(b"harmless")
    (tree / "d" / "sub" / "secret").write_bytes(b"harmless")
    swapped, target = (tree / "d" / "secret", outside / "secret") if way == "file" else (tree / "d", outside)
    stop = threading.Event()
    thread = threading.Thread(target=flip, args=(swapped, target, stop))
    thread.start()
    taken = 0
    try:
        for _ in range(300):
            with contextlib.suppress(ImagetoolError):
                if way == "upper":
                    tar = b"".join(write(scan_upper(tree, clamp=None, warn=str)))
                else:
                    after = scan_directory(tree)
                    tar = b"".join(write(diff_directory(tree, Scan(), after, clamp=None, warn=str)))
                taken += 1
                assert SECRET not in tar
    finally:
        stop.set()
        thread.join()
    assert (outside / "secret").read_bytes() == SECRET


def test_a_fifo_in_what_is_packed_does_not_hang(tmp_path: Path) -> None:
    before = scan_directory(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "f").write_bytes(b"")
    after = scan_directory(tmp_path)
    assert [e.kind for e, _ in diff_directory(tmp_path, before, after, clamp=None, warn=print)] == ["file", "fifo"]
    status = (tmp_path / "f").stat()
    (tmp_path / "f").unlink()
    os.mkfifo(tmp_path / "f")
    os.utime(tmp_path / "f", ns=(0, status.st_mtime_ns))
    with contextlib.suppress(ImagetoolError):
        list(write(diff_directory(tmp_path, before, after, clamp=None, warn=print)))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: builds in the test's own store")
def test_a_fifo_in_the_build_context_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    os.mkfifo(tmp_path / "c" / "pipe")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY c /c\n")
    done = imagetool("build", "-t", "x", tmp_path, root=tmp_path / "store", check=False)
    assert done.returncode in (0, 1)


# Names that mean something elsewhere


@pytest.mark.parametrize("name", [b"C:\\evil", b"..\\..\\evil", b"\\\\host\\share", b"c:evil", b"a\\..\\..\\b"])
def test_names_of_drives_and_shares_are_names_of_files(tmp_path: Path, name: bytes) -> None:
    unpack(read(chunks(file(name, b"x") + END), where="t"), tmp_path, where="t", warn=print)
    assert os.listdir(os.fsencode(tmp_path)) == [name]


# Readers that disagree


def listed(tar: bytes) -> list[bytes] | None:
    """Return the names GNU tar lists, None when it complains of anything."""
    command = ["tar", "--quoting-style=escape", "-P", "-tf", "-"]
    done = subprocess.run(command, input=tar, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode or done.stderr:
        return None
    return [name.rstrip(b"/") for name in done.stdout.splitlines()]


def ours(tar: bytes) -> list[bytes] | None:
    try:
        return [entry.name for entry, _ in read(chunks(tar), where="t")]
    except ImagetoolError:
        return None


def escaped(name: bytes) -> bytes:
    """Return a name as GNU tar's quoting style `escape` shows it in the C locale."""
    known = {7: b"\\a", 8: b"\\b", 9: b"\\t", 10: b"\\n", 11: b"\\v", 12: b"\\f", 13: b"\\r", 92: b"\\\\"}
    return b"".join(known.get(c) or (bytes((c,)) if 32 <= c < 127 else b"\\%03o" % c) for c in name)


def cleaned(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b".")) or b"."


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_what_we_take_gnu_tar_lists_the_same() -> None:
    draw, seeds = random.Random(5), corpus("layer")
    compared = 0
    for number in range(700):
        tar = summed(seeds[number] if number < len(seeds) else mutated(draw, seeds))
        mine = ours(tar)
        if not mine or not tar.endswith(END):
            continue
        theirs = listed(tar)
        if theirs is None:
            continue  # GNU tar refuses it, or warns that it is not what it should be
        compared += 1
        assert [escaped(name) for name in mine] == [cleaned(name) for name in theirs], tar.hex()
    assert compared > 20


# Whiteouts, as umoci takes them

STACKS: dict[str, list[bytes]] = {
    "opaque beside new files": [file(b"d/old") + END, file(b"d/new") + file(b"d/.wh..wh..opq") + END],
    "opaque first": [file(b"d/old") + END, file(b"d/.wh..wh..opq") + file(b"d/new") + END],
    "whiteout, then again": [file(b"a", b"1") + END, file(b".wh.a") + file(b"a", b"2") + END],
    "whiteout of a directory": [file(b"d/e/f") + file(b"d/g") + END, file(b"d/.wh.e") + END],
    "whiteout of what is not there": [file(b"a") + END, file(b".wh.nothing") + file(b"x/.wh.y") + END],
    "file over directory": [file(b"d/e") + END, file(b"d", b"1") + END],
    "directory over file": [file(b"d") + END, header(b"d/", b"5", mode=0o755) + file(b"d/e") + END],
    "symlink over directory": [file(b"d/e") + END, header(b"d", b"2", linkname=b"x") + END],
    "whiteout and symlink": [file(b"d/e") + END, file(b".wh.d") + header(b"d", b"2", linkname=b"x") + END],
}


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("umoci") is None or os.geteuid() != 0, reason="needs umoci and root")
@pytest.mark.parametrize("case", STACKS)
def test_whiteouts_mean_what_they_mean_to_umoci(case: str, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_layout(layout, STACKS[case])
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:x", tmp_path / "theirs"], check=True, capture_output=True)
    imagetool("unpack", f"oci:{layout}:x", tmp_path / "ours", root=tmp_path / "store")
    mine, theirs = (describe(tmp_path / who / "rootfs", times=False) for who in ("ours", "theirs"))
    assert mine == theirs


def write_layout(layout: Path, layers: list[bytes]) -> None:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [put(tar, "layer.v1.tar") for tar in layers],
    }
    root = put(json.dumps(manifest).encode(), "manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [root | {"annotations": {"org.opencontainers.image.ref.name": "x"}}]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


# Archives of images


def manifest(config: str, *layers: str) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": ["x:1"], "Layers": list(layers)}]).encode()


CIRCLE: dict[str, bytes | tuple[bytes, str]] = {"l": (b"2", "m"), "m": (b"2", "l")}


@pytest.mark.parametrize(
    "shape",
    [
        "layer by two dots",
        "layer by absolute name",
        "config by absolute name",
        "symlink out",
        "hard link out",
        "symlinks in a circle",
    ],
)
def test_an_archive_of_an_image_never_reads_beside_itself(tmp_path: Path, shape: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(file(b"stolen", SECRET) + END)
    diff_id = f"sha256:{hashlib.sha256(secret.read_bytes()).hexdigest()}"
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    ).encode()
    there = str(secret)
    members: dict[str, dict[str, bytes | tuple[bytes, str]]] = {
        "layer by two dots": {"manifest.json": manifest("c.json", "../secret"), "c.json": config},
        "layer by absolute name": {"manifest.json": manifest("c.json", there), "c.json": config},
        "config by absolute name": {"manifest.json": manifest(there, "l.tar"), "l.tar": secret.read_bytes()},
        "symlink out": {"manifest.json": manifest("c.json", "l.tar"), "c.json": config, "l.tar": (b"2", there)},
        "hard link out": {"manifest.json": manifest("c.json", "l.tar"), "c.json": config, "l.tar": (b"1", there)},
        "symlinks in a circle": {"manifest.json": manifest("c.json", "l"), "c.json": config} | CIRCLE,
    }  # fmt: skip
    (tmp_path / "sub").mkdir()
    write_archive(tmp_path / "sub" / "evil.tar", members[shape])
    done = imagetool(
        "copy",
        "docker-archive:evil.tar",
        f"oci:{tmp_path}/out:x",
        root=tmp_path / "store",
        check=False,
        cwd=tmp_path / "sub",
    )
    assert done.returncode in (3, 6), done.stderr
    assert "Traceback" not in done.stderr
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or SECRET not in path.read_bytes()
