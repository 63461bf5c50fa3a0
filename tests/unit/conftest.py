"""What tests of several packages start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.wire import WireRegistry, serving


@pytest.fixture
def wire() -> Iterator[WireRegistry]:
    """A small registry over real sockets, which does as a test says."""
    with serving() as registry:
        yield registry
