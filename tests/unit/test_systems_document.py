"""docs/reference/systems.md names tests: they are there."""

from __future__ import annotations

import re
from pathlib import Path

from imagetool.runtime.executors import ISOLATIONS
from imagetool.verbs.bundle import SYSTEMS

_TOP = Path(__file__).resolve().parents[2]
_TEXT = (_TOP / "docs/reference/systems.md").read_text()


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", _TEXT)
    assert len(named) > 20
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (_TOP / path).exists() or (name and f"def {name}(" not in (_TOP / path).read_text())
    ]
    assert missing == []


def test_every_bundle_and_isolation_is_told_of() -> None:
    assert [name for name in SYSTEMS if name not in _TEXT] == []
    assert [name for name in ISOLATIONS if f"{name}" not in _TEXT] == []
