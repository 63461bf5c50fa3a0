"""Where images are copied from."""

from __future__ import annotations

import pytest

from imagetool.content.memory import MemoryStore


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore()
