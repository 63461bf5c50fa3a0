"""A few threads for a list of tasks: the first error stops all, and so does Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_GRACE: Final = 5.0  # seconds that threads get to notice that they shall stop


class Stopped(Exception):
    """Raised within a task because another one failed; never leaves this package."""


class Crew(Generic[T]):
    """Up to `jobs` threads; after a failure or an interrupt every stream through `watched` ends.

    The threads are daemons: one that waits for a dead network cannot keep the process alive. What
    such a thread leaves behind is a blob that was never committed.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = max(1, jobs)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks until the crew is stopped; then raise Stopped."""
        for chunk in chunks:
            self.check()
            yield chunk

    def check(self) -> None:
        """Raise Stopped when the crew is stopped."""
        if self._stopped.is_set():
            raise Stopped

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run the tasks and return their results in order; raises the first error that occurred."""
        results: dict[int, T] = {}
        waiting = iter(list(enumerate(tasks)))

        def work() -> None:
            while not self._stopped.is_set():
                with self._lock:
                    number, task = next(waiting, (-1, None))
                if task is None:
                    return
                try:
                    results[number] = task()
                except BaseException as error:  # noqa: BLE001 - handed to the caller of run, whatever it is
                    self._fail(error)

        threads = [threading.Thread(target=work, name=f"blob-{n}", daemon=True) for n in range(self._jobs)]
        threads = threads[: len(tasks)]
        try:
            for thread in threads:
                thread.start()
            self._join(threads)
        except BaseException:  # Ctrl-C in the thread that starts them and waits
            self._stopped.set()
            self._join(threads, until=time.monotonic() + _GRACE)
            raise
        if self._error is not None:
            raise self._error
        return [results[number] for number in range(len(tasks))]

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None and not isinstance(error, Stopped):
                self._error = error
        self._stopped.set()

    def _join(self, threads: Sequence[threading.Thread], until: float | None = None) -> None:
        """Wait for the threads; once the crew is stopped, only for a grace."""
        while any(thread.is_alive() for thread in threads):
            if until is None and self._stopped.is_set():
                until = time.monotonic() + _GRACE
            if until is not None and time.monotonic() > until:
                return
            next(thread for thread in threads if thread.is_alive()).join(0.1)
