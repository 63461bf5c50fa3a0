"""A file that has not changed is not read again; one that has, in whatever way, is."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.build.copying import CopyRequest, plan_copy
from imagetool.build.filedigests import FileDigests
from imagetool.build.files import Taken
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.root import Root
from imagetool.dockerfile import IgnoreRules
from imagetool.oci.digest import new_hasher

OLD = 1_000_000_000 * 10**9


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of files; ctime cannot be set back, so the clock is put forward instead."""
    folder = tmp_path / "context"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (folder / name).write_text(name)
    monkeypatch.setattr("imagetool.build.filedigests.time.time_ns", lambda: os.stat(folder).st_ctime_ns + 10**12)
    return folder


def look(context: Path, cache: Path) -> tuple[str, set[bytes]]:
    """Return the digest of the whole directory, and which files were opened for it."""
    known = FileDigests(cache, context)
    opened: set[bytes] = set()

    class Watching(FolderFiles):
        def _content(self, fd, source, status, entry):  # type: ignore[no-untyped-def]
            opened.add(source)
            return super()._content(fd, source, status, entry)

    with Watching(context, ignore=IgnoreRules(), times=lambda time: time, known=known) as files:
        digest = plan_copy(CopyRequest((".",), "/"), files, Root.empty()).digest(files)
    known.save()
    return str(digest), {name for name in opened if not (context / os.fsdecode(name)).is_dir()}


def test_what_has_not_changed_is_not_opened(context: Path, tmp_path: Path) -> None:
    first, opened = look(context, tmp_path / "cache")
    assert opened == {b"a", b"b", b"sub/c"}
    assert look(context, tmp_path / "cache") == (first, set())


def rewrite(path: Path) -> None:
    """Write other content of the same size and put the time back: only ctime tells."""
    before = os.stat(path)
    path.write_text("x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(path: Path) -> None:
    before = os.stat(path)
    other = path.with_name("other")
    other.write_text("y" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize(
    "change", [rewrite, swap, lambda path: path.chmod(0o755), lambda path: path.write_text("more")]
)
def test_a_changed_file_is_the_only_one_that_is_read(
    context: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    first, _ = look(context, tmp_path / "cache")
    change(context / "a")
    second, opened = look(context, tmp_path / "cache")
    assert second != first
    assert opened == {b"a"}


def test_touching_changes_nothing_and_removing_does(context: Path, tmp_path: Path) -> None:
    first, _ = look(context, tmp_path / "cache")
    os.utime(context / "a", ns=(OLD, OLD))
    assert look(context, tmp_path / "cache") == (first, {b"a"})
    (context / "b").unlink()
    assert look(context, tmp_path / "cache")[0] != first
    assert list(FileDigests(tmp_path / "cache", context).gone()) == [b"b"]


def test_a_fresh_file_is_not_believed(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagetool.build.filedigests.time.time_ns", lambda: os.stat(context / "a").st_ctime_ns)
    look(context, tmp_path / "cache")
    assert look(context, tmp_path / "cache")[1] == {b"a", b"b", b"sub/c"}


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a header cut": lambda raw: raw[:20],
    "names cut": lambda raw: raw[:45],
    "digests cut": lambda raw: raw[:-1],
    "too long": lambda raw: raw + b"x",
    "another format": lambda raw: b"x" + raw[1:],
    "a count beyond all bounds": lambda raw: raw[:16] + b"\xff" * 8 + raw[24:],
    "names beyond the end": lambda raw: raw[:24] + b"\xff" * 8 + raw[32:],
    "a name less": lambda raw: raw.replace(b"a\0b\0", b"a.b\0"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_none(context: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    first, _ = look(context, tmp_path / "cache")
    (record,) = (tmp_path / "cache").glob("*.files")
    raw = record.read_bytes()
    record.write_bytes(damage(raw))
    assert record.read_bytes() != raw
    assert look(context, tmp_path / "cache") == (first, {b"a", b"b", b"sub/c"})


@pytest.mark.parametrize("when", [-(10**18), 11 * 10**18])
def test_times_that_no_clock_shows_are_noted_too(context: Path, tmp_path: Path, when: int) -> None:
    """Before 1970 they are believed; in the future they may change unseen, as far as one can know."""
    os.utime(context / "a", ns=(when, when))
    first, _ = look(context, tmp_path / "cache")
    assert look(context, tmp_path / "cache") == (first, {b"a"} if when > 0 else set())


def test_content_that_was_not_read_to_its_end_is_not_noted(context: Path, tmp_path: Path) -> None:
    (context / "a").write_bytes(bytes(3 << 20))
    known = FileDigests(tmp_path / "cache", context)
    with FolderFiles(context, ignore=IgnoreRules(), times=lambda time: time, known=known) as files:
        name, entry = files.lookup(b"a")
        assert entry is not None
        for _, content in files.stream([Taken(name, entry)]):
            next(iter(content))
    assert known.find(b"a", os.stat(context / "a")) is None


def test_what_passes_and_what_is_looked_up_have_one_digest(context: Path, tmp_path: Path) -> None:
    """Also of attributes, of a large file, and of files with several names."""
    (context / "large").write_bytes(b"x" * (3 << 20))
    os.link(context / "a", context / "sub" / "again")
    os.symlink("a", context / "link")
    with contextlib.suppress(OSError):  # no user attributes on this file system
        os.setxattr(context / "b", b"user.one", b"1")
        os.setxattr(context / "large", b"user.one", b"1")
        os.setxattr(context / "sub", b"user.one", b"1")
    known = FileDigests(tmp_path / "cache", context)
    with FolderFiles(context, ignore=IgnoreRules(), times=lambda time: time, known=known) as files:
        plan = plan_copy(CopyRequest((".",), "/to", texts=(("t", b"text"),)), files, Root.empty())
        hasher = new_hasher()
        names = {entry.name: entry.kind for entry, content in plan.hashed(files, hasher) if deque(content) or True}
        digests = {str(plan.digest(files)), f"sha256:{hasher.hexdigest()}"}
    with FolderFiles(context, ignore=IgnoreRules(), times=lambda time: time) as files:
        digests.add(str(plan.digest(files)))
    assert len(digests) == 1
    assert names[b"to/sub/again"] == "link"
    assert names[b"to/large"] == "file"
