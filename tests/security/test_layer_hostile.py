"""Layers made to reach out of their directory, each with a canary that they must not touch."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagetool.errors import ImagetoolError, InvalidArchive, LimitExceeded, StorageError, VerificationError
from imagetool.layer.merge import flatten
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, Whiteouts, unpack
from imagetool.safefs import openat2
from tests.support.tars import END, base256, chunks, extended, file, header, opener, record
from tests.support.trees import describe

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and devices")
ROOT = os.geteuid() == 0
OWNERSHIP = Ownership() if ROOT else Ownership(lenient=True)
SECRET = b"the canary's secret"


@pytest.fixture(params=["openat2", "walk"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openat2._Kernel, "has_openat2", request.param == "openat2")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory with the target and, beside it, canaries whose every property must stay."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(SECRET)
    (outside / "folder").mkdir()
    (outside / "folder" / "child").write_bytes(b"child")
    (outside / "link").symlink_to("file")
    os.chmod(outside / "file", 0o640)
    for name in ("file", "folder", "folder/child", "."):
        os.utime(outside / name, ns=(10**18, 10**18))
    before = describe(outside), os.lstat(outside), os.lstat(outside / "file").st_nlink
    (tmp_path / "target").mkdir()
    yield tmp_path
    after = os.lstat(outside)
    assert describe(outside) == before[0], "the canary was touched"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before[1].st_mode,
        before[1].st_uid,
        before[1].st_mtime_ns,
    )
    assert os.lstat(outside / "file").st_nlink == before[2], "a hard link to the canary was made"
    assert sorted(os.listdir(tmp_path)) == ["outside", "target"]


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[None]:
    """Leave nothing that pytest, which recurses to remove old directories, could not remove."""
    yield
    subprocess.run(["rm", "-rf", tmp_path / "target"], check=True)
    (tmp_path / "target").mkdir()  # which `place` looks for


def ignore(text: str) -> None:
    """Take a warning that a test does not look at."""


def apply(place: Path, *layers: bytes, whiteouts: Whiteouts = "apply", ownership: Ownership = OWNERSHIP) -> Path:
    target = place / "target"
    for number, layer in enumerate(layers):
        where = f"layer {number}"
        unpack(
            read(chunks(layer + END), where=where),
            target,
            where=where,
            whiteouts=whiteouts,
            ownership=ownership,
            warn=ignore,
        )
    return target


def link(name: bytes, target: bytes, flag: bytes = b"2") -> bytes:
    """Return a symlink, its target in an extended header so that it may be long."""
    return extended(b"x", record(b"linkpath", target)) + header(name, flag, linkname=b"too long")


def hard(name: bytes, target: bytes) -> bytes:
    return link(name, target, b"1")


def folder(name: bytes, **fields: int) -> bytes:
    return header(name + b"/", b"5", mode=fields.get("mode", 0o755))


def absolute(place: Path, name: str) -> bytes:
    return os.fsencode(place / "outside" / name)


#: Ways to point outside: what a first entry or layer makes a symlink to.
TARGETS: dict[str, Callable[[Path], bytes]] = {
    "relative": lambda _: b"../outside",
    "deep relative": lambda place: b"../" * 40 + os.fsencode(place / "outside").lstrip(b"/"),
    "absolute": lambda place: os.fsencode(place / "outside"),
    "through proc": lambda place: b"/proc/self/cwd/../" + os.fsencode(place / "outside"),
    "root": lambda _: b"/",
}

#: What is then done through a link `l`: each must end inside, or in an error.
DEEDS: dict[str, bytes] = {
    "write a file": file(b"l/file", b"overwritten"),
    "write a new file": file(b"l/new", b"new"),
    "write the link itself": file(b"l", b"overwritten"),
    "make a folder": folder(b"l/sub") + file(b"l/sub/x", b"x"),
    "dress a folder": folder(b"l/folder", mode=0o777),
    "dress the link as a folder": folder(b"l", mode=0o777),
    "dress the link with attributes": extended(b"x", record(b"SCHILY.xattr.user.evil", b"1")) + folder(b"l"),
    "make a symlink": link(b"l/file", b"evil"),
    "make a fifo": header(b"l/file", b"6"),
    "make a device": header(b"l/file", b"3", device=(1, 3)),
    "hard link out": hard(b"stolen", b"l/file"),
    "hard link the link": hard(b"stolen", b"l"),
    "hard link in": file(b"mine", b"evil") + hard(b"l/file", b"mine"),
    "hide a file": file(b"l/.wh.file"),
    "hide a folder": file(b"l/.wh.folder"),
    "hide everything": file(b"l/.wh..wh..opq"),
    "hide the link": file(b".wh.l"),
    "hide and go on": file(b"l/.wh.folder") + file(b"l/folder/child", b"evil"),
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("whiteouts", ["apply", pytest.param("overlay", marks=root_only)])
@pytest.mark.parametrize("split", [False, True], ids=["one layer", "two layers"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("deed", DEEDS)
def test_nothing_is_done_through_a_symlink_that_leads_out(
    place: Path, deed: str, target: str, split: bool, whiteouts: Whiteouts
) -> None:
    first = link(b"l", TARGETS[target](place))
    layers = [first, DEEDS[deed]] if split else [first + DEEDS[deed]]
    message = ""
    try:
        apply(place, *layers, whiteouts=whiteouts)
    except VerificationError as refused:
        message = str(refused)
    except StorageError:
        if ROOT:
            raise  # it is refused nothing but what is hostile
    assert message == "" or (message.startswith("layer ") and message.isprintable())


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    "name", [b"../outside/file", b"a/../../outside/file", b"..", b"a/..", b"./../outside/x", b"a/b/../.."]
)
@pytest.mark.parametrize("flag", [b"0", b"5", b"2", b"1", b"6"])
def test_a_name_with_two_dots_is_refused_by_name(place: Path, name: bytes, flag: bytes) -> None:
    with pytest.raises(InvalidArchive, match=r"\.\."):
        apply(place, header(name, flag, linkname=b"x" if flag in b"12" else b""))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("prefix", [b"", b"/", b"/./", b"//.//"])
def test_an_absolute_name_means_the_same_below_the_root(place: Path, prefix: bytes) -> None:
    target = apply(place, extended(b"x", record(b"path", prefix + absolute(place, "file"))) + file(b"x", b"inside"))
    found = [path for path in target.rglob("file") if path.read_bytes() == b"inside"]
    assert len(found) == 1


@pytest.mark.parametrize("name", [b"..", b"../x", b"/..", b"a/../b"])
def test_a_hard_link_out_by_name_is_refused(place: Path, name: bytes) -> None:
    with pytest.raises(InvalidArchive, match=r"\.\."):
        apply(place, hard(b"stolen", name))


@pytest.mark.skipif(not ROOT, reason="needs root: trusted attributes, devices")
@pytest.mark.parametrize("kind", ["symlink", "char"])
def test_attributes_of_what_is_not_opened_stay_on_it(place: Path, kind: str) -> None:
    attribute = extended(b"x", record(b"SCHILY.xattr.trusted.canary", b"1"))
    if kind == "symlink":
        entry = header(b"n", b"2", linkname=bytes(place / "outside/file"))
    else:
        entry = header(b"n", b"3", device=(1, 3))
    target = apply(place, attribute + entry)
    assert os.getxattr(target / "n", "trusted.canary", follow_symlinks=False) == b"1"
    assert "trusted.canary" not in os.listxattr(place / "outside/file")


@pytest.mark.parametrize("target", [b"./d/f", b"/d/f", b"d//f", b"d/./f"])
def test_a_hard_link_is_said_by_the_name_its_file_has(target: bytes) -> None:
    """Otherwise what is merged and listed would know one file by two names."""
    tar = file(b"./d/f", b"x") + header(b"./l", b"1", linkname=target) + END
    assert [(entry.name, entry.linkname) for entry, _ in read([tar], where="t")] == [(b"d/f", b""), (b"l", b"d/f")]
    assert [entry.name for entry, _ in flatten([(opener(tar), "t")])] == [b"d", b"d/f", b"l"]


@pytest.mark.parametrize("name", ["file", "folder", "folder/child", "link"])
def test_an_absolute_hard_link_finds_nothing_outside(place: Path, name: str) -> None:
    with pytest.raises(InvalidArchive, match="not there"):
        apply(place, hard(b"stolen", absolute(place, name)))


def test_a_hard_link_to_a_symlink_links_the_symlink(place: Path) -> None:
    target = apply(place, link(b"l", absolute(place, "file")) + hard(b"m", b"l"))
    assert os.lstat(target / "m").st_ino == os.lstat(target / "l").st_ino
    assert (target / "m").is_symlink()


@pytest.mark.parametrize("to", [b"d", b"."])
def test_a_hard_link_to_a_directory_is_refused(place: Path, to: bytes) -> None:
    with pytest.raises(InvalidArchive, match="directory"):
        apply(place, folder(b"d") + hard(b"l", to))


@pytest.mark.parametrize("flag", [b"0", b"2", b"6", b"3"])
def test_a_root_that_is_no_directory_is_refused(place: Path, flag: bytes) -> None:
    evil = header(b"./", flag, linkname=b"../outside", device=(1, 3)) if flag != b"0" else header(b".", flag)
    with pytest.raises(InvalidArchive):
        apply(place, evil, folder(b".", mode=0o777) + file(b"file", b"evil"))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("whiteouts", ["apply", pytest.param("overlay", marks=root_only)])
@pytest.mark.parametrize(
    "name",
    [b".wh.", b".wh..", b".wh...", b"d/.wh.", b"d/.wh..", b"d/.wh...", b".wh..wh.", b".wh..wh.x", b"d/.wh..wh..opq2"],
)
def test_a_whiteout_of_nothing_or_of_the_way_up_is_refused(place: Path, name: bytes, whiteouts: Whiteouts) -> None:
    below = folder(b"d") + file(b"d/x", b"kept")
    with pytest.raises(InvalidArchive, match="whiteout"):
        apply(place, below, file(name), whiteouts=whiteouts)
    assert (place / "target/d/x").read_bytes() == b"kept"


@pytest.mark.parametrize("whiteouts", ["apply", pytest.param("overlay", marks=root_only)])
@pytest.mark.parametrize("name", [b".wh.d/x", b".wh..wh..opq/x", b"d/.wh.e/f/g", b".wh.d/.wh.x", b".wh.d/.wh..wh..opq"])
def test_a_whiteout_holds_nothing(place: Path, name: bytes, whiteouts: Whiteouts) -> None:
    with pytest.raises(InvalidArchive, match="a whiteout holds nothing"):
        apply(place, folder(b"d") + file(b"d/x", b"kept"), file(name), whiteouts=whiteouts)
    with pytest.raises(InvalidArchive, match="a whiteout holds nothing"):
        list(flatten([(opener(file(name) + END), "1")]))
    assert sorted(os.listdir(place / "target")) == ["d"]


@pytest.mark.parametrize("minor", [0, b"", b"0000000\0"])
def test_a_whiteout_of_the_kernel_is_nothing_that_a_layer_has(minor: int | bytes) -> None:
    """Squashed, it would be one for whoever takes the image next."""
    with pytest.raises(InvalidArchive, match="0:0, the kernel's own whiteout"):
        list(flatten([(opener(header(b"x", b"3", device=(0, minor)) + END), "1")]))


def test_whiteouts_of_what_is_not_there_make_nothing(place: Path) -> None:
    target = apply(place, file(b"a/b/.wh.c") + file(b"x/.wh..wh..opq") + file(b".wh.y"))
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("marker", [b"l/.wh.x", b"l/.wh..wh..opq"])
def test_a_whiteout_hides_nothing_that_a_symlink_leads_to(place: Path, marker: bytes) -> None:
    """Stacked as an overlay, what is behind the link would not be hidden either."""
    below = folder(b"d") + file(b"d/x", b"kept") + header(b"l", b"2", linkname=b"d")
    target = apply(place, below, file(marker))
    assert (target / "d/x").read_bytes() == b"kept"
    assert [entry.name for entry, _ in flatten([(opener(below + END), "1"), (opener(file(marker) + END), "2")])] == [
        *(b"d", b"d/x", b"l")
    ]


@pytest.mark.skipif(not ROOT, reason="needs root: the kernel's whiteouts")
@pytest.mark.parametrize("marker", [b"l/.wh.x", b"l/.wh..wh..opq"])
def test_a_whiteout_for_an_overlay_marks_nothing_that_a_symlink_leads_to(place: Path, marker: bytes) -> None:
    layer = folder(b"d") + header(b"l", b"2", linkname=b"d") + file(marker)
    target = apply(place, layer, whiteouts="overlay")
    assert os.listdir(target / "d") == []
    assert os.listxattr(target / "d") == []


@pytest.mark.usefixtures("kernel")
def test_a_chain_of_symlinks_as_long_as_a_path_can_be_stays_inside(place: Path) -> None:
    """The shape of CVE-2025-4517: resolution by text gives up at PATH_MAX, the kernel's does not."""
    component = b"d" * 247
    tar = b""
    at = b""
    for letter in b"abcdefghijklmnop":
        tar += extended(b"x", record(b"path", at + component)) + header(b"d", b"5", mode=0o755)
        tar += extended(b"x", record(b"path", at + bytes([letter])) + record(b"linkpath", component)) + header(
            b"l", b"2"
        )
        at += bytes([letter]) + b"/"
    last = at + b"l" * 254
    tar += extended(b"x", record(b"path", last) + record(b"linkpath", b"../" * 16)) + header(b"l", b"2")
    tar += link(b"escape", last + b"/../outside")
    tar += hard(b"stolen", b"escape/file") + file(b"escape/file", b"overwritten")
    with pytest.raises(InvalidArchive):
        apply(place, tar)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("count", [2, 41, 300])
