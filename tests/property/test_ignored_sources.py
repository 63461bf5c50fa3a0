"""A directory as a source of COPY holds what a copy of the whole context has of it, whatever .dockerignore says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.build.copying import CopyRequest, plan_copy
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.root import Root
from imagetool.dockerfile import IgnoreRules
from imagetool.errors import BuildError

FILES = ("a", "b.log", "d/a", "d/b.log", "d/e/c", "d/e/f/g", "dd/a", "g/a")
PATTERNS = (
    "*",
    "**",
    "a",
    "d",
    "d*",
    "d/*",
    "*/e",
    "*/*/*",
    "**/c",
    "d/e",
    "d/e/f",
    "*.log",
    "**/*.log",
    "**/g",
    "d/a",
)
FOLDERS = ("d", "d/e", "d/e/f", "dd", "g")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("context")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def copied(context: Path, rules: IgnoreRules, source: str) -> set[str]:
    """Return the files that a source gives, relative to it; none where it is said not to be there."""
    with FolderFiles(context, ignore=rules, times=lambda time: time) as files:
        problem = ""
        try:
            plan = plan_copy(CopyRequest((source,), "/n/"), files, Root.empty())
        except BuildError as error:
            problem = str(error)
        if problem:
            assert problem.endswith("not found: .dockerignore excludes it")
            return set()
        kinds = {entry.name.decode(): entry.kind for entry, content in plan.items(files) if list(content) or True}
        return {name.removeprefix("n/") for name, kind in kinds.items() if kind == "file"}


@settings(max_examples=300, deadline=None)
@given(rules=st.lists(st.tuples(st.booleans(), st.sampled_from(PATTERNS)), max_size=5))
def test_a_part_of_the_context_is_what_the_whole_has_of_it(context: Path, rules: list[tuple[bool, str]]) -> None:
    ignore = IgnoreRules.of([("!" if keeps else "") + pattern for keeps, pattern in rules])
    whole = copied(context, ignore, ".")
    for folder in FOLDERS:
        assert copied(context, ignore, folder) == {
            name.removeprefix(f"{folder}/") for name in whole if name.startswith(f"{folder}/")
        }
