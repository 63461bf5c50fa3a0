"""A repository that does not really wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from tests.support.wire import WireRegistry


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def repository(wire: WireRegistry, waits: list[float]) -> Iterator[Repository]:
    with Registry(wire.host, sleep=waits.append) as registry:
        yield Repository(registry, "a/b")
