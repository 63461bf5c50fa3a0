"""Stages in threads: they wait for each other, a bounded number of turns at once, and the first error counts."""

from __future__ import annotations

import threading

import pytest

from imagetool.build.schedule import Schedule
from imagetool.errors import BuildError


def test_stages_get_what_others_gave() -> None:
    def carry_out(number: int) -> int:
        with schedule.turn():
            pass
        return number + sum(schedule.result(other) for other in range(number))

    schedule = Schedule(carry_out, jobs=1, stop=lambda: None)
    assert schedule.run(4, [0, 1, 2, 3]) == 15


def test_a_stage_that_nobody_started_is_started_when_asked_for() -> None:
    schedule: Schedule[int] = Schedule(lambda n: 7 if n == 0 else schedule.result(0), jobs=2, stop=lambda: None)
    assert schedule.run(1, []) == 7


def test_there_are_never_more_turns_than_jobs() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def carry_out(number: int) -> int:
        nonlocal running, most
        for _ in range(20):
            with schedule.turn():
                with lock:
                    running += 1
                    most = max(most, running)
                threading.Event().wait(0.001)
                with lock:
                    running -= 1
        return sum(schedule.result(other) for other in range(number)) if number == 5 else 1

    schedule = Schedule(carry_out, jobs=2, stop=lambda: None)
    assert schedule.run(5, [0, 1, 2, 3, 4]) == 5
    assert most == 2


@pytest.mark.parametrize("failing", [0, 2])
def test_the_first_error_stops_the_others_and_is_raised(failing: int) -> None:
    stopped = threading.Event()
    begun = threading.Barrier(3)

    def carry_out(number: int) -> int:
        with schedule.turn():
            begun.wait(10)
            if number == failing:
                raise BuildError("this one")
            assert stopped.wait(10)
            raise BuildError("a consequence")

    schedule = Schedule(carry_out, jobs=3, stop=stopped.set)
    with pytest.raises(BuildError, match="this one"):
        schedule.run(2, [0, 1])


def test_who_waits_for_a_stage_that_never_ends_well_is_not_left_waiting() -> None:
    def carry_out(number: int) -> int:
        if number == 0:
            raise BuildError("broken")
        return schedule.result(number - 1)

    schedule = Schedule(carry_out, jobs=1, stop=lambda: None)
    with pytest.raises(BuildError, match="broken"):
        schedule.run(3, [0, 1, 2])
