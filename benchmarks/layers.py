"""Layers: many small files and a big one, packed, unpacked, edited and compared, against buildah, umoci and GNU tar."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Bench, Cost, measured

TITLE = "Layers"
NEEDS = ("buildah", "umoci", "tar", "gzip")
FILES = 47_000
TREE_BYTES = 350_000_000
BIG_BYTES = 4 << 30
SPACE = "16g"  # the big file, buildah's copy of it, and both layers twice
WORDS = ("index", "util", "lib", "dist", "core", "parse", "render", "stream", "types", "helper", "main", "test")


def run(bench: Bench) -> None:
    """Measure all of it."""
    tree = bench.folder / "context" / "tree"
    make_tree(tree, FILES, TREE_BYTES)
    _pack(
        bench,
        "context",
        f"COPY of {FILES:,} files, {TREE_BYTES // 10**6} MB, FROM scratch to an OCI layout",
        10,
        memory=100,
    )
    _unpack(bench)
    _edit(bench)
    bench.remove("context", "out", "theirs", "ours")
    _change(bench)
    _curve(bench)
    big = bench.folder / "big" / "tree"
    big.parent.mkdir()
    text = make_text(random.Random(3))
    with big.open("wb") as file:
        for _ in range(BIG_BYTES // len(text)):
            file.write(text)
    what = f"COPY of one file of {BIG_BYTES >> 30} GiB FROM scratch to an OCI layout"
    _pack(bench, "big", what, 5, memory=67, pairs=1)
    bench.remove("ours", "out", "theirs")
    zstd = bench.imagetool(
        "build", "--compression", "zstd", "-o", f"type=oci,dest={bench.folder / 'out'}", str(big.parent)
    )
    bench.limit(f"{what}, as zstd: memory", ours=lambda: measured(zstd), figure="rss", at_most=67, runs=1)


def make_text(draw: random.Random) -> bytes:
    """Return 2 MiB that compress like source code."""
    pieces = (
        "const ",
        "function ",
        "return ",
        "module.exports = ",
        "require('",
        "');\n",
        "if (",
        ") {\n  ",
        "=> ",
        "}\n",
    )
    text = "".join(draw.choice(pieces) + f"v{draw.getrandbits(20):x}" for _ in range(300_000)).encode()
    return text[: 2 << 20]


def make_tree(root: Path, files: int, total: int) -> None:
    """Make a tree like node_modules: the same every time; sizes and depths are spread as they are there."""
    draw = random.Random(1)
    sizes = [draw.lognormvariate(7.2, 1.6) for _ in range(files)]
    scale = total / sum(sizes)
    text = make_text(draw)
    number = 0
    while number < files:
        folder = root / "node_modules" / f"package-{draw.randrange(10**6):06d}"
        folders = [folder]
        for _ in range(draw.randrange(1, 6)):
            folders.append(draw.choice(folders) / draw.choice(WORDS))
        for _ in range(min(draw.randrange(20, 100), files - number)):
            at = draw.choice(folders)
            at.mkdir(parents=True, exist_ok=True)
            size = max(1, int(sizes[number] * scale))
            start = draw.randrange(len(text) // 2)
            with open(at / f"{draw.choice(WORDS)}{number}.js", "wb") as file:
                while size > 0:
                    size -= file.write(text[start : start + size])
            number += 1


def _pack(bench: Bench, context: str, what: str, target: float, *, memory: float, pairs: int = 3) -> None:
    folder = bench.folder / context
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY tree /tree\n")
    out = bench.folder / "out"

    def ours() -> Cost:
        bench.remove("ours", "out")
        return measured(bench.imagetool("build", "-o", f"type=oci,dest={out}", str(folder)))

    def theirs() -> Cost:
        bench.remove("out", "theirs")
        return measured(
            bench.buildah("bud", "--no-cache", "-t", "files", str(folder)),
            bench.buildah("push", "files", f"oci:{out}:files"),
        )

    bench.compare(what, "buildah", ours=ours, theirs=theirs, figure="cpu", target=target, pairs=pairs)
    bench.remove("theirs")
    bench.limit(f"{what}: memory", ours=ours, figure="rss", at_most=memory, runs=1)


def _layout(bench: Bench) -> Path:
    layout = bench.folder / "layout"
    measured(bench.imagetool("build", "-t", "files", str(bench.folder / "context")))
    measured(bench.imagetool("copy", "files", f"oci:{layout}:files"))
    return layout


def _unpack(bench: Bench) -> None:
    bench.remove("ours", "layout")
    layout = _layout(bench)
    blob = max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    what = f"unpack {FILES:,} files"

    def ours() -> Cost:
        bench.remove("unpacked")
        return measured(bench.imagetool("unpack", f"oci:{layout}:files", str(bench.folder / "unpacked")))

    def gnu() -> Cost:
        bench.remove("theirs")
        (bench.folder / "theirs").mkdir()
        return measured(["bash", "-c", f"gzip -dc {blob} | tar -x -C {bench.folder / 'theirs'}"])

    def umoci() -> Cost:
        bench.remove("theirs")
        return measured(["umoci", "unpack", "--image", f"{layout}:files", str(bench.folder / "theirs")])

    bench.compare(what, "gzip, GNU tar", ours=ours, theirs=gnu, figure="wall", target=1 / 1.5)
    bench.compare(what, "umoci", ours=ours, theirs=umoci, figure="cpu", target=5)


def _edit(bench: Bench) -> None:
    layout = bench.folder / "layout"
    bench.remove("unpacked", "theirs")
    measured(bench.imagetool("unpack", f"oci:{layout}:files", str(bench.folder / "unpacked")))
    measured(["umoci", "unpack", "--image", f"{layout}:files", str(bench.folder / "theirs")])
    times = iter(range(1000))

    def edited(name: str) -> None:
        rootfs = bench.folder / name / "rootfs"
        first = next(path for path in sorted(rootfs.rglob("*.js")))
        first.write_text(f"changed {next(times)}")

    def ours() -> Cost:
        edited("unpacked")
        return measured(bench.imagetool("repack", str(bench.folder / "unpacked"), f"oci:{layout}:ours"))

    def theirs() -> Cost:
        edited("theirs")
        return measured(["umoci", "repack", "--image", f"{layout}:theirs", str(bench.folder / "theirs")])

    what = f"repack after 1 of {FILES:,} files changed"
    bench.compare(what, "umoci", ours=ours, theirs=theirs, figure="cpu", target=10)


_DIFF = """
import sys, time
from pathlib import Path
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
started = time.perf_counter()
size = sum(map(len, write(scan_upper(Path(sys.argv[1]), clamp=None, warn=print))))
print(time.perf_counter() - started)
"""


def _change(bench: Bench) -> None:
    """The difference that one file makes, in the upper directory over an image of 100,000 files."""
    lower, upper, work, merged = (bench.folder / name for name in ("lower", "upper", "work", "merged"))
    for number in range(100_000):
        folder = lower / f"d{number // 500}"
        if number % 500 == 0:
            folder.mkdir(parents=True)
        (folder / f"f{number}").write_bytes(b"x")
    for folder in (upper, work, merged):
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    script = f"mount -t overlay o -o {options} {merged} && echo changed > {merged}/d77/f38500 && umount {merged}"
    subprocess.run(["unshare", "--mount", "--propagation", "private", "bash", "-c", script], check=True)

    def ours() -> Cost:
        done = subprocess.run(
            [sys.executable, "-c", _DIFF, str(upper)], capture_output=True, text=True, check=True, cwd=os.getcwd()
        )
        return Cost(float(done.stdout), float(done.stdout))

    bench.limit("difference of 1 file changed in 100,000", ours=ours, figure="wall", at_most=0.05)
    bench.remove("lower", "upper", "work", "merged")


_CURVE = """
import sys, time
from imagetool.layer.entry import Entry
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
count = int(sys.argv[1])
items = ((Entry(b"d%d/file%d.js" % (n // 100, n), "file", 0o644, size=100, mtime=n % 9 * 10**9), (b"x" * 100,)) for n in range(count))
assert sum(1 for _ in read(write(items), where="curve")) == count
"""


def _curve(bench: Bench) -> None:
    """Entries written and read again: time linear, memory flat."""

    def stream(count: int) -> Callable[[], Cost]:
        return lambda: measured([sys.executable, "-c", _CURVE, str(count)])

    for count in (1_000, 10_000, 100_000, 1_000_000):
        bench.limit(
            f"write and read {count:,} entries", ours=stream(count), figure="cpu", at_most=0.3 + count / 120_000, runs=1
        )
        bench.limit(f"write and read {count:,} entries", ours=stream(count), figure="rss", at_most=64, runs=1)
