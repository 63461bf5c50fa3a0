"""What programs may import from `imagetool.api` goes away, or takes other arguments, only on purpose."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from imagetool import api

GOLDEN = Path(__file__).parents[2] / "fixtures/golden/api.txt"


def _shown(name: str) -> str:
    """Return how a thing of the public face is called."""
    found = getattr(api, name)
    assert found.__doc__
    signature = inspect.signature(found)
    # Values that stand for "not given" show the address they have in memory.
    parameters = [
        one.replace(default="…") if one.default is not one.empty and " at 0x" in repr(one.default) else one
        for one in signature.parameters.values()
    ]
    return f"{name}{inspect.Signature(parameters, return_annotation=signature.return_annotation)}\n"


def test_the_public_face_is_as_it_was(request: pytest.FixtureRequest) -> None:
    assert api.__all__ == sorted(api.__all__)
    shown = "".join(_shown(name) for name in api.__all__)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text(), "if this is meant: pytest --update-golden"


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = api.nothing
