"""Upper directories of every overlay: the kernel's, the kernel's on another overlay, fuse-overlayfs's."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from imagetool.errors import InvalidArchive
from imagetool.layer.entry import Entry
from imagetool.layer.scan import Dialect, scan_upper
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import unpack
from tests.support.trees import describe

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: devices, trusted attributes")


def entries(upper: Path, dialect: Dialect = "kernel") -> list[Entry]:
    return [entry for entry, _ in scan_upper(upper, clamp=None, warn=print, dialect=dialect)]


@root
@pytest.mark.parametrize("prefix", ["trusted.overlay.", "user.overlay."])
def test_both_attribute_dialects_of_the_kernel_are_understood(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", f"{prefix}opaque", b"y")
    os.setxattr(tmp_path / "d", f"{prefix}origin", b"\0\1")
    os.mknod(tmp_path / "gone", stat.S_IFCHR, 0)
    (tmp_path / "nested").touch()
    os.setxattr(tmp_path / "nested", f"{prefix}whiteout", b"y")
    (tmp_path / "x").mkdir()
    os.setxattr(tmp_path / "x", f"{prefix}opaque", b"x")  # holds such whiteouts, hides nothing itself
    found = entries(tmp_path)
    assert [entry.name for entry in found] == [b"d", b"d/.wh..wh..opq", b".wh.gone", b".wh.nested", b"x"]
    assert not any(entry.xattrs for entry in found)


@root
@pytest.mark.parametrize("attribute", ["redirect", "metacopy"])
def test_marks_that_a_layer_cannot_express_are_refused(tmp_path: Path, attribute: str) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", f"trusted.overlay.{attribute}", b"/elsewhere")
    with pytest.raises(Exception, match="mount overlays without it"):
        entries(tmp_path)


def test_fuse_overlayfs_marks_become_whiteouts_owners_and_modes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".wh..wh..opq").touch()
    (tmp_path / "d" / "f").write_bytes(b"x")
    os.setxattr(tmp_path / "d" / "f", "user.fuseoverlayfs.override_stat", b"1000:50:104755")
    os.setxattr(tmp_path / "d" / "f", "user.fuseoverlayfs.origin", b"\1")
    os.setxattr(tmp_path / "d" / "f", "user.note", b"kept")
    (tmp_path / "e").mkdir()
    os.setxattr(tmp_path / "e", "user.fuseoverlayfs.opaque", b"y")
    os.setxattr(tmp_path / "e", "user.containers.override_stat", b"1:2:711")
    (tmp_path / ".wh.gone").touch()
    found = entries(tmp_path, "fuse")
    assert [e.name for e in found] == [b".wh.gone", b"d", b"d/.wh..wh..opq", b"d/f", b"e", b"e/.wh..wh..opq"]
    assert (found[3].uid, found[3].gid, found[3].mode, found[3].xattrs) == (1000, 50, 0o4755, {b"user.note": b"kept"})
    assert (found[4].uid, found[4].gid, found[4].mode, found[4].xattrs) == (1, 2, 0o711, {})
    with pytest.raises(InvalidArchive, match=r"\.wh\."):
        entries(tmp_path)  # to the kernel's overlay these are files, which no layer can hold


@pytest.mark.parametrize("value", [b"", b"1:2", b"-1:2:755", b"1:2:9", b"a:b:c"])
def test_a_statement_that_is_none_is_refused(tmp_path: Path, value: bytes) -> None:
    (tmp_path / "f").touch()
    os.setxattr(tmp_path / "f", "user.fuseoverlayfs.override_stat", value)
    with pytest.raises(InvalidArchive, match="not an owner and a mode"):
        entries(tmp_path, "fuse")


SCRIPT = """
set -e
fuse-overlayfs -o lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work {0}/merged 2>/dev/null
trap 'umount {0}/merged' EXIT
cd {0}/merged
rm gone; rm -r d; mkdir d; touch d/new; rm e/y; echo text > f; chown 1000:50 f; chmod 4711 f; ln f hard; ln -s f soft
mkfifo pipe; rm -r swap; ln -s e swap
cp -a {0}/merged {0}/wanted
cd /
"""


@root
@pytest.mark.peer
@pytest.mark.skipif(shutil.which("fuse-overlayfs") is None, reason="needs fuse-overlayfs")
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")
def test_what_fuse_overlayfs_left_is_the_layer_of_what_it_showed(tmp_path: Path) -> None:
    for name in ("lower/d", "lower/e", "lower/swap", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("gone", "d/x", "e/y", "e/z", "swap/x"):
        (tmp_path / "lower" / name).write_text(name)
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", SCRIPT.format(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    tar = write(scan_upper(tmp_path / "upper", clamp=None, warn=print, dialect="fuse"))
    unpack(read(tar, where="t"), tmp_path / "lower", where="t", warn=print)
    wanted = describe(tmp_path / "wanted", times=False)
    assert describe(tmp_path / "lower", times=False) == wanted
