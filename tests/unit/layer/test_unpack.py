"""Directories that a layer changes without describing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagetool.layer.entry import Entry
from imagetool.layer.unpack import Unpacked, Whiteouts, unpack

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: whiteouts")
OWN = os.geteuid(), os.getegid()


def apply(target: Path, *entries: Entry, whiteouts: Whiteouts = "apply") -> Unpacked:
    items = [(entry._replace(uid=OWN[0], gid=OWN[1]), ()) for entry in entries]
    return unpack(items, target, where="t", whiteouts=whiteouts, warn=print)


def file(name: bytes) -> Entry:
    return Entry(name, "file")


def test_one_keeps_its_time_when_something_goes_and_something_comes(tmp_path: Path) -> None:
    apply(tmp_path, Entry(b"d", "dir", 0o755, mtime=5), file(b"d/old"))
    apply(tmp_path, file(b"d/.wh.old"), file(b"d/new"))
    assert os.listdir(tmp_path / "d") == ["new"]
    assert os.stat(tmp_path / "d").st_mtime_ns == 5


@root
def test_one_with_nothing_but_a_whiteout_is_left_to_the_layers_below_it(tmp_path: Path) -> None:
    done = apply(tmp_path, file(b"d/e/.wh.old"), file(b"d/f"), whiteouts="overlay")
    assert done.implied == (b"d", b"d/e")
