"""What a COPY becomes is known without reading when `stat` says that nothing changed; it is never mistaken."""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.build import filestates, unchanged
from imagetool.build.copying import CopyRequest, plan_copy
from imagetool.build.copystep import content_digest
from imagetool.build.files import Taken
from imagetool.build.filestates import FileStates, Fingerprint
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.root import Root
from imagetool.dockerfile import IgnoreRules
from imagetool.image.write import tar_digest
from imagetool.layer.tarcodec import write
from imagetool.oci.digest import Digest

OLD = 1_000_000_000 * 10**9
EVERYTHING = CopyRequest((".",), "/")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of files; ctime cannot be set back, so the clock is put forward instead."""
    folder = tmp_path / "context"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (folder / name).write_text(name)
    monkeypatch.setattr(filestates.time, "time_ns", lambda: os.stat(folder).st_ctime_ns + 10**12)
    return folder


class Reading(FolderFiles):
    """Knows which files were opened."""

    def __init__(self, context: Path, known: FileStates) -> None:
        super().__init__(context, ignore=IgnoreRules(), times=lambda _: OLD, known=known)
        self.opened: set[bytes] = set()

    def _content(self, fd, source, state, entry):  # type: ignore[no-untyped-def]
        self.opened.add(source)
        return super()._content(fd, source, state, entry)


def look(context: Path, cache: Path, request: CopyRequest = EVERYTHING) -> tuple[str, set[bytes]]:
    """Return the digest of the whole directory, and which files were opened for it."""
    known = FileStates(cache, context)
    with Reading(context, known) as files:
        digest = content_digest(request, files)
    known.save()
    return str(digest), files.opened


ALL = {b"a", b"b", b"sub/c"}


def test_what_has_not_changed_is_not_opened(context: Path, tmp_path: Path) -> None:
    first, opened = look(context, tmp_path / "cache")
    assert opened == ALL
    assert look(context, tmp_path / "cache") == (first, set())
    assert look(context, tmp_path / "cache") == (first, set())


@pytest.mark.parametrize(
    "request_",
    [
        CopyRequest((".",), "/", owner=(1, 2)),
        CopyRequest((".",), "/other"),
        CopyRequest(("a", "sub"), "/"),
        CopyRequest((".",), "/", exclude=IgnoreRules.of(["b"])),
        CopyRequest((".",), "/", texts=(("t", b"text"),)),
        CopyRequest((".",), "/", texts=(("t", b"other"),)),
    ],
)
def test_another_copy_of_the_same_files_is_another(context: Path, tmp_path: Path, request_: CopyRequest) -> None:
    first, _ = look(context, tmp_path / "cache")
    second, opened = look(context, tmp_path / "cache", request_)
    assert first != second
    assert opened
    assert look(context, tmp_path / "cache", request_) == (second, set())


def test_layers_with_other_times_are_others(context: Path, tmp_path: Path) -> None:
    known = FileStates(tmp_path / "cache", context)
    found = []
    for times in (lambda _: OLD, lambda _: 0, lambda time: time):
        with FolderFiles(context, ignore=IgnoreRules(), times=times, known=known) as files:
            found.append(content_digest(CopyRequest((".",), "/"), files))
    assert len(set(found)) == 3


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


CHANGES: dict[str, Callable[[Path], object]] = {
    "rewritten": rewrite,
    "swapped": swap,
    "mode": lambda path: path.chmod(0o755),
    "longer": lambda path: path.write_text("more"),
    "a link": lambda path: (path.unlink(), path.symlink_to("b")),
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "one file with another": lambda path: (path.unlink(), os.link(path.with_name("b"), path)),
    "a new neighbour": lambda path: path.with_name("new").write_text("new"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(context: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    first, _ = look(context, tmp_path / "cache")
    change(context / "a")
    second, opened = look(context, tmp_path / "cache")
    assert second != first
    assert opened
    assert second == look(context, tmp_path / "another cache")[0]


def test_attributes_of_a_directory_are_noticed(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times are those of what is in it, and do not count."""
    first, _ = look(context, tmp_path / "cache")
    os.utime(context / "sub", ns=(OLD, OLD))
    assert look(context, tmp_path / "cache") == (first, set())
    monkeypatch.setattr(
        "imagetool.build.folderfiles.read_xattrs",
        lambda fd: {b"user.one": b"1"} if stat.S_ISDIR(os.fstat(fd).st_mode) else {},
    )
    second, opened = look(context, tmp_path / "cache")
    assert second != first
    assert opened == ALL


