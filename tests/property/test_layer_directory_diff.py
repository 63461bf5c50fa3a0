"""The difference of a directory between two scans, applied to what was before, gives what is now."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagetool.layer.diff import diff_directory
from imagetool.layer.directory import Scan, scan_directory
from imagetool.layer.merge import flatten
from imagetool.layer.scan import scan_upper
from imagetool.layer.scanfile import parse, render
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import unpack
from tests.support.changes import START, change, operations
from tests.support.tars import chunks, opener
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners")]
Operation = tuple[str, bytes, object]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="directory-diff-") as folder:
        yield Path(folder)


def quiet(text: str) -> None:
    raise AssertionError(f"nothing should be left out: {text}")


def kept(scan: Scan) -> Scan:
    """Through the file and back."""
    again, notes = parse(render(scan, {"note": 1}), where="scan")
    assert again == scan
    assert notes == {"note": 1}
    return again


def tar_of(root: Path, before: Scan, after: Scan) -> bytes:
    return b"".join(write(diff_directory(root, before, after, clamp=None, warn=quiet)))


def check(place: Path, below: list[Operation], above: list[Operation]) -> None:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        base = Path(folder)
        for name in ("tree", "copy", "flat"):
            (base / name).mkdir()
        change(base / "tree", below)
        subprocess.run(["cp", "-a", f"{base}/tree/.", str(base / "copy")], check=True)
        bottom = b"".join(write(scan_upper(base / "copy", clamp=None, warn=quiet)))
        before = kept(scan_directory(base / "tree"))
        assert tar_of(base / "tree", before, scan_directory(base / "tree", known=before)) == bytes(1024)
        change(base / "tree", above)
        after = scan_directory(base / "tree", known=before)
        fresh = scan_directory(base / "tree")
        assert (after.records, after.xattrs, after.targets) == (fresh.records, fresh.xattrs, fresh.targets)
        tar = tar_of(base / "tree", before, after)
        wanted = describe(base / "tree")
        unpack(read(chunks(tar), where="t"), base / "copy", where="t", warn=quiet)
        assert describe(base / "copy") == wanted
        layers = [(opener(bottom), "bottom"), (opener(tar), "top")]
        unpack(read(write(flatten(layers)), where="t"), base / "flat", where="t", warn=quiet)
        assert describe(base / "flat") == wanted


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    below=st.tuples(st.sampled_from([START, []]), st.lists(operations, max_size=8)).map(lambda two: two[0] + two[1]),
    above=st.lists(operations, min_size=1, max_size=12),
)
def test_the_difference_applied_to_what_was_before_gives_what_is_now(
    place: Path, below: list[Operation], above: list[Operation]
) -> None:
    check(place, below, above)


@pytest.mark.parametrize(
    "above",
    [
        [("remove", b"a", None), ("mkdir", b"a", 0o755)],
        [("replace by symlink", b"a", b"b")],
        [("replace by file", b"a", 5)],
        [("replace by dir", b"d", 0o700), ("write", b"d/a", b"x")],
        [("replace by dir", b"b/a", 0o711)],
        [("rename", b"a/b", b"b/d")],
        [("remove", b"a/b/d", None)],
        [("remove", b"a/b/a", None)],
        [("link", b"d", b"e.x")],
        [("append", b"a/b/d", b"one name of two")],
        [("fifo", b"e.x", 0o600), ("node", b"b/b", (0o020000, 1, 3))],
    ],
    ids=lambda above: "-".join(f"{kind} {name!r}" for kind, name, _ in above),
)
def test_known_kinds_of_changes_survive(place: Path, above: list[Operation]) -> None:
    check(place, START, above)