def test_symlinks_in_a_circle_or_a_long_chain_end(place: Path, count: int) -> None:
    circle = b"".join(link(b"l%d" % n, b"l%d" % ((n + 1) % count)) for n in range(count))
    with pytest.raises(InvalidArchive):
        apply(place, circle + file(b"l0/x", b"x"))


@pytest.mark.usefixtures("kernel")
def test_paths_with_two_thousand_directories_are_made_and_removed(place: Path, swept: None) -> None:
    name = b"d/" * 2040 + b"f"
    tar = extended(b"x", record(b"path", name)) + file(b"f", b"deep")
    if not openat2._Kernel.has_openat2:
        with pytest.raises(InvalidArchive):
            apply(place, tar)
        subprocess.run(["rm", "-r", place / "target/d"], check=True)  # pytest cannot remove trees this deep
        return
    target = apply(place, tar, file(b".wh.d"))
    assert list(target.iterdir()) == []


def test_trees_deeper_than_any_path_are_removed(place: Path, swept: None) -> None:
    """Symlinks on the way make paths that no single path could say."""
    long = b"d/" * 2000
    tar = extended(b"x", record(b"path", long)) + header(b"d", b"5", mode=0o755)
    tar += link(b"l1", long)
    tar += extended(b"x", record(b"path", b"l1/" + long)) + header(b"d", b"5", mode=0o755)
    tar += link(b"l2", b"l1/" + long)
    tar += extended(b"x", record(b"path", b"l2/" + long)) + header(b"d", b"5", mode=0o755)
    target = apply(place, tar)
    assert sorted(os.listdir(target)) == ["d", "l1", "l2"]
    apply(place, file(b".wh.d") + file(b".wh.l1") + file(b".wh.l2"))
    assert os.listdir(target) == []


