"""Surroundings without a registry, and what must not be left in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.progress import Event, Note
from imagetool.transports import Surroundings


class Notes(list[str]):
    """An observer that keeps what is said to the user."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self.append(event.text)


def no_registry(registry: str, repository: str) -> AbstractContextManager[Any]:
    raise AssertionError(f"nobody asked for {registry}/{repository}")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def around(tmp_path: Path, notes: Notes) -> Iterator[Surroundings]:
    """A local store and scratch space; scratch space is empty again when the test ends."""
    store = LayoutStore.create(tmp_path / "root")
    yield Surroundings(store, tmp_path / "scratch", no_registry, 315_532_800, notes)
    scratch = tmp_path / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())
