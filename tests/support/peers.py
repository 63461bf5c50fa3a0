"""Run tools of other projects."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def peer(*command: str | Path) -> str:
    """Run a tool that must succeed; return its stdout. Skips where it is not installed."""
    if not shutil.which(str(command[0])):
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
