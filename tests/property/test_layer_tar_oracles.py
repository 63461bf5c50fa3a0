"""Other tar implementations read what we write, and we read what they write, to the same tree."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagetool.errors import InvalidArchive
from imagetool.layer.entry import Entry, Item, Kind
from imagetool.layer.tarcodec import header_writer, write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import unpack
from tests.support.tars import END, chunks, extended, file, header, record
from tests.support.trees import describe

pytestmark = [pytest.mark.slow, pytest.mark.peer]
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices, attributes")
bsdtar = pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar")
gnutar = pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
SECOND = 1_000_000_000
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

text_parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
byte_parts = st.binary(min_size=1, max_size=30).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
long_parts = st.integers(90, 250).map(lambda size: b"n" * size)
plain_parts = st.sampled_from([b"a", b"b", b"file.txt", b"with space", b"-dash", b"c" * 60])
utf8_parts = st.one_of(plain_parts, text_parts.map(str.encode), long_parts)
any_times = st.integers(-(2**31) * SECOND, 2**34 * SECOND)
#: libarchive rounds a negative time with a fraction the wrong way.
libarchive_times = st.integers(0, 2**34 * SECOND) | st.integers(-(2**31), 0).map(lambda seconds: seconds * SECOND)
any_ids = st.sampled_from([0, 1000, 0o7777777, 0o10000000, 0xFFFFFFFE])
targets = st.sampled_from([b"a", b"../b", b"t" * 100, b"t" * 101, b"/x/" + b"u" * 300])
devices = st.tuples(st.sampled_from([1, 255, 4095]), st.sampled_from([3, 256, 1048575]))


@st.composite
def trees(
    draw: st.DrawFn,
    *,
    parts: st.SearchStrategy[bytes] = utf8_parts,
    most: int = 2000,
    times: st.SearchStrategy[int] = any_times,
    ids: st.SearchStrategy[int] = any_ids,
    kinds: tuple[Kind, ...] = ("file", "dir", "symlink", "link", "char", "block", "fifo"),
    xattrs: bool = True,
) -> list[tuple[Entry, bytes]]:
    """Entries that can exist together: parents before children, names unique, link targets before links."""
    folders = [b""]
    files: list[bytes] = []
    made: dict[bytes, tuple[Entry, bytes]] = {}
    for _ in range(draw(st.integers(1, 9))):
        part = draw(parts.filter(lambda part: part not in (b".", b"..") and len(part) < 256 and part[:4] != b".wh."))
        name = draw(st.sampled_from(folders)) + part
        kind = draw(st.sampled_from(kinds))
        if name in made or len(name) > most or (kind == "link" and not files):
            continue
        data = draw(st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, b"w" * 70_001])) if kind == "file" else b""
        attributes = {}
        if xattrs and kind == "file":
            attributes = draw(st.sampled_from([{}, {b"security.capability": CAPABILITY}, {b"user.b": b"\0=\n\xff"}]))
        entry = Entry(
            name,
            kind,
            draw(st.sampled_from([0o644, 0o4755, 0o2750, 0o1777, 0])),
            draw(ids),
            draw(ids),
            len(data),
            draw(times),
            draw(targets) if kind == "symlink" else b"",
            *(draw(devices) if kind in ("char", "block") else (0, 0)),
            attributes,
        )  # fmt: skip
        if kind == "link":
            first = made[draw(st.sampled_from(files))][0]
            entry = first._replace(name=name, kind="link", linkname=first.name, size=0, xattrs={})
        elif kind == "symlink":
            entry = entry._replace(mode=0o777)
        elif kind == "dir":
            folders.append(name + b"/")
        elif kind == "file":
            files.append(name)
        made[name] = entry, data
    return list(made.values())


def items(tree: list[tuple[Entry, bytes]]) -> Iterator[Item]:
    return ((entry, (data,)) for entry, data in tree)


def unpacked(tar: bytes, folder: Path) -> Path:
    def warn(text: str) -> None:
        raise AssertionError(text)

    folder.mkdir()
    unpack(read(chunks(tar), where="t"), folder, where="t", warn=warn)
    return folder


def run(*argv: str | Path, cwd: Path | None = None) -> bytes:
    done = subprocess.run(argv, env=ENVIRONMENT, cwd=cwd, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr[:2000]
    return done.stdout


def no_backslash(part: bytes) -> bool:
    """Names that bsdtar does not take for Windows paths."""
    return b"\\" not in part


def same_settings(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def depth_first(tree: list[tuple[Entry, bytes]]) -> list[tuple[Entry, bytes]]:
    """Return a tree in the order in which a walk meets it, the first name of each inode being the file.

    GNU tar sets a directory's time when the archive leaves it, and knows of no return.
    """
    names: dict[bytes, list[bytes]] = {}
    for entry, _ in tree:
        names.setdefault(entry.linkname if entry.kind == "link" else entry.name, []).append(entry.name)
    found = {entry.name: (entry, data) for entry, data in tree}
    for inode, same in names.items():
        entry, data = found[inode]
        first, *others = sorted(same, key=lambda name: name.split(b"/"))
        found[first] = entry._replace(name=first), data
        for name in others:
            found[name] = entry._replace(name=name, kind="link", linkname=first, size=0, xattrs={}), b""
    return [found[name] for name in sorted(found, key=lambda name: name.split(b"/"))]


# What readers are known to differ on


@bsdtar
@gnutar
@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", b""], ids=["ustar", "gnu", "v7"])
@pytest.mark.parametrize("extra", [b"", extended(b"K", b"f\0")], ids=["plain", "long"])
def test_a_hard_link_that_repeats_a_size_has_no_content_to_any_reader(
    magic: bytes, extra: bytes, tmp_path: Path
) -> None:
    linked = extra + header(b"h", b"1", linkname=b"f", size=3, magic=magic)
    tar = tmp_path / "a.tar"
    tar.write_bytes(file(b"f", b"abc", magic=magic) + linked + file(b"g", b"x", magic=magic) + END)
    listed = [entry.name for entry, _ in read([tar.read_bytes()], where="t")]
    assert listed == run("tar", "-tf", tar).split() == run("bsdtar", "-tf", tar).split() == [b"f", b"h", b"g"]
    with tarfile.open(tar) as archive:
        assert archive.getnames() == ["f", "h", "g"]


@bsdtar
def test_in_a_pax_archive_libarchive_takes_what_follows_a_hard_link_for_its_content(tmp_path: Path) -> None:
    """Which is why we refuse it: tests/security/layer."""
    tar = tmp_path / "a.tar"
    linked = header(b"h", b"1", linkname=b"f", size=3)
    tar.write_bytes(extended(b"x", record(b"mtime", b"1")) + file(b"f", b"abc") + linked + file(b"g", b"x") + END)
    assert run("bsdtar", "-tf", tar).split() == [b"f", b"h"]
    with pytest.raises(InvalidArchive, match="readers differ"):
        list(read([tar.read_bytes()], where="t"))


# What we write


@same_settings(120)
@given(tree=trees(parts=st.one_of(utf8_parts, byte_parts)))
def test_the_standard_library_lists_what_we_wrote(tree: list[tuple[Entry, bytes]]) -> None:
    types = {"file": "0", "link": "1", "symlink": "2", "char": "3", "block": "4", "dir": "5", "fifo": "6"}
    with tarfile.open(fileobj=io.BytesIO(b"".join(write(items(tree))))) as archive:
        members = archive.getmembers()
        assert len(members) == len(tree)
        for member, (entry, data) in zip(members, tree, strict=True):
            assert os.fsencode(member.name) == entry.name
            assert member.type == types[entry.kind].encode()
            assert (member.mode, member.uid, member.gid, member.size) == (entry.mode, entry.uid, entry.gid, entry.size)
            assert os.fsencode(member.linkname) == entry.linkname
            assert (member.devmajor, member.devminor) == (entry.devmajor, entry.devminor)
            stated = member.pax_headers.get("mtime")
            assert abs(member.mtime - entry.mtime / SECOND) < 1e-5
            assert stated is None or round(float(stated)) == round(entry.mtime / SECOND)
            if entry.kind == "file":
                file = archive.extractfile(member)
                assert file is not None
                assert file.read() == data


@same_settings(120)
@given(tree=trees(parts=st.one_of(utf8_parts, byte_parts)))
def test_we_read_exactly_what_we_wrote(tree: list[tuple[Entry, bytes]]) -> None:
    tar = b"".join(write(items(tree)))
    assert len(tar) % 512 == 0
    for size in (7, 512, 70_000):
        assert [(entry, b"".join(content)) for entry, content in read(chunks(tar, size), where="t")] == tree


@root
@gnutar
@same_settings(60)
@given(tree=trees(parts=st.one_of(utf8_parts, byte_parts)))
@example(
    tree=[
        (Entry(b"d", "dir", 0o755, mtime=SECOND), b""),
        (Entry(b"e", "file", size=1), b"x"),
        (Entry(b"d/link", "link", linkname=b"e"), b""),
    ]
)
def test_gnu_tar_extracts_what_we_wrote_to_the_tree_we_unpack(tree: list[tuple[Entry, bytes]]) -> None:
    tar = b"".join(write(items(depth_first(tree))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tar").write_bytes(tar)
        (folder / "theirs").mkdir()
        options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "-p"]
        run("tar", *options, "-C", folder / "theirs", "-xf", folder / "tar")
        assert describe(folder / "theirs") == describe(unpacked(tar, folder / "ours"))
        listed = run("tar", "--quoting-style=escape", "-tf", folder / "tar").splitlines()
        assert len(listed) == len(tree)


@root
@bsdtar
@same_settings(60)
@given(tree=trees(parts=st.one_of(utf8_parts, byte_parts).filter(no_backslash), times=libarchive_times))
def test_bsdtar_extracts_what_we_wrote_to_the_tree_we_unpack(tree: list[tuple[Entry, bytes]]) -> None:
    tar = b"".join(write(items(tree)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tar").write_bytes(tar)
        (folder / "theirs").mkdir()
        run("bsdtar", "--numeric-owner", "--xattrs", "-p", "-C", folder / "theirs", "-xf", folder / "tar")
        assert describe(folder / "theirs") == describe(unpacked(tar, folder / "ours"))


@pytest.mark.parametrize("size", [(8 << 30) - 1, 8 << 30, (8 << 30) + 513, 200 << 30])
@gnutar
def test_sizes_around_eight_gibibytes_are_read_by_all(tmp_path: Path, size: int) -> None:
    """Headers only: the content is a hole."""
    big = header_writer()(Entry(b"big", "file", size=size))
    last = header_writer()(Entry(b"last", "file", size=0))
    tar = tmp_path / "tar"
    with tar.open("wb") as file:
        file.write(big)
        file.seek(size + -size % 512, os.SEEK_CUR)
        file.write(last + bytes(1024))
    with tarfile.open(tar) as archive:
        assert [(member.name, member.size) for member in archive] == [("big", size), ("last", 0)]
    listed = run("tar", "-tvf", tar).split()
    assert str(size).encode() in listed
    entry, _ = next(read(iter([big + bytes(512)]), where="t"))
    assert entry.size == size


# What others write

whole_seconds = st.integers(0, 2**33 - 1).map(lambda seconds: seconds * SECOND)
small_ids = st.sampled_from([0, 1000, 0o777777])
short_parts = st.one_of(plain_parts, st.integers(20, 60).map(lambda size: b"n" * size))


def check_archive(tree: list[tuple[Entry, bytes]], *command: str) -> None:
    """Unpack a tree, archive it with `command … ARCHIVE .`, and unpack that archive again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = unpacked(b"".join(write(items(tree))), folder / "ours")
        run(*command, folder / "tar", ".", cwd=ours)
        again = unpacked((folder / "tar").read_bytes(), folder / "again")
        assert describe(again) == describe(ours)


