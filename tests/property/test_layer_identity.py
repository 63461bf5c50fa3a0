"""A layer made of the changes in an overlay, applied to what was below, gives what the overlay showed."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagetool.layer.merge import flatten
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Unpacked, unpack
from tests.support.changes import START, change, operations
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: overlays")]


@contextmanager
def overlay(lowers: list[Path], upper: Path, work: Path, at: Path) -> Iterator[Path]:
    options = f"lowerdir={':'.join(map(str, lowers))},redirect_dir=off,metacopy=off,index=off"
    if upper.name:
        options += f",upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def opener(tar: bytes) -> Callable[[], AbstractContextManager[Iterator[bytes]]]:
    return lambda: contextlib.nullcontext(iter([tar[at : at + 70_000] for at in range(0, len(tar), 70_000)]))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A tmpfs would lack user.* attributes on older kernels; an ordinary directory has everything."""
    with tempfile.TemporaryDirectory(prefix="layers-") as folder:
        yield Path(folder)


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def quiet(text: str) -> None:
    raise AssertionError(f"nothing should be left out: {text}")


def apply(tar: bytes, target: Path, **options: object) -> Unpacked:
    return unpack(read(opener(tar)().__enter__(), where="t"), target, where="t", warn=quiet, **options)  # type: ignore[arg-type]


def check(memory: Path, below: list[tuple[str, bytes, object]], above: list[tuple[str, bytes, object]]) -> None:
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        base = Path(folder)
        for name in ("lower", "upper", "work", "merged", "copied", "layer", "view", "flat", "again", "empty"):
            (base / name).mkdir()
        change(base / "lower", below)
        with overlay([base / "lower"], base / "upper", base / "work", base / "merged") as merged:
            change(merged, above)
        bottom = b"".join(write(scan_upper(base / "lower", clamp=None, warn=quiet)))
        tar = b"".join(write(scan_upper(base / "upper", clamp=None, warn=quiet)))
        with overlay([base / "upper", base / "lower"], Path(), Path(), base / "merged") as merged:
            wanted = describe(merged)

        copy(base / "lower", base / "copied")
        apply(tar, base / "copied", whiteouts="apply")
        assert describe(base / "copied") == wanted

        apply(tar, base / "layer", whiteouts="overlay")
        with overlay([base / "layer", base / "lower"], Path(), Path(), base / "view") as view:
            assert describe(view) == wanted

        flat = b"".join(write(flatten([(opener(bottom), "bottom"), (opener(tar), "top")])))
        apply(flat, base / "flat")
        assert describe(base / "flat") == wanted
        assert b"".join(write(scan_upper(base / "layer", clamp=None, warn=quiet))) == tar


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    below=st.tuples(st.sampled_from([START, []]), st.lists(operations, max_size=8)).map(lambda two: two[0] + two[1]),
    above=st.lists(operations, min_size=1, max_size=12),
)
def test_the_changes_of_a_step_applied_to_what_was_below_give_what_the_step_saw(
    memory: Path, below: list[tuple[str, bytes, object]], above: list[tuple[str, bytes, object]]
) -> None:
    check(memory, below, above)


@pytest.mark.parametrize(
    "above",
    [
        [("removexattr", b"a", ("user.note", b""))],
        [("removexattr", b"a/b", ("system.posix_acl_default", b"")), ("write", b"a/b/b", b"")],
        [("write", b"a/b/b", b"inherits the default ACL")],
        [("remove", b"a", None), ("mkdir", b"a", 0o700)],
        [("remove", b"a/b", None), ("mkdir", b"a/b", 0o700), ("write", b"a/b/a", b"other")],
        [("rename", b"a", b"e.x"), ("mkdir", b"a", 0o755), ("write", b"a/b", b"was a directory")],
        [("replace by symlink", b"a", b"b")],
        [("replace by dir", b"b/a", 0o711)],
        [("replace by file", b"a", b"x"), ("replace by dir", b"a", 0o711), ("mkdir", b"a/b", 0o755)],
        [("link", b"a/b/a", b"a/b/b"), ("append", b"a/b/a", b"more")],
        [("link", b"b/a", b"e.x"), ("chown", b"b/a", (1000, 50))],
        [("append", b"d", b"!")],
        [("chmod", b"a/b", 0o000), ("chmod", b"a", 0o000)],
        [("remove", b"d", None), ("remove", b"b", None), ("remove", b"a", None)],
        [("utime", b"a", 5), ("utime", b"b/a", 7), ("utime", b"b", 9)],
        [("node", b"e.x", (stat.S_IFCHR, 4095, 70_000)), ("fifo", b"b/b", 0o600)],
    ],
    ids=lambda above: "-".join(kind for kind, _, _ in above),
)
def test_known_kinds_of_changes_survive(memory: Path, above: list[tuple[str, bytes, object]]) -> None:
    check(memory, START, above)
