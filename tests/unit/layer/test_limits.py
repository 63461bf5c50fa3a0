"""Every limit of layers: taken at the limit, refused one past it, and set for a run by the environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool import limits
from imagetool.config.environment import adjust_limits
from imagetool.errors import LimitExceeded, UsageError
from imagetool.layer.tarreader import read
from imagetool.streams.codecs import Codec
from imagetool.streams.decompress import decompress
from tests.support.tars import END, chunks, extended, file, header, record


def entries(tar: bytes) -> int:
    return sum(1 for _ in read(chunks(tar + END), where="layer 3"))


def pax(size: int) -> bytes:
    """An extended header whose body has `size` bytes."""
    body = next(
        body for length in range(size) if len(body := record(b"comment", b"x" * (size - 12 - length % 12))) == size
    )
    return extended(b"x", body) + file(b"f")


AT_LIMIT = {
    "TAR_ENTRIES": (7, lambda n: file(b"f") * n),
    "TAR_NAME_BYTES": (150, lambda n: extended(b"x", record(b"path", b"n" * n)) + file(b"f")),
    "TAR_PAX_BYTES": (600, pax),
    "TAR_XATTR_BYTES": (90, lambda n: extended(b"x", record(b"SCHILY.xattr.user.x", b"v" * n)) + file(b"f")),
    "LAYER_BYTES": (1000, lambda n: file(b"f", bytes(n))),
}


@pytest.mark.parametrize("name", AT_LIMIT)
def test_a_limit_of_archives_holds_at_its_value_and_not_one_past_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, archive = AT_LIMIT[name]
    monkeypatch.setattr(limits, name, value)
    assert entries(archive(value)) >= 1
    with pytest.raises(Exception, match="layer 3") as refused:
        entries(archive(value + 1))
    assert "\n" not in str(refused.value)


def test_a_long_link_target_has_the_limit_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TAR_NAME_BYTES", 150)
    assert entries(extended(b"K", b"t" * 150) + header(b"l", b"2")) == 1
    with pytest.raises(Exception, match="links to nothing that can be"):
        entries(extended(b"K", b"t" * 151) + header(b"l", b"2"))


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_the_size_of_a_layer_is_bounded_whatever_its_codec(codec: str) -> None:
    packed = list(Codec.parse(codec).compress([bytes(5000)]))
    assert sum(map(len, decompress(packed, where="layer 3", limit=5000))) == 5000
    with pytest.raises(LimitExceeded, match="layer 3"):
        sum(map(len, decompress(packed, where="layer 3", limit=4999)))


@pytest.mark.parametrize(("codec", "name"), [("gzip:1", "LAYER_RATIO"), ("zstd", "ZSTD_RATIO")])
def test_a_ratio_that_was_set_holds_at_its_value_and_not_one_past_it(
    codec: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = b"".join(Codec.parse(codec).compress([b"%07d\n" % number * 4096 for number in range(64)]))
    monkeypatch.setattr(limits, "LAYER_RATIO_FLOOR", 1)
    whole = (64 * 8 * 4096) // len(packed)
    monkeypatch.setattr(limits, name, whole + 1)
    assert sum(map(len, decompress([packed], where="layer 3"))) == 64 * 8 * 4096
    monkeypatch.setattr(limits, name, whole)
    with pytest.raises(LimitExceeded, match=name.lower().replace("_", "-")):
        sum(map(len, decompress([packed], where="layer 3")))


def test_a_window_that_was_set_holds_at_its_value_and_not_one_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = list(Codec.parse("zstd:1:long=24").compress([bytes(1 << 20)] * 20))
    monkeypatch.setattr(limits, "ZSTD_WINDOW_LOG", 24)
    assert sum(map(len, decompress(packed, where="layer 3"))) == 20 << 20
    monkeypatch.setattr(limits, "ZSTD_WINDOW_LOG", 23)
    with pytest.raises(LimitExceeded, match="layer 3: a zstd frame asks for a window"):
        sum(map(len, decompress(packed, where="layer 3")))


def test_the_ratio_counts_from_its_floor_on(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = b"".join(Codec.parse("gzip:1").compress([bytes(1 << 20)] * 8))
    monkeypatch.setattr(limits, "LAYER_RATIO_FLOOR", 8 << 20)
    assert sum(map(len, decompress([packed], where="layer 3", ratio=2))) == 8 << 20
    monkeypatch.setattr(limits, "LAYER_RATIO_FLOOR", (8 << 20) - 1)
    with pytest.raises(LimitExceeded, match="layer 3"):
        sum(map(len, decompress([packed], where="layer 3", ratio=2)))


def test_every_limit_that_can_be_set_exists_and_is_a_number() -> None:
    for name in limits.ADJUSTABLE:
        assert isinstance(getattr(limits, name), int)


def test_limits_are_set_by_the_environment_for_one_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imagetool", "--root", str(tmp_path), "limits", "--json"]
    env = {**os.environ, "IMAGETOOL_LIMITS": "layer-bytes=1TiB, tar-entries=5,scan-bytes=3k"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    shown = json.loads(done.stdout)
    assert (shown["layer-bytes"], shown["tar-entries"], shown["scan-bytes"]) == (1 << 40, 5, 3072)
    assert shown["tar-pax-bytes"] == limits.TAR_PAX_BYTES


@pytest.mark.parametrize(
    "text", ["x=1", "layer-bytes", "layer-bytes=", "layer-bytes=-1", "layer-bytes=0", "layer-bytes=1x", "chunk=1"]
)
def test_a_setting_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="IMAGETOOL_LIMITS"):
        adjust_limits({"IMAGETOOL_LIMITS": text})


def test_a_limit_that_was_set_holds_in_every_codec(tmp_path: Path) -> None:
    """Also in modules that were imported before the limits were set."""
    script = (
        "from imagetool.streams.decompress import decompress\n"
        "from imagetool.config.environment import adjust_limits\nadjust_limits()\n"
        "print(sum(map(len, decompress([bytes(100)], where='l'))))"
    )
    for value, code in (("100", 0), ("99", 1)):
        env = {**os.environ, "IMAGETOOL_LIMITS": f"layer-bytes={value}"}
        done = subprocess.run([sys.executable, "-c", script], env=env, check=False, capture_output=True, text=True)
        assert done.returncode == code, done.stderr


def test_the_table_names_every_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imagetool", "--root", str(tmp_path), "limits"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"^([a-z-]+) ", table, re.MULTILINE) == [n.lower().replace("_", "-") for n in limits.ADJUSTABLE]
