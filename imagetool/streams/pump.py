"""Move chunks between producers and consumers: re-block, read files, run a producer in its own thread."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, TypeVar

from imagetool.limits import CHUNK

_QUEUE_CHUNKS: Final = 2  # memory between two threads: at most this many chunks
_M_TRIM_THRESHOLD: Final = -1  # of malloc.h, as the next two
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_THREADS: Final = 8  # more only wait for the one that hashes

T = TypeVar("T")
R = TypeVar("R")


def reblock(chunks: Iterable[bytes], size: int = CHUNK) -> Iterator[bytes]:
    """Yield the same bytes in blocks of exactly `size`, the last one shorter.

    Compressors whose output depends on how they are fed (isal, zlib-ng) see the same blocks
    whatever the producer did.
    """
    parts: list[bytes | memoryview] = []
    held = 0
    for chunk in chunks:
        length = len(chunk)
        if not parts and length == size:
            yield chunk
            continue
        if held + length < size:
            parts.append(chunk)
            held += length
            continue
        view = memoryview(chunk)  # so that each byte is copied once
        start = size - held
        whole = [b"".join((*parts, view[:start]))]
        parts.clear()
        yield whole.pop()  # whoever takes it is the only one that holds it
        while start + size <= length:
            yield bytes(view[start : start + size])
            start += size
        parts = [view[start:]] if start < length else []
        held = length - start
    if parts:
        yield b"".join(parts)


def rejoined(head: list[T], rest: Iterable[T]) -> Iterator[T]:
    """Yield what was taken off a stream to look at it, then the rest; unlike itertools.chain, keep nothing of it."""
    while head:
        yield head.pop(0)
    yield from rest


def read_chunks(file: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """Yield a file's bytes from its position to its end."""
    while chunk := file.read(size):
        yield chunk


@functools.cache
def share_memory() -> None:
    """Have all threads of this process get memory from one pool that keeps it, where the C library is glibc.

    By default each thread has its own, and what a thread frees is of no use to another: buffers that
    travel from thread to thread would take a third more memory. And by default a pool gives the
    buffer of one chunk back to the kernel before it asks for that of the next, page by page.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 8 * CHUNK)
        mallopt(_M_TRIM_THRESHOLD, 16 * CHUNK)


def give_back_memory() -> None:
    """Give the kernel what of this process's memory is free, where the C library is glibc: some milliseconds."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def threads_for_codecs() -> int:
    """Return how many threads one stream is compressed by: one for each CPU of this process, within reason."""
    return min(cpus(), _THREADS)


def cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def in_order(function: Callable[[T], R], items: Iterable[T], *, threads: int = 0) -> Iterator[R]:
    """Yield function(item) for each item, in order, computed by several threads.

    At most `threads` + 1 items are held at a time (0: as many as there are CPUs). A single item, or a
    single thread, needs no thread at all. An error of the function is raised where its result would
    have come; leaving early waits for what is being computed.
    """
    source = iter(items)
    head = list(itertools.islice(source, 2))
    threads = threads or threads_for_codecs()
    if len(head) < 2 or threads < 2:
        yield from map(function, rejoined(head, source))
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="codec") as pool:
        try:
            for item in rejoined(head, source):
                waiting.append(pool.submit(function, item))
                del item  # it is let go when its result is there
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextmanager
def in_thread(chunks: Iterable[bytes]) -> Iterator[Iterator[bytes]]:
    """Yield an iterator over `chunks` that are produced in a thread of their own.

    Order is kept and memory is bounded. An error of the producer is raised to the consumer
    where it occurred; leaving the context early stops the producer and waits for it.
    """
    import queue

    share_memory()
    ready: queue.Queue[bytes | _Failure | None] = queue.Queue(_QUEUE_CHUNKS)
    stopped = threading.Event()

    def put(item: bytes | _Failure | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for chunk in chunks:
                if not put(chunk):
                    return
        except BaseException as error:  # noqa: BLE001 - handed over to the consumer, whatever it is
            put(_Failure(error))
        else:
            put(None)

    def consume() -> Iterator[bytes]:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item

    thread = threading.Thread(target=produce, name="stream", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join()
