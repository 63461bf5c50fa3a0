"""Random changes to a directory tree, of every kind the kernel offers."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

from hypothesis import strategies as st

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
ACL = bytes.fromhex("0200000001000600ffffffff02000500e803000004000400ffffffff10000500ffffffff20000000ffffffff")
NAMES = [b"a", b"b", b"d", b"e.x", b"\xff\xfe", b"long-" + b"n" * 150, "ö ü".encode(), b"with\nnewline"]


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
