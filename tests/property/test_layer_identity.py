"""A layer made of the changes in an overlay, applied to what was below, gives what the overlay showed."""

from __future__ import annotations

import contextlib
import os
import shutil
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
from imagetool.layer.unpack import unpack
from tests.support.trees import describe

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: overlays")]

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
ACL = bytes.fromhex("0200000001000600ffffffff02000500e803000004000400ffffffff10000500ffffffff20000000ffffffff")
NAMES = [b"a", b"b", b"d", b"e.x", b"\xff\xfe", b"long-" + b"n" * 150, "ö ü".encode(), b"with\nnewline"]


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


#: What most lower trees start with, so that there is something to change.
START: list[tuple[str, bytes, object]] = [
    ("mkdir", b"a", 0o755),
    ("setxattr", b"a", ("user.note", b"below")),
    ("write", b"a/a", b"content"),
    ("mkdir", b"a/b", 0o2755),
    ("acl", b"a/b", "system.posix_acl_default"),
    ("write", b"a/b/a", b"deep"),
    ("link", b"a/b/a", b"a/b/d"),
    ("mkdir", b"b", 0o1777),
    ("symlink", b"b/a", b"../a/a"),
    ("write", b"d", b"has capabilities"),
    ("capability", b"d", None),
    ("chmod", b"d", 0o4755),
    ("utime", b"d", -1_500_000_001),
    ("utime", b"a/b", 1_600_000_000_123_456_789),
]

# Operations on a tree. Each is tried; what the kernel refuses in the state at hand is simply not done.

paths = st.sampled_from([b"a", b"a/a", b"a/b", b"a/b/a", b"a/b/d", b"b", b"b/a", b"d", *NAMES[3:], b"a/" + NAMES[4]])
modes = st.sampled_from([0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o600, 0o000, 0o555])
times = st.integers(-(10**18), 2 * 10**18)
contents = st.sampled_from([0, 1, 511, 512, 70_000, 1 << 20, 2_100_000])  # sizes
attributes = st.sampled_from([("user.note", b"\x00\xff=\n"), ("trusted.t", b""), ("user.a=b%3D", b"v")])

operations = st.one_of(
    st.tuples(st.just("write"), paths, contents),
    st.tuples(st.just("append"), paths, st.just(b"more")),
    st.tuples(st.just("mkdir"), paths, modes),
    st.tuples(st.just("chmod"), paths, modes),
    st.tuples(st.just("chown"), paths, st.tuples(st.sampled_from([0, 1000, 3_000_000]), st.sampled_from([0, 50]))),
    st.tuples(st.just("utime"), paths, times),
    st.tuples(st.just("remove"), paths, st.none()),
    st.tuples(st.just("rename"), paths, paths),
    st.tuples(st.just("symlink"), paths, st.sampled_from([b"a", b"../../etc/passwd", b"/nowhere", b"b/d"])),
    st.tuples(st.just("replace by symlink"), paths, st.just(b"b")),
    st.tuples(st.just("replace by file"), paths, contents),
    st.tuples(st.just("replace by dir"), paths, modes),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("setxattr"), paths, attributes),
    st.tuples(st.just("removexattr"), paths, attributes),
    st.tuples(st.just("capability"), paths, st.none()),
    st.tuples(st.just("acl"), paths, st.sampled_from(["system.posix_acl_access", "system.posix_acl_default"])),
    st.tuples(st.just("fifo"), paths, modes),
    st.tuples(
        st.just("node"),
        paths,
        st.sampled_from([(stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 7, 200), (stat.S_IFCHR, 4095, 70_000)]),
    ),
)  # fmt: skip


def remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def replace(path: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove(path)


def perform(root: Path, operation: tuple[str, bytes, object]) -> None:
    kind, name, value = operation
    path = os.path.join(os.fsencode(root), name)
    parts = name.split(b"/")
    # Only below real directories: an operation through a symlink would leave the tree.
    if any(os.path.islink(os.path.join(os.fsencode(root), *parts[:depth])) for depth in range(1, len(parts))):
        return
    is_link = os.path.islink(path)
    if kind.startswith("replace"):
        replace(path)
    match kind:
        case "write" | "replace by file" | "append" if not is_link and not stat.S_ISFIFO(_type(path)):
            with open(path, "ab" if kind == "append" else "wb") as file:
                file.write(value if isinstance(value, bytes) else (b"content" * 300_000)[: int(str(value))])
        case "mkdir" | "replace by dir":
            os.mkdir(path)
            os.chmod(path, value)  # type: ignore[arg-type]
        case "chmod" if not is_link:
            os.chmod(path, value)  # type: ignore[arg-type]
        case "chown":
            os.lchown(path, *value)  # type: ignore[misc]
        case "utime":
            os.utime(path, ns=(value, value), follow_symlinks=False)  # type: ignore[arg-type]
        case "remove":
            remove(path)
        case "rename":
            target = os.path.join(os.fsencode(root), value)  # type: ignore[arg-type]
            subprocess.run([b"mv", b"-T", b"--", path, target], check=False, capture_output=True)
        case "symlink" | "replace by symlink":
            os.symlink(value, path)  # type: ignore[arg-type]
        case "link":
            os.link(path, os.path.join(os.fsencode(root), value), follow_symlinks=False)  # type: ignore[arg-type]
        case "setxattr" if not is_link:
            os.setxattr(path, *value)  # type: ignore[misc]
        case "removexattr" if not is_link:
            os.removexattr(path, value[0])  # type: ignore[index]
        case "capability" if stat.S_ISREG(_type(path)):
            os.setxattr(path, "security.capability", CAPABILITY)
        case "acl" if stat.S_ISDIR(_type(path)) or (stat.S_ISREG(_type(path)) and "access" in str(value)):
            os.setxattr(path, str(value), ACL)
        case "fifo":
            os.mkfifo(path, value)  # type: ignore[arg-type]
        case "node":
            type_bits, major, minor = value  # type: ignore[misc]
            os.mknod(path, type_bits | 0o640, os.makedev(major, minor))
        case _:
            pass


def _type(path: bytes) -> int:
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return 0


def change(root: Path, wanted: list[tuple[str, bytes, object]]) -> None:
    for operation in wanted:
        with contextlib.suppress(OSError):
            perform(root, operation)


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A tmpfs would lack user.* attributes on older kernels; an ordinary directory has everything."""
    with tempfile.TemporaryDirectory(prefix="layers-") as folder:
        yield Path(folder)


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def quiet(text: str) -> None:
    raise AssertionError(f"nothing should be left out: {text}")


def apply(tar: bytes, target: Path, **options: object) -> bool:
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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
