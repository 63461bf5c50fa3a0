"""Stages side by side: each in a thread of its own, a bounded number of their steps at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Stopped(Exception):
    """Ends a stage because another one failed; never leaves `Schedule.run`."""


class _Stage(Generic[T]):
    """A stage that is under way: its thread, and what it came to."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: T | None = None
        self.thread: threading.Thread | None = None


class Schedule(Generic[T]):
    """Carries out numbered stages that may wait for one another; for one use of `run`.

    Args:
        carry_out: does a stage; it asks `result` for others, and does each step within a `turn`.
        jobs: how many turns there are at once.
        stop: called when a stage fails, to end what others are doing; they are waited for.

    A stage may only wait for stages that do not wait for it.
    """

    def __init__(self, carry_out: Callable[[int], T], *, jobs: int, stop: Callable[[], None]) -> None:
        self._carry_out = carry_out
        self._turns = threading.Semaphore(jobs)
        self._stop = stop
        self._lock = threading.Lock()
        self._stages: dict[int, _Stage[T]] = {}
        self._failure: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether a stage has failed: what others are doing is ended."""
        return self._failure is not None

    def run(self, target: int, others: list[int]) -> T:
        """Carry out `target` here and the others in threads; return what the target gave.

        Raises the first error of any stage, once all have ended.
        """
        try:
            for number in others:
                self._start(number)
            return self._carry_out(target)
        except BaseException as error:  # noqa: BLE001 - the first one is raised, whatever it is
            self._fail(error)
            assert self._failure is not None
            raise self._failure from self._failure.__cause__
        finally:
            self._join()

    def result(self, number: int) -> T:
        """Return what a stage gave, starting it when it is not under way; not to be called within a turn."""
        stage = self._start(number)
        stage.done.wait()
        self._check()
        assert stage.result is not None
        return stage.result

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold one of the turns."""
        with self._turns:
            self._check()
            yield

    def _check(self) -> None:
        if self._failure is not None:
            raise _Stopped

    def _start(self, number: int) -> _Stage[T]:
        with self._lock:
            if number in self._stages:
                return self._stages[number]
            stage = self._stages[number] = _Stage()
        stage.thread = threading.Thread(target=self._run, args=(number, stage), name=f"stage-{number}")
        stage.thread.start()
        return stage

    def _run(self, number: int, stage: _Stage[T]) -> None:
        try:
            stage.result = self._carry_out(number)
        except BaseException as error:  # noqa: BLE001 - it goes on in the thread that waits for the build
            self._fail(error)
        finally:
            stage.done.set()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is not None:
                return
            self._failure = error
            waiting = list(self._stages.values())
        for stage in waiting:
            stage.done.set()
        self._stop()

    def _join(self) -> None:
        for stage in list(self._stages.values()):
            if stage.thread is not None:
                stage.thread.join()
