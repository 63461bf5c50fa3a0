"""Snapshots: layers unpacked side by side, what they leave unsaid, and what failure leaves behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagetool.errors import InvalidArchive
from imagetool.image.image import Layer
from imagetool.layer.merge import Opener
from imagetool.layer.unpack import Ownership
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.snapshot.directory import DirectorySnapshotter
from imagetool.snapshot.overlay import OverlaySnapshotter
from imagetool.snapshot.parallel import in_parallel
from tests.support.tars import END, chunks, extended, file, header, record

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, overlay attributes")


def stack(*tars: bytes) -> tuple[list[Layer], Callable[[Layer], Opener]]:
    blobs = {Digest.of(tar): tar for tar in tars}
    layers = [Layer(Descriptor("application/x", digest, len(tar)), digest) for digest, tar in blobs.items()]

    def opener(layer: Layer) -> Opener:
        @contextmanager
        def opened() -> Iterator[Iterator[bytes]]:
            yield chunks(blobs[layer.diff_id])

        return opened

    return layers, opener


def snapshotter(folder: Path) -> OverlaySnapshotter:
    return OverlaySnapshotter(folder, user_xattr=False, ownership=Ownership(), warn=print)


def folder(name: bytes, mode: int, uid: int = 0, mtime: int = 0) -> bytes:
    return header(name, b"5", mode=mode, uid=uid, mtime=mtime)


def test_a_directory_that_a_layer_does_not_describe_is_as_the_layers_below_say(tmp_path: Path) -> None:
    layers, opener = stack(
        folder(b"tmp", 0o1777, 5, 7) + folder(b"a", 0o700) + folder(b"a/b", 0o711) + file(b"f") + END,
        file(b"tmp/x") + file(b"a/b/x") + file(b"new/x") + file(b"f/x") + END,
        file(b".wh.a") + file(b"b") + END,
        file(b"tmp/y") + file(b"a/b/y") + END,
    )
    with snapshotter(tmp_path / "s").prepare(layers, opener) as workspace:
        top, _, second, _ = workspace.lowers
        for layer in (top, second):
            status = (layer / "tmp").stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_mtime) == (0o1777, 5, 7)
        assert (second / "a").stat().st_mode & 0o7777 == 0o700
        assert (second / "a/b").stat().st_mode & 0o7777 == 0o711
        assert (second / "new").stat().st_mode & 0o7777 == 0o755
        assert (second / "f").stat().st_mode & 0o7777 == 0o755
        assert (top / "a").stat().st_mode & 0o7777 == 0o755  # the third layer removed the old one
        assert (top / "a/b").stat().st_mode & 0o7777 == 0o755


def test_what_an_opaque_directory_hides_is_not_inherited(tmp_path: Path) -> None:
    layers, opener = stack(
        folder(b"a", 0o700) + folder(b"a/b", 0o711) + END,
        folder(b"a", 0o750) + file(b"a/.wh..wh..opq") + END,
        file(b"a/b/x") + END,
    )
    with snapshotter(tmp_path / "s").prepare(layers, opener) as workspace:
        assert (workspace.lowers[0] / "a").stat().st_mode & 0o7777 == 0o750
        assert (workspace.lowers[0] / "a/b").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_layer_that_cannot_be_unpacked_leaves_nothing_behind(tmp_path: Path, bad: int) -> None:
    tars = [file(b"x%d" % number) + END for number in range(3)]
    tars[bad] = file(b"../evil") + END
    layers, opener = stack(*tars)
    for kind in (snapshotter, lambda path: DirectorySnapshotter(path, ownership=Ownership(), warn=print)):
        place = tmp_path / kind.__name__
        with (
            pytest.raises(InvalidArchive, match=str(layers[bad].descriptor.digest)),
            kind(place).prepare(layers, opener),
        ):
            raise AssertionError("a workspace of a bad layer")
        assert [name for name in os.listdir(place) if name not in ("empty", "boot")] == []


def test_layers_are_unpacked_once_and_kept(tmp_path: Path) -> None:
    layers, opener = stack(*[file(b"x%d" % number) + END for number in range(5)])
    with snapshotter(tmp_path / "s").prepare(layers, opener) as workspace:
        wanted = workspace.lowers

    def never(layer: Layer) -> Opener:
        raise AssertionError("unpacked twice")

    with snapshotter(tmp_path / "s").prepare(layers, never) as workspace:
        assert workspace.lowers == wanted
        assert [next(lower.iterdir()).name for lower in reversed(wanted)] == [f"x{number}" for number in range(5)]


def test_what_a_dead_process_left_is_swept_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    with snapshotter(tmp_path).prepare(*stack()) as workspace:
        (tmp_path / "new-dead" / "fs").mkdir(parents=True)
        snapshotter(tmp_path)
        assert not (tmp_path / "new-dead").exists()
        assert workspace.upper.exists()


def test_jobs_run_at_once_and_the_first_error_is_raised_when_all_have_ended() -> None:
    together = threading.Barrier(2, timeout=20)
    assert in_parallel([lambda: together.wait() >= 0, lambda: together.wait() >= 0]) == [True, True]
    ended = []

    def fails() -> None:
        raise ValueError("first")

    def lasts() -> None:
        ended.append(1)

    with pytest.raises(ValueError, match="first"):
        in_parallel([lasts, fails, lasts])
    assert ended


def test_a_hard_link_to_a_file_of_a_layer_below_is_that_file_under_both_names(tmp_path: Path) -> None:
    attribute = extended(b"x", record(b"SCHILY.xattr.user.note", b"kept") + record(b"mtime", b"7.5"))
    layers, opener = stack(
        folder(b"a", 0o711, uid=5) + attribute + file(b"a/f", b"content", mode=0o640, uid=7, gid=8) + END,
        header(b"l", b"2", linkname=b"nowhere") + END,
        header(b"b", b"1", linkname=b"a/f")
        + header(b"c", b"1", linkname=b"b")
        + header(b"m", b"1", linkname=b"l")
        + END,
    )
    with snapshotter(tmp_path / "s").prepare(layers, opener) as workspace:
        top = workspace.lowers[0]
        names = [top / "a/f", top / "b", top / "c"]
        assert {path.read_bytes() for path in names} == {b"content"}
        (status,) = {path.stat() for path in names}
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 7, 8)
        assert (status.st_mtime_ns, os.getxattr(top / "b", "user.note")) == (7_500_000_000, b"kept")
        assert ((top / "a").stat().st_mode & 0o7777, (top / "a").stat().st_uid) == (0o711, 5)
        assert os.readlink(top / "m") == "nowhere"


@pytest.mark.parametrize(
    "top",
    [
        header(b"b", b"1", linkname=b"nowhere"),
        header(b"b", b"1", linkname=b"a"),
        file(b".wh.a") + header(b"b", b"1", linkname=b"a/f"),
        file(b"a/.wh.f") + header(b"b", b"1", linkname=b"a/f"),
        file(b"a/.wh..wh..opq") + header(b"b", b"1", linkname=b"a/f"),
        file(b".wh..wh..opq") + header(b"b", b"1", linkname=b"a/f"),
        header(b"b", b"1", linkname=b"a/f/g"),
        header(b"b", b"1", linkname=b"l/f"),
        header(b"b", b"1", linkname=b"nowhere") + file(b"b"),
    ],
)
def test_a_hard_link_to_what_no_layer_shows_is_refused_by_layer_and_name(tmp_path: Path, top: bytes) -> None:
    below = folder(b"a", 0o755) + file(b"a/f") + header(b"l", b"2", linkname=b"a")
    layers, opener = stack(below + END, top + END)
    wanted = f"layer {layers[1].descriptor.digest}: b is a hard link to"
    with pytest.raises(InvalidArchive, match=wanted), snapshotter(tmp_path).prepare(layers, opener):
        raise AssertionError("a workspace of a bad layer")