@pytest.mark.parametrize(
    "device", [(0, 0), (4096, 0), (0, 1 << 20), (base256(-1, 8), 0), (base256(1 << 40, 8), base256(1 << 40, 8))]
)
@pytest.mark.parametrize("flag", [b"3"])
def test_devices_that_cannot_be_or_mean_a_whiteout_are_refused(
    place: Path, device: tuple[int, int], flag: bytes
) -> None:
    with pytest.raises(InvalidArchive, match="device"):
        apply(place, file(b"kept", b"x"), header(b"kept", flag, device=device))
    assert (place / "target/kept").read_bytes() == b"x"


@root_only
def test_attributes_of_an_overlay_or_the_host_are_left_out_with_one_warning(place: Path) -> None:
    attributes = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy", b"user.overlay.opaque", b"security.selinux"]
    records = b"".join(record(b"SCHILY.xattr." + name, b"/etc") for name in [*attributes, b"user.fine"])
    warnings: list[str] = []
    tar = extended(b"x", records) + folder(b"d") + extended(b"x", records) + file(b"f")
    unpack(read(chunks(tar + END), where="l"), place / "target", where="l", whiteouts="overlay", warn=warnings.append)
    for name in ("d", "f"):
        assert os.listxattr(place / "target" / name) == ["user.fine"]
    assert len(warnings) == 1
    assert "overlay" in warnings[0] or "selinux" in warnings[0]