def test_touching_changes_nothing(context: Path, tmp_path: Path) -> None:
    first, _ = look(context, tmp_path / "cache")
    os.utime(context / "a", ns=(OLD, OLD))
    assert look(context, tmp_path / "cache") == (first, ALL)
    assert look(context, tmp_path / "cache") == (first, set())
    (context / "b").unlink()
    known = FileStates(tmp_path / "cache", context)
    with Reading(context, known) as files:
        content_digest(CopyRequest((".",), "/"), files)
    assert list(known.gone()) == [b"b"]
    assert known.difference([b"a", b"sub/c"]) == "b is gone"


def test_a_fresh_file_is_not_believed(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filestates.time, "time_ns", lambda: os.stat(context / "a").st_ctime_ns)
    look(context, tmp_path / "cache")
    assert look(context, tmp_path / "cache")[1] == ALL


@pytest.mark.parametrize(
    ("mtime", "ctime", "settled"),
    [
        (0, 0, True),
        (999_500_000_001, 0, True),
        (999_900_000_001, 0, False),  # may be within a tick of the moment
        (0, 999_950_000_001, False),
        (998 * 10**9, 0, True),
        (999 * 10**9, 0, False),  # a clock that seems to know whole seconds only
        (1001 * 10**9 + 1, 0, False),
        (-5, 0, True),
    ],
)
def test_when_a_change_would_show(mtime: int, ctime: int, settled: bool) -> None:
    status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, 0, 0, 0), {"st_mtime_ns": mtime, "st_ctime_ns": ctime})
    quiet = os.stat_result((0o100644, 2, 1, 1, 0, 0, 0, 0, 0, 0), {"st_mtime_ns": 1, "st_ctime_ns": 1})
    states = [unchanged.state_of(quiet), unchanged.state_of(status)]
    assert unchanged.settled(b"".join(states), 1000 * 10**9) is settled


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a header cut": lambda raw: raw[:20],
    "names cut": lambda raw: raw[:45],
    "contents cut": lambda raw: raw[:-1],
    "too long": lambda raw: raw + b"x",
    "another format": lambda raw: b"x" + raw[1:],
    "a count beyond all bounds": lambda raw: raw[:16] + b"\xff" * 8 + raw[24:],
    "names beyond the end": lambda raw: raw[:24] + b"\xff" * 8 + raw[32:],
    "contents beyond all bounds": lambda raw: raw[:32] + b"\xff" * 8 + raw[40:],
    "a name less": lambda raw: raw.replace(b"a\0b\0", b"a.b\0"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_none(context: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    first, _ = look(context, tmp_path / "cache")
    (record,) = (tmp_path / "cache").glob("*.files")
    raw = record.read_bytes()
    record.write_bytes(damage(raw))
    assert record.read_bytes() != raw
    assert look(context, tmp_path / "cache") == (first, ALL)


@pytest.mark.parametrize("when", [-(10**18), 11 * 10**18])
def test_times_that_no_clock_shows_are_noted_too(context: Path, tmp_path: Path, when: int) -> None:
    os.utime(context / "a", ns=(when, when))
    first, _ = look(context, tmp_path / "cache")
    assert look(context, tmp_path / "cache")[0] == first


def test_content_that_was_not_read_to_its_end_is_not_noted(context: Path, tmp_path: Path) -> None:
    (context / "a").write_bytes(bytes(3 << 20))
    known = FileStates(tmp_path / "cache", context)
    with FolderFiles(context, ignore=IgnoreRules(), times=lambda time: time, known=known) as files:
        name, entry = files.lookup(b"a")
        assert entry is not None
        for _, chunks in files.stream([Taken(name, entry)]):
            next(iter(chunks))
    known.save()
    assert FileStates(tmp_path / "cache", context).is_empty


def test_what_is_packed_and_what_is_looked_up_have_one_fingerprint(context: Path, tmp_path: Path) -> None:
    """Also of attributes, of a large file, and of files with several names."""
    (context / "large").write_bytes(b"x" * (3 << 20))
    os.link(context / "a", context / "sub" / "again")
    os.symlink("a", context / "link")
    with contextlib.suppress(OSError):  # no user attributes on this file system
        os.setxattr(context / "b", b"user.one", b"1")
        os.setxattr(context / "large", b"user.one", b"1")
        os.setxattr(context / "sub", b"user.one", b"1")
    known = FileStates(tmp_path / "cache", context)
    request = CopyRequest((".", "large"), "/to/", texts=(("t", b"text"),))
    with FolderFiles(context, ignore=IgnoreRules(), times=lambda time: time, known=known) as files:
        plan = plan_copy(request, files, Root.empty())
        seen = Fingerprint()
        kinds = {entry.name: entry.kind for entry, chunks in plan.seen_items(files, seen) if deque(chunks) or True}
        assert seen.digest() == plan.fingerprint(files).digest()
        known.note_content(seen, Digest.of(b"anything"))
        assert known.content(plan.fingerprint(files)) == Digest.of(b"anything")
    assert kinds[b"to/sub/again"] == "link"
    assert kinds[b"to/large"] == "file"


def test_only_the_last_contents_are_kept(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filestates, "_KEPT_CONTENTS", 2)
    requests = [CopyRequest((".",), f"/{number}") for number in range(3)]
    for request in requests:
        look(context, tmp_path / "cache", request)
    assert [bool(look(context, tmp_path / "cache", request)[1]) for request in requests[1:]] == [False, False]
    assert look(context, tmp_path / "cache", requests[0])[1] == ALL


@pytest.mark.parametrize(
    ("change", "news"),
    [
        (lambda folder: (folder / "a").write_text("x"), True),
        (lambda folder: (folder / "a").write_text("longer"), True),
        (lambda folder: (folder / "new").write_text("new"), True),
        (lambda folder: os.utime(folder / "a", ns=(OLD, OLD)), False),
        (lambda folder: (folder / "a").chmod(0o600), False),
        (lambda _: None, False),
    ],
)
def test_a_changed_file_tells_of_news(
    context: Path, tmp_path: Path, change: Callable[[Path], object], news: bool
) -> None:
    look(context, tmp_path / "cache")
    change(context)
    known = FileStates(tmp_path / "cache", context)
    with Reading(context, known) as files:
        plan_copy(CopyRequest((".",), "/"), files, Root.empty()).fingerprint(files)
        assert files.has_news() is news
        assert files.opened <= {b"a"}


def test_news_are_not_looked_for_in_much(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(context, tmp_path / "cache")
    (context / "a").write_text("changed")
    monkeypatch.setattr("imagetool.build.folderfiles._LOOKED_INTO", 3)
    with Reading(context, FileStates(tmp_path / "cache", context)) as files:
        plan_copy(CopyRequest((".",), "/"), files, Root.empty()).fingerprint(files)
        assert not files.has_news()
        assert not files.opened


def test_the_content_is_that_of_the_tar(context: Path, tmp_path: Path) -> None:
    request = CopyRequest((".",), "/")
    with Reading(context, FileStates(tmp_path / "cache", context)) as files:
        plan = plan_copy(request, files, Root.empty())
        assert tar_digest(write(plan.items(files))) == content_digest(request, files)


def test_files_of_the_same_crc_are_told_apart(context: Path, tmp_path: Path) -> None:
    """A CRC only says what to try first: two files that have the same are two files."""
    first, second = b"plumless", b"buckeroo"
    assert zlib.crc32(first) == zlib.crc32(second)
    digests = []
    for text in (first, second):
        (context / "a").write_bytes(text)
        digests.append(look(context, tmp_path / "cache")[0])
    assert digests[0] != digests[1]
    assert look(context, tmp_path / "cache") == (digests[1], set())
