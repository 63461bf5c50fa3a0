"""A full disk, a broken one, kill -9 and power cuts at every write, fsync, rename and unlink of the stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.content.faultwork import CASES


@pytest.mark.parametrize(("case", "strike"), [(case, strike) for case in CASES for strike in CASES[case].strikes])
def test_whatever_the_disk_does_nothing_is_lost_and_nothing_half_done_is_seen(
    case: str, strike: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.integration.content.faultwork", case, strike, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