#: Archives that are wrong in themselves, and what of them the message must say.
MALFORMED: dict[str, tuple[bytes, str]] = {
    "negative size": (header(size=base256(-512, 12)), "size -512"),
    "negative size as text": (header(size=b"-0000000777"), "size"),
    "huge size": (header(size=base256(1 << 60, 12)), "size"),
    "negative extended header": (header(b"x", b"x", size=base256(-512, 12)), "-512 bytes"),
    "negative long name": (header(b"x", b"L", size=base256(-1, 12)), "-1 bytes"),
    "endless long name": (header(b"x", b"L", size=base256(8 << 30, 12)), "extended header of"),
    "endless extended header": (header(b"x", b"x", size=8 << 20), "extended header of"),
    "negative owner": (header(uid=base256(-2, 8)), "owner"),
    "owner that means no change": (header(uid=base256(0xFFFFFFFF, 8)), "owner"),
    "huge owner": (header(gid=base256(1 << 50, 8)), "owner"),
    "huge owner in pax": (extended(b"x", record(b"uid", b"9" * 30)) + header(), "uid"),
    "negative owner in pax": (extended(b"x", record(b"uid", b"-1")) + header(), "uid"),
    "negative size in pax": (extended(b"x", record(b"size", b"-1")) + header(), "size"),
    "time that is no number": (extended(b"x", record(b"mtime", b"--1")) + header(), "mtime"),
    "time as an exponent": (extended(b"x", record(b"mtime", b"1e9")) + header(), "mtime"),
    "two records with one key": (extended(b"x", record(b"path", b"a") + record(b"path", b"b")) + header(), "two pax"),
    "two sizes": (extended(b"x", record(b"size", b"1") + record(b"size", b"2")) + header(), "two pax"),
    "two extended headers": (extended(b"x", record(b"path", b"a")) * 2 + header(), "two"),
    "two long names": (extended(b"L", b"a\0") + extended(b"L", b"b\0") + header(), "two"),
    "two long links": (extended(b"K", b"a\0") + extended(b"K", b"b\0") + header(b"l", b"2"), "two"),
    "long name and path": (extended(b"L", b"a\0") + extended(b"x", record(b"path", b"b")) + header(), "two"),
    "record past its header": (extended(b"x", b"999 path=x\n") + header(), "malformed"),
    "record of no length": (extended(b"x", b"0 path=x\n") + header(), "malformed"),
    "record with a negative length": (extended(b"x", b"-5 path=x\n") + header(), "malformed"),
    "record without a key": (extended(b"x", b"5 =x\n") + header(), "malformed"),
    "record without a line end": (extended(b"x", b"9 path=ab") + header(), "malformed"),
    "global path": (extended(b"g", record(b"path", b"evil")) + header(), "global"),
    "global size": (extended(b"g", record(b"size", b"4096")) + header(), "global"),
    "global attribute": (extended(b"g", record(b"SCHILY.xattr.user.x", b"1")) + header(), "global"),
    "NUL in a long name": (extended(b"L", b"a\0b\0") + header(), "NUL"),
    "NUL in a path": (extended(b"x", record(b"path", b"a\0b")) + header(), "NUL"),
    "NUL in an attribute": (extended(b"x", record(b"SCHILY.xattr.user.a\0b", b"")) + header(), "attribute"),
    "attribute without a name": (extended(b"x", record(b"SCHILY.xattr.", b"")) + header(), "attribute"),
    "attribute too big": (extended(b"x", record(b"SCHILY.xattr.user.a", bytes(65537))) + header(), "tar-xattr-bytes="),
    "empty name": (header(b""), "empty"),
    "empty path": (extended(b"x", record(b"path", b"")) + header(), "empty"),
    "path too long": (extended(b"x", record(b"path", b"x/" * 2049)) + header(), "name has 4098 bytes"),
    "two pax headers": (
        extended(b"x", record(b"mtime", b"1")) + extended(b"x", record(b"uid", b"5")) + header(),
        "two extended headers of type x",
    ),
    "link with a size after a pax header": (
        extended(b"x", record(b"mtime", b"1")) + file(b"f", b"abc") + header(b"h", b"1", size=3, linkname=b"f"),
        "readers differ",
    ),
    "link with a size after a global header": (
        extended(b"g", record(b"comment", b"1")) + file(b"f", b"abc") + header(b"h", b"1", size=3, linkname=b"f"),
        "readers differ",
    ),
    "link with a size in pax": (
        file(b"f", b"abc") + extended(b"x", record(b"size", b"3")) + header(b"h", b"1", linkname=b"f"),
        "readers differ",
    ),
    "link to nothing": (header(b"l", b"2"), "links to nothing"),
    "link too long": (extended(b"K", b"x" * 4097) + header(b"l", b"2"), "links to a name of 4097 bytes"),
    "sparse file": (header(flag=b"S"), "sparse"),
    "sparse file in pax": (extended(b"x", record(b"GNU.sparse.name", b"x")) + header(), "sparse"),
    "volume label": (header(flag=b"V"), "type"),
    "unknown type": (header(flag=b"\xff"), "type"),
    "symlink with content": (header(b"l", b"2", size=1, linkname=b"t") + file(b"next", b""), "symlink with content"),
    "device with content": (header(b"c", b"3", size=512, device=(1, 3)) + file(b"next", b""), "char with content"),
    "dir with content": (header(b"d", b"5", size=512) + file(b"next", b""), "dir with content"),
    "prefix of no format": (header(prefix=b"p", magic=b"ustar  S"), "prefix"),
    "long name without an end": (header(flag=b"L", size=1) + b"name".ljust(512, b"\0") + header(), "long name"),
    "GNU file with a real size": (header(prefix=bytes(138) + b"00000001000", magic=b"ustar  \0"), "sparse map"),
    "directory with content": (header(b"d/", b"0", size=512) + bytes(512), "directory with content"),
    "checksum garbage": (header(checksum=b"000000\0 "), "checksum"),
    "checksum that is no number": (header(checksum=b"garbage!"), "checksum"),
    "nothing like tar": (b"<!DOCTYPE html>".ljust(512, b"x"), "tar"),
    "extended header at the end": (extended(b"x", record(b"path", b"a")), "ends after"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_archive_ends_in_one_clear_line(place: Path, case: str) -> None:
    tar, words = MALFORMED[case]
    started = time.process_time()
    with pytest.raises((InvalidArchive, LimitExceeded)) as refused:
        apply(place, tar)
    assert time.process_time() - started < 1
    assert words in str(refused.value)
    assert str(refused.value).startswith("layer 0: ")
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()


def test_an_archive_cut_anywhere_inside_is_refused(place: Path) -> None:
    whole = (
        folder(b"d") + file(b"d/a", b"x" * 2000) + extended(b"x", record(b"path", b"long")) + file(b"s", b"y")
        + extended(b"L", b"n" * 600) + file(b"n", b"z" * 512)
    )  # fmt: skip
    boundaries = set()
    at = 0
    for entry, _ in read(iter([whole]), where="t"):  # where entries begin: there a cut is not seen
        boundaries.add(at)
        at += {b"d": 512, b"d/a": 512 + 2048, b"long": 3 * 512 - 512 + 512 + 512}.get(entry.name, 0)
    boundaries.add(at)
    for cut in range(1, len(whole)):
        if cut % 512 and cut % 100:
            continue
        items = read(iter([whole[:cut]]), where="t")
        if cut in boundaries:
            assert [entry.name for entry, _ in items]
        else:
            with pytest.raises(InvalidArchive, match="ends"):
                list(items)


@pytest.mark.parametrize(
    "flood",
    [extended(b"g", record(b"comment", b"x" * 400)), extended(b"g", b""), extended(b"x", b""), header(b"d/", b"5")],
    ids=["global headers", "empty global headers", "extended headers", "entries"],
)
def test_an_endless_archive_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch, flood: bytes) -> None:
    monkeypatch.setattr("imagetool.limits.TAR_ENTRIES", 1000)
    block = flood * 50
    with pytest.raises((LimitExceeded, InvalidArchive)):
        for _ in read(itertools.repeat(block), where="t"):
            pass


def test_global_headers_do_not_pile_up(place: Path) -> None:
    headers = b"".join(extended(b"g", record(b"k%d" % n, b"v" * 400_000)) for n in range(40))
    entries = list(read(chunks(headers + file(b"f") + END), where="t"))
    assert [entry.name for entry, _ in entries] == [b"f"]
    assert entries[0][0].xattrs == {}


def test_replacing_many_directories_takes_linear_time(place: Path) -> None:
    many = b"".join(folder(b"d%d" % n) for n in range(3000))
    swaps = (folder(b"x") + file(b"x")) * 3000
    started = os.times().user  # ours alone: the disk's share of the kernel's time says nothing about us
    apply(place, many + swaps)
    assert os.times().user - started < 4


def flip(target: Path, outside: Path, stop: threading.Event) -> None:
    """Exchange a directory and a symlink that leads out, as fast as it goes."""
    os.symlink(outside, target / "evil")
    while not stop.is_set():
        try:
            os.rename(target / "d", target / "good")
            os.rename(target / "evil", target / "d")
            os.rename(target / "d", target / "evil")
            os.rename(target / "good", target / "d")
        except OSError:
            time.sleep(0)


@pytest.mark.usefixtures("kernel")
def test_a_directory_that_turns_into_a_symlink_meanwhile_leads_nowhere(place: Path) -> None:
    target = place / "target"
    (target / "d").mkdir()
    stop = threading.Event()
    thread = threading.Thread(target=flip, args=(target, place / "outside", stop))
    thread.start()
    deadline = time.monotonic() + 4
    outcomes = set()
    try:
        while time.monotonic() < deadline:
            layer = b"".join(
                file(b"d/file", b"evil") + folder(b"d/folder") + file(b"d/folder/child", b"evil") + file(b"e%d" % n)
                + file(b"d/.wh.folder") + folder(b"d", mode=0o777)
                for n in range(20)
            )  # fmt: skip
            try:
                apply(place, layer)
                outcomes.add("done")
            except ImagetoolError:
                outcomes.add("refused")
    finally:
        stop.set()
        thread.join()
    assert outcomes


def run_as_nobody(work: Callable[[], None]) -> int:
    """Run `work` in a child without privileges; return its status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if ROOT:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def open_place(tmp_path: Path) -> Path:
    """A directory that an ordinary user can reach and write, if it was made by root."""
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            os.chmod(path, path.stat().st_mode | 0o711)
    target = tmp_path / "unprivileged"
    target.mkdir()
    os.chmod(target, 0o777)
    return target


PRIVILEGED = (
    header(b"owned", uid=12, gid=34, mode=0o644)
    + header(b"setuid", uid=0, gid=0, mode=0o6755)
    + header(b"null", b"3", device=(1, 3))
    + extended(b"x", record(b"SCHILY.xattr.trusted.x", b"1") + record(b"SCHILY.xattr.user.y", b"2"))
    + header(b"attributes")
    + header(b"locked/", b"5", mode=0o555)
    + file(b"locked/inside", b"x")
    + header(b"shut/", b"5", mode=0)
    + file(b"shut/inside", b"x")
    + link(b"sym", b"owned")
)


def test_without_privileges_what_cannot_be_set_is_left_out_with_one_warning_each(open_place: Path) -> None:
    def work() -> None:
        warnings: list[str] = []
        items = read(chunks(PRIVILEGED + END), where="l")
        unpack(items, open_place, where="l", ownership=Ownership(lenient=True), warn=warnings.append)
        (open_place / "warnings").write_text("\n".join(warnings))

    assert run_as_nobody(work) == 0
    tree = describe(open_place)
    assert b"null" not in tree
    assert tree[b"setuid"][1] == 0o755, "a set-id bit for an owner the file does not have"
    assert tree[b"locked"][1] == 0o555
    assert tree[b"shut"][1] == 0
    assert tree[b"attributes"][5] == ((b"user.y", b"2"),)
    assert b"locked/inside" in tree
    assert tree[b"sym"][4] == b"owned"
    warnings = (open_place / "warnings").read_text().splitlines()
    assert len(warnings) == 4, warnings
    assert all(word in "\n".join(warnings) for word in ("owner", "device", "set-id", "trusted.x"))


def test_without_privileges_and_leniency_the_entry_is_named(open_place: Path) -> None:
    def work() -> None:
        items = read(chunks(header(b"owned", uid=12, gid=34) + END), where="layer 7")
        with pytest.raises(StorageError, match=r"layer 7: owned: .*owner 12:34.*run as root"):
            unpack(items, open_place, where="layer 7", warn=ignore)

    assert run_as_nobody(work) == 0


def test_what_an_ordinary_user_unpacked_can_be_removed_by_it(open_place: Path) -> None:
    def work() -> None:
        lenient = Ownership(owners=False, lenient=True)
        tar = header(b"d/", b"5", mode=0) + file(b"d/e/f", b"x") + header(b"d/e/", b"5", mode=0o555)
        unpack(read(chunks(tar + END), where="l"), open_place, where="l", ownership=lenient, warn=ignore)
        assert stat.S_IMODE(os.lstat(open_place / "d").st_mode) == 0
        hide = read(chunks(file(b".wh.d") + END), where="l")
        unpack(hide, open_place, where="l", ownership=lenient, warn=ignore)

    assert run_as_nobody(work) == 0
    assert list(open_place.iterdir()) == []


@pytest.mark.parametrize("deed", DEEDS)
def test_merging_hostile_layers_ends_in_a_tree_or_an_error(place: Path, deed: str) -> None:
    layers = [(opener(link(b"l", b"../outside") + END), "a"), (opener(DEEDS[deed] + END), "b")]
    try:
        flat = b"".join(write(flatten(layers)))
    except InvalidArchive:
        return
    apply(place, flat)
