"""A store with busybox, a directory to work in, and the program."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool


@dataclass
class Shop:
    """Where containers are built by hand. `at` is the moment that images are of."""

    root: Path
    folder: Path
    env: Mapping[str, str] = field(default_factory=lambda: {"SOURCE_DATE_EPOCH": "1700000000"})

    def do(self, *args: str | Path, code: int = 0) -> str:
        """Run a command in the folder; return what it prints, and what it says when it must fail."""
        done = imagetool(*args, root=self.root, check=False, env=self.env, cwd=self.folder)
        assert done.returncode == code, f"{args}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip() if code == 0 else done.stderr

    def said(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        return imagetool(*args, root=self.root, env=self.env, cwd=self.folder)


@pytest.fixture
def shop(busybox_base: Path, tmp_path: Path) -> Shop:
    folder = tmp_path / "work"
    (folder / "sub").mkdir(parents=True)
    (folder / "hello.txt").write_text("hello\n")
    (folder / "sub/inner").write_text("inner\n")
    return Shop(store_with(busybox_base, tmp_path), folder)