@root
@gnutar
@same_settings(40)
@given(
    tree=trees(
        parts=short_parts, most=90, times=whole_seconds, ids=small_ids, kinds=("file", "dir", "link"), xattrs=False
    )
)
def test_gnu_tar_v7_archives_are_read(tree: list[tuple[Entry, bytes]]) -> None:
    check_archive(tree, "tar", "--format=v7", "-cf")


@root
@gnutar
@same_settings(40)
@given(tree=trees(parts=st.one_of(plain_parts, byte_parts, long_parts), times=whole_seconds, xattrs=False))
@pytest.mark.parametrize("form", ["oldgnu", "gnu"])
def test_gnu_tar_archives_with_long_names_and_big_numbers_are_read(form: str, tree: list[tuple[Entry, bytes]]) -> None:
    check_archive(tree, "tar", f"--format={form}", "-cf")


@root
@gnutar
@same_settings(40)
@given(tree=trees(parts=st.one_of(utf8_parts, byte_parts)))
def test_gnu_tar_pax_archives_are_read(tree: list[tuple[Entry, bytes]]) -> None:
    check_archive(tree, "tar", "--format=posix", "--xattrs", "--xattrs-include=*", "-cf")


def is_ustar(tree: list[tuple[Entry, bytes]]) -> bool:
    """Whether ustar can say it, and bsdtar within the six digits it gives device numbers."""
    return all(len(entry.linkname) < 98 and entry.devminor < 0o777777 for entry, _ in tree)


