"""A build takes no more memory for a large file than for a small one, however its layer is compressed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

SIZE = 192 << 20


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that does not compress: what is made of it is as large, and has to be held nowhere either."""
    folder = tmp_path_factory.mktemp("context")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY large /large\n")
    draw = random.Random(1)
    with open(folder / "large", "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(draw.randbytes(1 << 20))
    return folder


#: Two CPUs are what makes one layer at a time.
_ON_TWO_CPUS = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])"
#: Not `ru_maxrss`, which begins with what the process had that started this one.
_RUN = """
import runpy, sys
try:
    runpy.run_module("imagetool", run_name="__main__", alter_sys=True)
finally:
    print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "zstd:9", "zstd:chunked"])
def test_memory_does_not_grow_with_the_layer(context: Path, tmp_path: Path, compression: str) -> None:
    options = ["--root", str(tmp_path / "store"), "build", "--compression", compression]
    options += ["-o", f"type=oci,dest={tmp_path / 'out'}", str(context)]
    done = subprocess.run([sys.executable, "-c", _RUN, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(path.stat().st_size for path in (tmp_path / "out/blobs/sha256").iterdir()) >= SIZE
    assert int(done.stdout.split()[-1]) <= 64 << 10


@pytest.mark.parametrize("compression", ["gzip:6", "zstd", "zstd:5", "zstd:13", "zstd:chunked:9"])
def test_memory_does_not_grow_with_the_layers_that_are_compressed_anew(compression: str, tmp_path: Path) -> None:
    draw = random.Random(2)
    layers = [(tmp_path / f"large{number}") for number in range(3)]
    for layer in layers:
        layer.write_bytes(draw.randbytes(24 << 20))
    (tmp_path / "Dockerfile").write_text("FROM scratch\n" + "".join(f"COPY {at.name} /\n" for at in layers))
    place = f"oci:{tmp_path / 'out'}:a"
    build = ["--root", str(tmp_path / "store"), "build", "-t", "a", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "imagetool", *build], capture_output=True, check=True)
    options = ["--root", str(tmp_path / "store"), "copy", "--compression", compression, "a", place]
    command = [sys.executable, "-c", _ON_TWO_CPUS + _RUN, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sizes = [path.stat().st_size for path in (tmp_path / "out/blobs/sha256").iterdir()]
    assert sum(size >= 24 << 20 for size in sizes) == 3
    assert int(done.stdout.split()[-1]) <= 64 << 10
