"""Layers that try to reach a canary outside the target: by names, by links, and while the target changes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagetool.errors import ImagetoolError, InvalidArchive, StorageError, VerificationError
from imagetool.layer.merge import flatten
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Whiteouts
from imagetool.safefs import openat2
from tests.security.layer.hostile import ROOT, apply, folder, link, root_only
from tests.support.tars import END, extended, file, header, opener, record


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[None]:
    """Leave nothing that pytest, which recurses to remove old directories, could not remove."""
    yield
    subprocess.run(["rm", "-rf", tmp_path / "target"], check=True)
    (tmp_path / "target").mkdir()  # which `place` looks for


def hard(name: bytes, target: bytes) -> bytes:
    return link(name, target, b"1")


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


@pytest.mark.parametrize("deed", DEEDS)
def test_merging_hostile_layers_ends_in_a_tree_or_an_error(place: Path, deed: str) -> None:
    layers = [(opener(link(b"l", b"../outside") + END), "a"), (opener(DEEDS[deed] + END), "b")]
    try:
        flat = b"".join(write(flatten(layers)))
    except InvalidArchive:
        return
    apply(place, flat)
