"""Independent jobs on several cores at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final, TypeVar

T = TypeVar("T")
_MOST: Final = 4  # more threads than this only wait for each other's turn in the interpreter


def in_parallel(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run jobs in threads and return what they return, in order.

    When one fails those that have not begun do not begin; once the others have ended the first
    error, in the order of the jobs, is raised.
    """
    if len(jobs) < 2:
        return [job() for job in jobs]
    with ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1, _MOST), thread_name_prefix="layer") as pool:
        running = [pool.submit(job) for job in jobs]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            for future in running:
                future.cancel()
    for future in running:
        if not future.cancelled() and (error := future.exception()) is not None:
            raise error
    return [future.result() for future in running]
