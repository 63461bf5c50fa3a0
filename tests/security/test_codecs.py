"""Decompression bombs of every format: one error at the limit, memory flat (measured in a process of its own)."""

from __future__ import annotations

import bz2
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from isal import isal_zlib

from imagetool import limits
from imagetool.streams.codecs import Codec

MIB = 1 << 20
#: Reads a file as a layer with a limit; prints the error, the bytes seen and the growth of the peak of memory in MiB.
CHILD = """
import json, resource, sys, time
from imagetool.errors import ImagetoolError
from imagetool.streams.decompress import decompress
from imagetool.streams.pump import read_chunks
import bz2, lzma, isal.igzip_lib, zstandard
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, error, seen, largest = peak(), "", 0, 0
with open(sys.argv[1], "rb") as file:
    try:
        for piece in decompress(read_chunks(file), where="layer 3", **json.loads(sys.argv[2])):
            seen += len(piece); largest = max(largest, len(piece))
    except ImagetoolError as refused:
        error = f"{type(refused).__name__}: {refused}"
print(json.dumps([error, seen, largest, (peak() - before) // 1024]))
"""


def read_in_child(path: Path, **bounds: int) -> tuple[str, int, int, int]:
    command = [sys.executable, "-c", CHILD, str(path), json.dumps(bounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    error, seen, largest, growth = json.loads(done.stdout)
    return error, seen, largest, growth


def gzip_bomb(size: int) -> bytes:
    deflater = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    return b"".join(deflater.compress(bytes(MIB)) for _ in range(size // MIB)) + deflater.flush()


def zstd_bomb(size: int) -> bytes:
    """Return the densest frame there is: run-length blocks of 4 bytes for 128 KiB each."""
    blocks = size // (128 << 10)
    window = b"\x28\xb5\x2f\xfd\x00\x38"  # no checksum, no size, a window of 128 KiB
    run = (128 << 10) << 3 | 1 << 1
    return window + (run.to_bytes(3, "little") + b"\0") * (blocks - 1) + (run | 1).to_bytes(3, "little") + b"\0"


def test_the_bomb_is_what_libzstd_takes_for_a_frame() -> None:
    assert zstandard.ZstdDecompressor().decompressobj().decompress(zstd_bomb(4 * MIB)) == bytes(4 * MIB)


def member_bomb(size: int) -> bytes:
    """Return one bomb as very many small gzip members."""
    one = gzip_bomb(MIB)
    return one * (size // MIB)


BOMBS: dict[str, Callable[[int], bytes]] = {
    "gzip": gzip_bomb,
    "gzip members": member_bomb,
    "zstd": zstd_bomb,
    "zstd frames": lambda size: zstd_bomb(MIB) * (size // MIB),
    "xz": lambda size: lzma.compress(bytes(size // 4), preset=1) * 4,
    "bzip2": lambda size: bz2.compress(bytes(size // 64)) * 64,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_ends_at_the_limit_with_memory_flat(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[kind](1 << 30))
    assert path.stat().st_size < 12 * MIB
    limit = 512 * MIB
    error, seen, largest, growth = read_in_child(path, limit=limit)
    assert error == f"LimitExceeded: layer 3: unpacks to more than the {limit} bytes allowed"
    assert limit - 2 * MIB <= seen <= limit
    assert largest <= 2 * MIB
    assert growth < 24


def test_a_dense_bomb_ends_at_the_ratio_where_one_is_set(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(zstd_bomb(10 << 30))
    error, seen, _, growth = read_in_child(path, ratio=1000)
    assert error == "LimitExceeded: layer 3: unpacks to more than 1000 times its size, a decompression bomb"
    assert seen <= limits.LAYER_RATIO_FLOOR
    assert growth < 24


@pytest.mark.parametrize("codec", ["gzip", "zstd", "zstd:19"])
def test_zeros_that_were_compressed_here_are_no_bomb(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    size = limits.LAYER_RATIO_FLOOR + (256 << 20)
    with path.open("wb") as out:
        out.writelines(Codec.parse(codec).compress([bytes(MIB)] * (size // MIB)))
    error, seen, _, growth = read_in_child(path)
    assert (error, seen) == ("", size)
    assert growth < 24


def test_the_densest_zstd_is_below_its_ratio() -> None:
    """So the ratio refuses nothing that could be meant; the size of a layer is what bounds zstd."""
    assert (1 << 30) / len(zstd_bomb(1 << 30)) < limits.ZSTD_RATIO < 33_001
    assert limits.LAYER_RATIO > 1032


def test_a_bomb_within_a_bomb_is_opened_once(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip_bomb(0) + gzip_bomb(64 * MIB))
    inner = path.read_bytes()
    deflater = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    path.write_bytes(deflater.compress(inner) + deflater.flush())
    error, seen, _, _ = read_in_child(path)
    assert (error, seen) == ("", len(inner))


def test_a_window_is_refused_before_its_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "window"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00\xff" + b"\x01\x00\x00")  # 3.75 TiB
    error, _, _, growth = read_in_child(path)
    assert error.startswith("LimitExceeded: layer 3: a zstd frame asks for a window of")
    assert growth < 24


def test_a_skippable_frame_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "skip"
    with open(path, "wb") as file:
        file.write(b"\x50\x2a\x4d\x18" + (200 * MIB).to_bytes(4, "little"))
        file.truncate(8 + 200 * MIB)
        file.seek(0, 2)
        file.write(zstd_bomb(MIB))
    error, seen, _, growth = read_in_child(path)
    assert (error, seen) == ("", MIB)
    assert growth < 24


PACKING = """
import os, sys
from pathlib import Path
from imagetool.layer.entry import Entry
from imagetool.layer.tarcodec import write
from imagetool.streams.codecs import Codec
from imagetool.image.write import write_layer
from imagetool.content.layout import LayoutStore
os.sched_getaffinity = lambda process: range(8)  # as many threads as there would be on a larger machine
layout, codec, size = sys.argv[1:]
def tar():
    yield from write([(Entry(b"noise", "file", size=int(size) << 20), map(os.urandom, [1 << 20] * int(size)))])
write_layer(tar(), LayoutStore.create(Path(layout)), Codec.parse(codec))
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


#: At the highest levels noise takes a second for 3 MiB, so there is less of it: enough to fill tables and window.
SMALL = dict.fromkeys(["zstd:19", "zstd:22", "zstd:chunked:19"], 12)
LARGE = dict.fromkeys(["none", "gzip", "gzip:6", "zstd:1", "zstd", "zstd:6", "zstd:7", "zstd:9", "zstd:12"], 160)
LARGE |= dict.fromkeys(["zstd:13", "zstd:chunked", "zstd:chunked:6", "zstd:chunked:9", "zstd:chunked:13"], 160)


@pytest.mark.parametrize(("codec", "mebibytes"), [*LARGE.items(), *SMALL.items()])
def test_a_stream_is_compressed_in_64_mib_of_memory(codec: str, mebibytes: int, tmp_path: Path) -> None:
    """The whole program's, at what is the worst for memory: noise, which comes out as large as it went in."""
    command = [sys.executable, "-c", PACKING, str(tmp_path / "layout"), codec, str(mebibytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024
