"""What the documents and comments point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_TOP = Path(__file__).resolve().parents[2]
_DOCUMENTS = sorted(path for folder in (_TOP, _TOP / "docs") for path in folder.glob("*.md")) + sorted(
    path for folder in ("docs/adr", "docs/reference", "fixtures") for path in (_TOP / folder).glob("*.md")
)


@pytest.mark.parametrize("path", _DOCUMENTS, ids=lambda path: str(path.relative_to(_TOP)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert missing == []


def test_what_the_code_names_is_there() -> None:
    missing = set()
    for package in ("imagetool", "registry_server"):
        for source in (_TOP / package).rglob("*.py"):
            for name in re.findall(r"\bdocs/(?:adr|reference)/[\w/-]+(?:\.md)?", source.read_text()):
                found = (_TOP / name).exists() or list(_TOP.glob(f"{name}*"))
                missing |= set() if found else {f"{source.relative_to(_TOP)}: {name}"}
    assert missing == set()


def test_the_targets_of_make_are_listed() -> None:
    text = (_TOP / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, flags=re.M))
    assert targets == set(re.findall(r"^([a-z]+):.*## ", text, flags=re.M)), "a target without a word of help"
