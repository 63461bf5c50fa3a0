"""A file that has not changed is not read again; one that has, in whatever way, is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.build.copying import CopyRequest, plan_copy
from imagetool.build.filedigests import FileDigests
from imagetool.build.files import FolderFiles
from imagetool.build.root import Root
from imagetool.dockerfile import IgnoreRules

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
        def _digest(self, item):  # type: ignore[no-untyped-def]
            opened.add(item.source)
            return super()._digest(item)

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
    assert list(FileDigests(tmp_path / "cache", context).gone()) == ["b"]


def test_a_fresh_file_is_not_believed(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagetool.build.filedigests.time.time_ns", lambda: os.stat(context / "a").st_ctime_ns)
    look(context, tmp_path / "cache")
    assert look(context, tmp_path / "cache")[1] == {b"a", b"b", b"sub/c"}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": []}', b'{"a": "text"}', b"\xff"])
def test_a_damaged_record_is_none(context: Path, tmp_path: Path, damage: bytes) -> None:
    first, _ = look(context, tmp_path / "cache")
    (record,) = (tmp_path / "cache").glob("*.files")
    record.write_bytes(damage)
    assert look(context, tmp_path / "cache")[0] == first
