"""A small registry over real sockets, and a store with an image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagetool.content.memory import MemoryStore
from tests.support.wire import WireRegistry, serving


@pytest.fixture
def wire() -> Iterator[WireRegistry]:
    with serving() as registry:
        yield registry


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore()
