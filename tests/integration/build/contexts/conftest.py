"""A store, and beside it what no context may reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.build.contexts.building import MARK


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text(MARK)
    return tmp_path / "store"
