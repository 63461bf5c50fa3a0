"""Amounts as people read them."""

from __future__ import annotations

from pathlib import Path

from imagetool.cli.render import counted
from tests.support.command import imagetool


def test_one_thing_is_not_many() -> None:
    assert [counted(number, "step") for number in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert [counted(number, "entry", "entries") for number in (1, 2)] == ["1 entry", "2 entries"]


def test_what_is_removed_is_counted(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    imagetool("build", "-q", tmp_path, root=tmp_path / "root")
    for steps in ("1 step", "0 steps"):
        said = imagetool("cache", "prune", root=tmp_path / "root").stdout
        assert said == f"removed {steps} and 0 cache mounts of 0 B\n"
