"""The process that makes containers: single-threaded, started once, forks for each.

The builder has threads and must not fork; it talks to this process over a socket. A request is
one JSON object with two descriptors for the container's output; the answer is one JSON object.
Closing the socket ends everything: the container's first process dies with this one, and
the kernel kills all others of its PID namespace.

Nothing is mounted on the host: the overlay is mounted in the container's own mount namespace.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
from typing import Any

from imagetool.runtime import kernel
from imagetool.runtime.container import SetupFailed, enter

_LENGTH = struct.Struct("!I")


def main(fd: int) -> None:
    """Serve requests until the socket is closed."""
    kernel.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to us too; the builder decides
    connection = socket.socket(fileno=fd)
    while True:
        header, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 2)
        if len(header) < _LENGTH.size:
            return
        request = json.loads(_exactly(connection, _LENGTH.unpack(header)[0]))
        answer = _serve(request, descriptors, connection)
        for descriptor in descriptors:
            os.close(descriptor)
        if answer is None:
            return
        body = json.dumps(answer).encode()
        connection.sendall(_LENGTH.pack(len(body)) + body)


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size and (part := connection.recv(size - len(parts))):
        parts += part
    return bytes(parts)


def _serve(request: dict[str, Any], output: list[int], connection: socket.socket) -> dict[str, Any] | None:
    """Run one container; None when the builder went away meanwhile."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _outer(request, output, writing, [reading, connection.fileno()])
    os.close(writing)
    child = os.pidfd_open(pid)
    gone = False
    poller = select.poll()
    poller.register(child, select.POLLIN)
    poller.register(connection, select.POLLIN | select.POLLHUP)
    while True:
        ready = [fd for fd, _ in poller.poll()]
        if child in ready:
            break
        # The builder never sends while a container runs: it has closed, or asks to stop.
        gone = not connection.recv(1)
        signal.pidfd_send_signal(child, signal.SIGKILL)
        poller.unregister(connection)
    _, status = os.waitpid(pid, 0)
    os.close(child)
    with open(reading, "rb") as pipe:
        problem = pipe.read(65536).decode("utf-8", "replace")
    if gone:
        return None
    code = os.waitstatus_to_exitcode(status)
    return {"status": code if code >= 0 else 128 - code, "problem": problem}


def _outer(request: dict[str, Any], output: list[int], problems: int, closing: list[int]) -> None:
    """The process between: unshares, forks the container's PID 1, and passes its status on."""
    status = 125
    try:
        for descriptor in closing:
            os.close(descriptor)
        kernel.prctl(1, signal.SIGKILL)
        kinds = [namespace["type"] for namespace in request["spec"]["linux"]["namespaces"]]
        kernel.unshare(sum(kernel.CLONE[kind] for kind in kinds))
        pid = os.fork()
        if pid == 0:
            kernel.prctl(1, signal.SIGKILL)
            enter(request, output)
        for descriptor in (*output, problems):
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        status = code if code >= 0 else 128 - code
        os._exit(status)
    except SetupFailed as error:
        os.write(problems, str(error).encode()[:60000])
    except OSError as error:
        os.write(problems, f"cannot make the container: {error.strerror or error}".encode()[:60000])
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]))
