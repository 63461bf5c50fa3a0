"""A full disk, a broken one, kill -9 and power cuts at every write, fsync, rename and unlink of the stores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.content.faultwork import CASES


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: the disk that fails is ours, and a busy one only makes it wait."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.parametrize(("case", "strike"), [(case, strike) for case in CASES for strike in CASES[case].strikes])
def test_whatever_the_disk_does_nothing_is_lost_and_nothing_half_done_is_seen(
    case: str, strike: str, folder: Path
) -> None:
    command = [sys.executable, "-m", "tests.integration.content.faultwork", case, strike, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
