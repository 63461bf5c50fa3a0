"""What the builder sends to a container's watcher."""

from __future__ import annotations

import os
import signal
import socket
import threading

from imagetool.runtime.container import receive


def test_signals_that_come_with_the_request_are_not_lost() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.sendall(b'{"a": "\\n"}\n' + bytes([signal.SIGTERM, signal.SIGUSR1]))  # 10 is a line break, too
        assert receive(far) == ({"a": "\n"}, [], bytes([signal.SIGTERM, signal.SIGUSR1]))


def test_a_request_in_pieces_is_read_whole_with_its_descriptors() -> None:
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    with near, far:
        socket.send_fds(near, [b'{"given": '], [reader])
        late = threading.Timer(0.05, near.sendall, [b'["network"]}\n'])
        late.start()
        received = receive(far)
        late.join()
    assert received is not None
    request, descriptors, rest = received
    assert (request, rest) == ({"given": ["network"]}, b"")
    os.write(writer, b"x")
    assert os.read(descriptors[0], 1) == b"x"
    for fd in (reader, writer, *descriptors):
        os.close(fd)


def test_a_builder_that_went_away_sends_nothing() -> None:
    near, far = socket.socketpair()
    with far:
        near.sendall(b'{"a": 1}')
        near.close()
        assert receive(far) is None
