"""What --isolation auto is."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.runtime.executors import EmbeddedExecutor, automatic, executor_of


@pytest.mark.parametrize(
    ("machine", "installed", "is_then"),
    [
        ("x86_64", True, "embedded"),
        ("aarch64", True, "embedded"),
        ("riscv64", True, "oci"),
        ("s390x", True, "oci"),
        ("riscv64", False, "embedded"),
    ],
)
def test_auto_is_ours_but_where_we_have_no_filter_and_another_is_installed(
    machine: str, installed: bool, is_then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed:
        (tmp_path / "crun").write_text("#!/bin/sh\n")
        (tmp_path / "crun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert automatic(machine) == is_then


def test_auto_here_tells_nothing() -> None:
    told: list[str] = []
    assert isinstance(executor_of("auto", warn=told.append), EmbeddedExecutor)
    assert told == []
