"""The memory of which repositories have which blobs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from imagetool.oci.digest import Digest
from imagetool.transfer import FolderOrigins, origins

X, Y = Digest.of(b"x"), Digest.of(b"y", "sha512")


def test_the_newest_repository_comes_first_and_few_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3, 2, 4, 5):
        FolderOrigins(tmp_path / "new").record("localhost:5000", f"team/app{number}", X)
    found = FolderOrigins(tmp_path / "new").find("localhost:5000", X)
    assert found == ("team/app5", "team/app4", "team/app2", "team/app3")


def _files(folder: Path) -> list[Path]:
    """Return the files of blobs."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".pruned"]


@pytest.mark.parametrize("registry", ["docker.io", "localhost:5000", "[::1]:5000", ".."])
def test_registries_and_blobs_are_kept_apart(tmp_path: Path, registry: str) -> None:
    known = FolderOrigins(tmp_path / "folder")
    known.record(registry, "a", X)
    known.record(registry, "b", Y)
    assert known.find(registry, X) == ("a",)
    assert known.find(registry, Y) == ("b",)
    assert known.find("another", X) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_is_no_repository_is_not_believed(tmp_path: Path) -> None:
    known = FolderOrigins(tmp_path)
    known.record("r", "good", X)
    (path,) = _files(tmp_path)
    path.write_bytes(b"../../x\n\xff\xfe\ngood\nA&from=b\n" + b"z" * 100_000)
    assert known.find("r", X) == ("good",)


def test_a_folder_that_cannot_be_used_remembers_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    known = FolderOrigins(tmp_path / "file/folder")
    known.record("r", "a", X)
    assert known.find("r", X) == ()


def _grow_old(folder: Path, days: float, *names: str) -> None:
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file() and (not names or path.name in names):
            os.utime(path, (then, then))


def test_what_was_not_moved_for_long_is_forgotten_and_registries_with_nothing_left_too(tmp_path: Path) -> None:
    known = FolderOrigins(tmp_path)
    known.record("localhost:41234", "a", X)
    known.record("r", "a", X)
    known.record("r", "a", Y)
    (tmp_path / "r/.0123456789abcdef").write_text("a writer was killed\n")
    _grow_old(tmp_path, 91)
    known.record("r", "a", Y)  # moved again, without a change
    known.record("r", "a", Digest.of(b"z"))
    assert known.find("r", X) == ()
    assert known.find("r", Y) == ("a",)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".pruned", "r"]
    assert len(_files(tmp_path)) == 2


def test_it_is_looked_for_what_is_old_once_a_day(tmp_path: Path) -> None:
    known = FolderOrigins(tmp_path)
    known.record("r", "a", X)
    _grow_old(tmp_path / "r", 91)
    known.record("r", "a", Y)
    assert known.find("r", X) == ("a",)
    _grow_old(tmp_path, 1.1, ".pruned")
    known.record("r", "b", Y)
    assert known.find("r", X) == ()


def test_of_very_many_those_moved_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "_KEPT_BLOBS", 3)
    known = FolderOrigins(tmp_path)
    blobs = [Digest.of(bytes([number])) for number in range(6)]
    for age, blob in enumerate(reversed(blobs)):
        known.record("r", "a", blob)
        _grow_old(tmp_path / "r", age + 1, f"sha256-{blob.hex}")
    _grow_old(tmp_path, 2, ".pruned")
    known.record("r", "b", blobs[-1])
    assert [blob for blob in blobs if known.find("r", blob)] == blobs[3:]
