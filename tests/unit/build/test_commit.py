"""The moment of a build in a Git work tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imagetool.build.commit import commit_time

_WHO = ("-c", "user.name=n", "-c", "user.email=e@example.com")


def git(folder: Path, *args: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    times = {"GIT_AUTHOR_DATE": "1600000000 +0900", "GIT_COMMITTER_DATE": "1700000000 -0330"}
    subprocess.run(["git", "-C", folder, *_WHO, *args], check=True, capture_output=True, env={**clean, **times})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "below").mkdir(parents=True)
    (folder / "below/file").write_text("x\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one\n\ncommitter not this <x> 1 +0000")
    return folder


def never(text: str) -> None:
    raise AssertionError(text)


def test_the_committers_time_counts_also_from_a_directory_below(tree: Path) -> None:
    assert commit_time(tree, warn=never) == 1_700_000_000
    assert commit_time(tree / "below", warn=never) == 1_700_000_000


def test_another_directory_has_none(tmp_path: Path) -> None:
    assert commit_time(tmp_path, warn=never) is None


def test_the_repository_of_a_hook_is_not_asked(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert commit_time(tree, warn=never) == 1_700_000_000


@pytest.mark.root
def test_someone_elses_work_tree_counts_and_runs_nothing(tree: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for name in ("gpg.program", "core.pager", "core.fsmonitor", "core.sshCommand"):
        git(tree, "config", name, str(trap))
    git(tree, "config", "log.showSignature", "true")
    subprocess.run(["chown", "-R", "65534:65534", tree], check=True)
    assert commit_time(tree, warn=never) == 1_700_000_000
    assert not (tmp_path / "sprung").exists()


def test_a_work_tree_without_a_commit_is_told(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    told: list[str] = []
    assert commit_time(tmp_path, warn=told.append) is None
    assert len(told) == 1
    assert "without a readable commit" in told[0]
