from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.registry import Client


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client.open(tmp_path / "registry")
