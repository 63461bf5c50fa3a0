"""Threads for a list of tasks: whenever Ctrl-C comes, all of them end."""

from __future__ import annotations

import itertools
import signal
from collections import deque

import pytest

from imagetool.transfer.crew import Crew
from tests.support.wire import wait_for


@pytest.mark.parametrize("first", range(8))
def test_ctrl_c_while_the_threads_are_being_started_stops_those_that_run(first: int) -> None:
    crew: Crew[None] = Crew(8)
    running: list[int] = []

    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    def go_on(number: int) -> None:
        running.append(number)
        try:
            deque(crew.watched(itertools.repeat(b"")), maxlen=0)
        finally:
            running.remove(number)

    tasks = [interrupt if number == first else lambda number=number: go_on(number) for number in range(8)]
    with pytest.raises(KeyboardInterrupt):
        crew.run(tasks)
    wait_for(lambda: not running)
