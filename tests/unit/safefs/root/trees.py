"""Trees that are made to be removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: devices and mounts")


def deep(folder: Path, name: str, depth: int) -> None:
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_PATH | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.symlink("/", "link", dir_fd=at)
    os.close(at)
