"""Where builds find a base."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bases import store_with


@pytest.fixture
def store(busybox_base: Path, tmp_path: Path) -> Path:
    """A store with busybox:latest."""
    return store_with(busybox_base, tmp_path)
