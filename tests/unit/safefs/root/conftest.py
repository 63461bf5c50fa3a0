"""A root, over openat2 and over the walk that stands in for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.safefs import openat2
from tests.support.trees import describe


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openat2._Kernel, "has_openat2", request.param == "openat2")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The root, beside a canary that stays as it is."""
    canary = tmp_path / "canary"
    (canary / "d").mkdir(parents=True)
    (canary / "file").write_text("secret")
    (canary / "d/file").write_text("secret")
    before = describe(canary)
    (tmp_path / "root").mkdir()
    yield tmp_path / "root"
    assert describe(canary) == before
