"""Somebody at a container: what is typed goes in, signals go in, and a terminal is a terminal on both sides."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final

from imagetool.runtime.container import PASSED_ON

_PIECE: Final = 65536
_PATIENCE: Final = 3  # the same signal so often, and the container is killed
_SIZE: Final = (24, 80)


class Session:
    """The caller's side of one container; a context manager, for the main thread.

    Args:
        source: descriptor that the container's stdin comes from; None for an empty one.
        terminal: the container has a terminal. When `source` is one too, it is raw while this is
            open, its size follows, and nothing but bytes passes between the two.

    The container never gets a descriptor of ours: what it reads is copied by a thread, which
    may have read ahead when the container ends.
    """

    def __init__(self, *, source: int | None = None, terminal: bool = False) -> None:
        self._source = source
        self._terminal = terminal
        self._raw = terminal and source is not None and os.isatty(source)

    def __enter__(self) -> Session:
        self._ignored: dict[int, Any] = {}
        self.stdin, self._sink = os.pipe()
        self._before = termios.tcgetattr(self._source) if self._raw and self._source is not None else None
        if self._terminal or self._source is None:
            self._close_sink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._ignored.items():
            signal.signal(number, handler)
        os.close(self.stdin)
        if self._before is not None and self._source is not None:
            termios.tcsetattr(self._source, termios.TCSADRAIN, self._before)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the caller's terminal."""
        if not self._raw or self._source is None:
            return _SIZE
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._source, termios.TIOCGWINSZ, bytes(8)))
        return (rows, columns) if rows and columns else _SIZE

    def attach(self, master: int) -> None:
        """Take the master of the container's terminal, which stays open as long as the container runs."""
        if self._before is not None and self._source is not None:
            tty.setraw(self._source)
        self._master = os.dup(master)
        self._resize()
        if self._source is not None:
            self._feed(self._master)

    @contextmanager
    def forwarding(self, control: socket.socket) -> Iterator[None]:
        """Send signals to us on to the container; one that comes again and again raises KeyboardInterrupt.

        From then on, until the session ends, nothing more is heard of them: what was begun is put away in order.
        From here on its stdin is fed: not before, because a thread forbids to enter a user namespace.
        """
        counts: dict[int, int] = {}

        def forward(number: int, _: FrameType | None) -> None:
            if self._ignored:
                return
            counts[number] = counts.get(number, 0) + 1
            if counts[number] > _PATIENCE:
                for passed in PASSED_ON:
                    self._ignored[passed] = handlers.pop(passed)
                    signal.signal(passed, signal.SIG_IGN)
                raise KeyboardInterrupt
            with contextlib.suppress(OSError):  # it has ended by itself
                control.send(bytes([number]))

        handlers: dict[int, Any] = {}
        for passed in PASSED_ON:
            handlers[passed] = signal.signal(passed, forward)
        if self._raw:
            handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        if self._source is not None and not self._terminal:
            self._feed(self._sink)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _resize(self) -> None:
        if self._raw and hasattr(self, "_master"):
            rows, columns = self.size
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _feed(self, target: int) -> None:
        threading.Thread(target=self._copy, args=(target,), daemon=True).start()

    def _copy(self, target: int) -> None:
        """Copy what comes until either side has ended; a terminal is told the end as a user would tell it."""
        assert self._source is not None
        with contextlib.suppress(OSError):
            while data := os.read(self._source, _PIECE):
                view = memoryview(data)
                while view:
                    view = view[os.write(target, view) :]
            if self._terminal:
                os.write(target, b"\x04")
        if not self._terminal:
            self._close_sink()

    def _close_sink(self) -> None:
        os.close(self._sink)
