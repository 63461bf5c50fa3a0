"""Paths are resolved alike by the kernel and by the walk that takes its place, and never lead outside."""

from __future__ import annotations

import errno
import os
import posixpath
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagetool.safefs import openat2
from imagetool.safefs.openat2 import open_beneath, open_in_root, walk_open
from tests.support.containers import open_files

#: name -> where it leads; None for a directory, "" for a file.
CORPUS: dict[str, str | None] = {
    "a": None,
    "a/b": None,
    "a/b/file": "",
    "file": "",
    "up": "..",
    "out": "../../../../../outside",
    "absolute": "/a/b",
    "absolute-file": "/a/b/file",
    "etc": "/etc",
    "self": ".",
    "loop": "loop",
    "ping": "pong",
    "pong": "ping",
    "dangling": "nowhere/at/all",
    "a/back": "../a/b",
    "a/b/root": "/",
    "a/b/deep": "../../../../../../a/b/file",
    "slashes": "//a///b/",
    "dots": "./a/./b/.",
    "proc": "/proc/self/root",
    "tail": "a/b/.",
    "tail-file": "file/",
}


@pytest.fixture(params=["openat2", "walk"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(openat2._Kernel, "has_openat2", request.param == "openat2")
    return str(request.param)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    place = tmp_path_factory.mktemp("resolution")
    (place / "outside").mkdir()
    (place / "outside/file").write_text("secret")
    folder = place / "root"
    folder.mkdir()
    for name, what in CORPUS.items():
        path = folder / name
        if what is None:
            path.mkdir()
        elif what == "":
            path.write_text(name)
        else:
            path.symlink_to(what)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def components(path: str) -> list[str]:
    path = f"{path}." if path.endswith("/") else path
    return [part for part in reversed(path.split("/")) if part]


def expected(path: str, *, follow: bool) -> str | int:
    """Resolve a path in the corpus alone, as chroot would: the name reached, or an errno."""
    waiting = components(path)
    way: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == ".":
            continue
        if part == "..":
            way = way[:-1]
            continue
        here = "/".join([*way, part])
        if way and CORPUS.get("/".join(way), "") == "":
            return errno.ENOTDIR
        if here not in CORPUS:
            return errno.ENOENT
        target = CORPUS[here]
        if not target:
            if waiting and target == "":
                return errno.ENOTDIR
            way.append(part)
            continue
        if not waiting and not follow:
            return here
        links += 1
        if links > 40:
            return errno.ELOOP
        if target.startswith("/"):
            way = []
        waiting += components(target)
    return "/".join(way)


def opened(root: int, path: str, flags: int = os.O_PATH) -> tuple[int, int] | int:
    """Return what was opened, as device and inode, or an errno."""
    try:
        fd = open_in_root(root, path.encode(), flags)
    except OSError as error:
        return error.errno or 0
    try:
        return os.fstat(fd).st_dev, os.fstat(fd).st_ino
    finally:
        os.close(fd)


def inode(root: int, name: str) -> tuple[int, int]:
    status = os.stat(name or ".", dir_fd=root, follow_symlinks=False)
    return status.st_dev, status.st_ino


def check(root: int, path: str) -> None:
    for follow, flags in ((True, os.O_PATH), (False, os.O_PATH | os.O_NOFOLLOW)):
        wanted = expected(path, follow=follow)
        found = opened(root, path, flags)
        assert found == (wanted if isinstance(wanted, int) else inode(root, wanted)), (path, follow)


@pytest.mark.parametrize(
    "path",
    [*CORPUS, "", "/", ".", "..", "../..", "/../../etc/passwd", "a/../../../file", "up/file", "up/up/a", "out",
     "out/file", "etc/passwd", "absolute/file", "a/back/root/a/b/deep", "self/self/a", "loop", "loop/x", "ping",
     "dangling", "dangling/x", "a/nowhere", "a/nowhere/x", "proc/etc", "slashes/file", "dots/file", "a/b/root/..",
     "a/b/root/../../outside/file", "file/", "file/.", "up/", "up/.", "loop/", "dangling/.", "nowhere/", "a/./", "tail",
     "tail-file"],
)  # fmt: skip
def test_every_path_of_the_corpus(root: int, kernel: str, path: str) -> None:
    check(root, path)


_parts = st.sampled_from([*(name for name in CORPUS if "/" not in name), "b", "back", "root", "deep", "..", ".", "x"])


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(_parts, max_size=7), st.booleans())
def test_any_path_is_resolved_as_chroot_does(root: int, kernel: str, parts: list[str], absolute: bool) -> None:
    check(root, "/" * absolute + "/".join(parts))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a/b/file", 0),
        ("a/./b", 0),
        ("a/../file", 0),
        ("", 0),
        ("up", errno.ELOOP),
        ("absolute/file", errno.ELOOP),
        ("a/back", errno.ELOOP),
        ("dangling", errno.ELOOP),
        ("..", errno.EXDEV),
        ("a/../..", errno.EXDEV),
        ("nowhere", errno.ENOENT),
        ("file/x", errno.ENOTDIR),
    ],
)
def test_beneath_no_link_is_met_and_nothing_is_above(root: int, kernel: str, path: str, code: int) -> None:
    if code:
        with pytest.raises(OSError, match=r"\[Errno") as refused:
            open_beneath(root, path.encode(), os.O_PATH)
        assert refused.value.errno == code
    else:
        fd = open_beneath(root, path.encode(), os.O_PATH)
        assert os.fstat(fd).st_ino == inode(root, posixpath.normpath(path) if path else "")[1]
        os.close(fd)


