"""The process that containers are forked from: single-threaded, small, started once per executor.

The builder has threads and must not fork itself. A request is one byte with descriptors: b"c" with
the control socket of a new container, the pipes of its output, that of its input; b"n" with the control
socket of a network to be connected. Everything else is between the builder and the child; see
`container` and `connection`. When the builder's end of
the channel is closed, by its will or by its death, this process ends and the kernel kills all
containers with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket

from imagetool.runtime.connection import keep
from imagetool.runtime.container import watch


def serve(descriptor: int, groups: list[str]) -> None:
    """Join control groups, as far as they let us; fork a container for each request until the channel is closed."""
    channel = socket.socket(fileno=descriptor)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # what nohup or Python ignore, containers would inherit
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for folder in groups:
        with contextlib.suppress(OSError), open(f"{folder}/cgroup.procs", "wb", buffering=0) as processes:
            processes.write(b"0")
    gc.disable()
    gc.freeze()
    zygote = os.getpid()
    channel.send(b"r")
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1, 4)
        if not message:
            return
        control, *streams = descriptors
        if os.fork() == 0:
            channel.close()
            if message == b"n":
                keep(zygote, control)
            watch(zygote, control, streams)
        for fd in descriptors:
            os.close(fd)
