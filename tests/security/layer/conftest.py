"""Places to unpack hostile layers into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.safefs import openat2
from tests.security.layer.hostile import SECRET
from tests.support.trees import describe


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