@root
@gnutar
@same_settings(40)
@given(
    tree=trees(parts=short_parts, most=95, times=whole_seconds, ids=small_ids, xattrs=False).filter(is_ustar),
    program=st.sampled_from(["tar", "bsdtar"]),
)
def test_ustar_archives_are_read(tree: list[tuple[Entry, bytes]], program: str) -> None:
    if shutil.which(program):
        check_archive(tree, program, "--format=ustar", "-cf")


@root
@bsdtar
@same_settings(40)
@given(tree=trees(parts=st.one_of(utf8_parts, byte_parts), times=libarchive_times))
def test_bsdtar_pax_archives_are_read(tree: list[tuple[Entry, bytes]]) -> None:
    check_archive(tree, "bsdtar", "--format=pax", "--xattrs", "-cf")


@same_settings(100)
@given(tree=trees(parts=st.one_of(utf8_parts, byte_parts), xattrs=False, ids=small_ids, times=whole_seconds))
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_archives_of_the_standard_library_are_read(form: int, tree: list[tuple[Entry, bytes]]) -> None:
    check_stdlib(tree, form)


@same_settings(60)
@given(tree=trees(parts=short_parts, most=95, times=whole_seconds, ids=small_ids, xattrs=False).filter(is_ustar))
def test_ustar_archives_of_the_standard_library_are_read(tree: list[tuple[Entry, bytes]]) -> None:
    check_stdlib(tree, tarfile.USTAR_FORMAT)


def check_stdlib(tree: list[tuple[Entry, bytes]], form: int) -> None:
    types = {"file": b"0", "link": b"1", "symlink": b"2", "char": b"3", "block": b"4", "dir": b"5", "fifo": b"6"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        for entry, data in tree:
            info = tarfile.TarInfo(os.fsdecode(entry.name))
            info.type = types[entry.kind]
            info.mode, info.uid, info.gid, info.size = entry.mode, entry.uid, entry.gid, entry.size
            info.mtime = entry.mtime // SECOND
            info.linkname = os.fsdecode(entry.linkname)
            info.devmajor, info.devminor = entry.devmajor, entry.devminor
            archive.addfile(info, io.BytesIO(data))
    found = [(entry, b"".join(content)) for entry, content in read(chunks(buffer.getvalue()), where="t")]
    assert found == tree
