"""What tests of networks start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.runtime.executors import Executor
from imagetool.runtime.network import Network
from tests.support.containers import VARIANTS
from tests.support.networks import HELPERS, installed, standing_for_the_host


@pytest.fixture(params=HELPERS)
def network(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """Return the default network with one helper installed."""
    return installed(request.param, tmp_path, monkeypatch)


@pytest.fixture
def host() -> Iterator[None]:
    """Put this thread, and what it starts, in a network namespace with an address and a default route."""
    with standing_for_the_host():
        yield


@pytest.fixture(params=["embedded", "mapped"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def executor(kind: str, host: None) -> Iterator[Executor]:
    with VARIANTS[kind]() as started:
        yield started
