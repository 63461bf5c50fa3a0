"""The process that connects a container's network namespace: started before the container runs, ended with it.

    watcher ─┬─ keeper ── helper (slirp4netns, pasta)
             └─ init ── main process

The keeper is forked while the watcher is still who the builder is: the helper must enter the
container's network namespace and open /dev/net/tun, which root of the container cannot. Keeper and
watcher are joined by a socket. The init sends the network namespace over it and waits for the
answer; when all on the other side have closed it, by their will or their death, the container is
gone and the keeper kills the helper. The kernel kills the helper when the keeper dies. The
keeper holds the control socket to its end, so that the builder waits for that too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import time
from typing import Final, NoReturn

from imagetool.runtime import capabilities, syscalls

#: The helper's descriptors, which its command names: the network namespace, and where it says that it is ready.
_NAMESPACE_FD: Final = 3
READY: Final = 4
NAMESPACE: Final = f"/proc/self/fd/{_NAMESPACE_FD}"

#: Of what root has: to enter the namespaces, make the interface, shut itself in, answer to small ports.
_CAPABILITIES: Final = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SETGID",
)
_PATIENCE: Final = 30.0  # seconds until it must be ready
_SAID_BYTES: Final = 4096
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def keep(helper: list[str], control: int) -> tuple[int, socket.socket]:
    """Fork the keeper; return its number, and the socket for `connect`, which the caller keeps open, too.

    Args:
        helper: a command that finds the namespace at `NAMESPACE` and writes to `READY`.
    """
    near, far = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            _let_go({control, far.fileno()})
            _Keeper(helper, control, far).serve()
        finally:
            os._exit(0)
    far.close()
    return pid, near


def connect(keeper: socket.socket) -> None:
    """Send the keeper the network namespace of this process."""
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.suppress(BrokenPipeError):  # `await_connection` tells it
        socket.send_fds(keeper, [b"n"], [namespace])
    os.close(namespace)


def await_connection(keeper: socket.socket) -> str:
    """Wait until the helper is ready; return why it never will be, "" when it is."""
    answer = keeper.recv(2 * _SAID_BYTES)
    if not answer:
        return "the process that connects it was killed"
    return answer[1:].decode("utf-8", "replace")


def _let_go(kept: set[int]) -> None:
    """Keep no descriptors but these and the first three, which the zygote has on /dev/null."""
    first = 3
    for fd in sorted(kept):
        syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


class _Keeper:
    """See the module. It has no threads, and nothing of it goes to the helper but what that is given."""

    def __init__(self, helper: list[str], control: int, container: socket.socket) -> None:
        self._helper = helper
        self._name = os.path.basename(helper[0])
        self._control = control
        self._container = container
        self._said = b""

    def serve(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._container, 1, 1)
        if not message:  # there was no container after all
            return
        (namespace,) = descriptors
        ready, tell_ready = os.pipe()
        said, say = os.pipe()
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(self._helper, keeper, namespace, tell_ready, say)
        for fd in (namespace, tell_ready, say):
            os.close(fd)
        process = os.pidfd_open(pid)
        try:
            self._follow(process, ready, said)
        finally:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _follow(self, process: int, ready: int, said: int) -> None:
        """Answer the init, then look after the helper until the container or the helper has ended."""
        poller = select.poll()
        for fd in (self._container.fileno(), process, ready, said):
            poller.register(fd, select.POLLIN)
        end: float | None = time.monotonic() + _PATIENCE
        while True:
            left = None if end is None else max(0.0, end - time.monotonic()) * 1000
            events = [fd for fd, _ in poller.poll(left)]
            if self._container.fileno() in events:
                return
            if said in events and not self._listen(said):
                poller.unregister(said)
            if ready in events:
                poller.unregister(ready)
                if os.read(ready, 64):
                    end = None
                    self._container.sendall(b"r")
            if process in events:
                self._tell_its_end(answered=end is None, rest=said)
                return
            if not events:
                self._container.sendall(f"p{self._name} was not ready after {_PATIENCE:g} seconds".encode())
                return

    def _listen(self, said: int) -> bool:
        """Take what the helper writes, and keep the last of it; False at its end."""
        data = os.read(said, _SAID_BYTES)
        self._said = (self._said + data)[-_SAID_BYTES:]
        return bool(data)

    def _tell_its_end(self, *, answered: bool, rest: int) -> None:
        os.set_blocking(rest, False)
        with contextlib.suppress(BlockingIOError):
            while self._listen(rest):
                pass
        lines = self._said.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")
        text = "".join(char for char in f"{self._name} ended: {last}" if char.isprintable())
        if not answered:
            self._container.sendall(b"p" + text.encode())
            return
        line = json.dumps({"warning": f"a container lost its network: {text}"}).encode() + b"\n"
        with contextlib.suppress(OSError):  # the builder is gone
            os.write(self._control, line)


def _become(helper: list[str], keeper: int, namespace: int, ready: int, say: int) -> NoReturn:
    """Become the helper: ended with the keeper, with few capabilities and no descriptor but its own."""
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        above = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in (say, namespace, ready)]
        for fd, target in zip(above, (2, _NAMESPACE_FD, READY), strict=True):
            os.dup2(fd, target)
        syscalls.close_range(READY + 1)
        capabilities.limit_bounding_set(capabilities.mask(_CAPABILITIES))
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        os.execve(helper[0], helper, _ENVIRONMENT)
    except OSError as error:
        os.write(2, f"{error.strerror}\n".encode())
    finally:
        os._exit(127)
