"""The fuzz targets on their corpus and on a bounded number of mutations; `make fuzz` searches longer."""

from __future__ import annotations

import pytest

from tests.fuzz.run import corpus, simple
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_is_taken_or_refused(name: str) -> None:
    inputs = corpus(name)
    assert len(inputs) > 3
    for data in inputs:
        TARGETS[name](data)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", range(4))
def test_mutations_of_the_corpus_end_in_our_errors(name: str, seed: int) -> None:
    assert simple(name, inputs=600, seconds=60, seed=seed) is None
