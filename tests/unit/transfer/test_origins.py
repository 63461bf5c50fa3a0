"""The memory of which repositories have which blobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.oci.digest import Digest
from imagetool.transfer import FolderOrigins

X, Y = Digest.of(b"x"), Digest.of(b"y", "sha512")


def test_the_newest_repository_comes_first_and_few_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3, 2, 4, 5):
        FolderOrigins(tmp_path / "new").record("localhost:5000", f"team/app{number}", X)
    found = FolderOrigins(tmp_path / "new").find("localhost:5000", X)
    assert found == ("team/app5", "team/app4", "team/app2", "team/app3")


@pytest.mark.parametrize("registry", ["docker.io", "localhost:5000", "[::1]:5000", ".."])
def test_registries_and_blobs_are_kept_apart(tmp_path: Path, registry: str) -> None:
    origins = FolderOrigins(tmp_path / "folder")
    origins.record(registry, "a", X)
    origins.record(registry, "b", Y)
    assert origins.find(registry, X) == ("a",)
    assert origins.find(registry, Y) == ("b",)
    assert origins.find("another", X) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_is_no_repository_is_not_believed(tmp_path: Path) -> None:
    origins = FolderOrigins(tmp_path)
    origins.record("r", "good", X)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(b"../../x\n\xff\xfe\ngood\nA&from=b\n" + b"z" * 100_000)
    assert origins.find("r", X) == ("good",)


def test_a_folder_that_cannot_be_used_remembers_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    origins = FolderOrigins(tmp_path / "file/folder")
    origins.record("r", "a", X)
    assert origins.find("r", X) == ()