def test_what_is_opened_is_closed_in_children(root: int, kernel: str) -> None:
    fd = open_in_root(root, b"file", os.O_RDONLY)
    assert not os.get_inheritable(fd)
    assert os.read(fd, 10) == b"file"
    os.close(fd)


def test_a_nul_in_a_path_is_refused(root: int, kernel: str) -> None:
    for function in (open_in_root, open_beneath):
        with pytest.raises(OSError, match="NUL") as refused:
            function(root, b"file\0x", os.O_PATH)
        assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("length", "code"), [(255, errno.ENOENT), (256, errno.ENAMETOOLONG), (5000, errno.ENAMETOOLONG)]
)
def test_names_have_a_limit(root: int, kernel: str, length: int, code: int) -> None:
    assert opened(root, "n" * length) == code
    assert opened(root, "a/" + "n" * length) == code


def test_files_are_made_where_the_path_really_ends(tmp_path: Path, kernel: str) -> None:
    (tmp_path / "root/d").mkdir(parents=True)
    (tmp_path / "root/l").symlink_to("/d")
    (tmp_path / "root/out").symlink_to("../../made")
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(open_in_root(fd, b"l/made", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        with pytest.raises(FileExistsError):
            os.close(open_in_root(fd, b"out", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    finally:
        os.close(fd)
    assert (tmp_path / "root/d/made").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "made").exists()


def test_no_descriptor_is_left_open(root: int, kernel: str) -> None:
    before = open_files()
    for path in (*CORPUS, "a/b/../../loop", "nowhere/x", "file/x", "n" * 300, "a/" * 300):
        opened(root, path)
        opened(root, path, os.O_RDONLY | os.O_DIRECTORY)
    assert not open_files() - before


def test_the_walk_holds_a_bounded_number_of_directories(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    at = os.dup(fd)
    for _ in range(300):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_PATH | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    os.close(walk_open(fd, b"d/" * 200, os.O_PATH, follow=True))
    with pytest.raises(OSError, match="too long") as refused:
        walk_open(fd, b"d/" * 299, os.O_PATH, follow=True)
    assert refused.value.errno == errno.ENAMETOOLONG
    os.close(fd)


def test_a_kernel_without_the_call_is_found_out_once(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old kernel answers ENOSYS; an old seccomp filter EPERM, to everything."""
    for code in (errno.ENOSYS, errno.EPERM):
        calls = []

        def refuse(*arguments: object, code: int = code, calls: list[object] = calls) -> int:
            calls.append(arguments)
            openat2.ctypes.set_errno(code)
            return -1

        monkeypatch.setattr(openat2, "_syscall", refuse)
        monkeypatch.setattr(openat2._Kernel, "has_openat2", True)
        assert opened(root, "absolute/file") == inode(root, "a/b/file")
        assert openat2._Kernel.has_openat2 is False
        made = len(calls)
        assert opened(root, "up/file") == inode(root, "file")
        assert len(calls) == made


def test_a_directory_that_moves_meanwhile_leads_nowhere_else(tmp_path: Path, kernel: str) -> None:
    """Ten thousand lookups of a/b/../../canary while b goes in and out of the root: never the one outside."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "canary").write_text("outside")
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/canary").write_text("inside")
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            os.rename(tmp_path / "root/a/b", tmp_path / "outside/b")
            os.rename(tmp_path / "outside/b", tmp_path / "root/a/b")

    mover = threading.Thread(target=move)
    mover.start()
    seen = set()
    try:
        for _ in range(2000):
            try:
                found = open_in_root(fd, b"a/b/../../canary", os.O_RDONLY)
            except OSError as error:
                seen.add(error.errno)
                continue
            seen.add(os.read(found, 20))
            os.close(found)
    finally:
        stop.set()
        mover.join()
        os.close(fd)
    assert b"outside" not in seen
    assert seen <= {b"inside", errno.ENOENT, errno.EAGAIN, errno.EXDEV}


@pytest.mark.parametrize("path", [b"a/b/file", b"file"])
def test_a_link_that_takes_the_place_of_what_was_looked_at_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    """The walk asks whether a name is a link, and opens it after that: in between it may have become one."""
    (tmp_path / "outside/b").mkdir(parents=True)
    (tmp_path / "outside/b/file").write_text("outside")
    (tmp_path / "root/a/b").mkdir(parents=True)
    for name in ("a/b/file", "file"):
        (tmp_path / "root" / name).write_text("inside")
    asked = openat2._readlink

    def readlink(folder: int, name: bytes) -> bytes | None:
        answer = asked(folder, name)
        swapped = tmp_path / "root" / os.fsdecode(path.split(b"/")[0])
        if swapped.name == os.fsdecode(name):
            swapped.rename(tmp_path / "gone")
            swapped.symlink_to(tmp_path / ("outside" if path.count(b"/") else "outside/b/file"))
        return answer

    monkeypatch.setattr(openat2, "_readlink", readlink)
    fd = os.open(tmp_path / "root", os.O_PATH)
    try:
        with pytest.raises(OSError, match=r"Too many levels of symbolic links|Not a directory"):
            os.close(walk_open(fd, path, os.O_RDONLY, follow=True))
    finally:
        os.close(fd)
