"""Imports have an order: what a module imports, in whatever function, never imports that module in turn.

import-linter knows packages beside one another; here a package and the modules in it count as well.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """What each module imports, in functions and for types too."""
    graph = grimp.build_graph("imagetool", "registry_server", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_module_is_imported_by_what_it_imports(imported: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as circle:
        pytest.fail(f"a circle of imports: {' <- '.join(circle.args[1])}")


def test_imports_in_functions_count(imported: dict[str, set[str]]) -> None:
    assert "imagetool.cli.completion" in imported["imagetool.cli.app"]
    with pytest.raises(CycleError):
        TopologicalSorter({**imported, "imagetool.cli.completion": {"imagetool.cli.app"}}).prepare()
