"""The process behind a network that containers use one after another: it makes the namespace and keeps its helper.

    builder ──control── keeper ── helper (slirp4netns, pasta)

The keeper is forked from the zygote while that is still who the builder is: the helper must enter the
network namespace and open /dev/net/tun, which root of a mapped container cannot. What a namespace belongs
to cannot be changed later, so for mapped containers the keeper makes their user namespace, too. The
builder is sent both and hands them to containers, one at a time. When it closes or half-closes
the control socket, by its will or its death, the keeper kills the helper; the kernel kills it when the
keeper dies. The keeper reads one request and reports, one JSON object a line:

    {"ready": true, "again": bool}    with the namespaces; whether a second container finds them as the first did
    {"problem": text}                 there will be no network, with "unmappable" when it is for the user namespace
    {"ended": text}                   the helper has ended before it was told to
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
from typing import Any, Final, NoReturn

from imagetool.runtime import capabilities, mapped, syscalls
from imagetool.runtime.container import loopback_up, receive

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
#: How many closed connections stay known for a minute, in which a server cannot have their port.
_CLOSED_CONNECTIONS: Final = "/proc/sys/net/ipv4/tcp_max_tw_buckets"


class _Failed(Exception):
    """There will be no network; the text is for the user."""


def keep(zygote: int, control: int) -> NoReturn:
    """Be the keeper, in a fresh child of the zygote."""
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != zygote:
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel = socket.socket(fileno=control)
        received = receive(channel)
        if received is not None:
            _serve(channel, *received[:1])
    finally:
        os._exit(0)


def _serve(channel: socket.socket, request: dict[str, Any]) -> None:
    try:
        namespaces, again = _make(request)
        helper = _Helper(request["helper"], namespaces[0])
    except mapped.Refused as error:
        _report(channel, problem=str(error), unmappable=True)
        return
    except OSError as error:
        _report(channel, problem=f"its namespace cannot be made: {error.strerror}")
        return
    try:
        helper.await_ready(channel)
        line = json.dumps({"ready": True, "again": again}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(channel, [line], namespaces)
        for fd in namespaces:
            os.close(fd)
        if text := helper.follow(channel):
            _report(channel, ended=text)
    except _Failed as error:
        _report(channel, problem=str(error))
    finally:
        helper.end()


def _report(channel: socket.socket, **message: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the builder is gone
        channel.sendall(json.dumps(message).encode() + b"\n")


def _make(request: dict[str, Any]) -> tuple[list[int], bool]:
    """Make the network namespace, and the user namespace when there are mappings; say whether they can be used again.

    Raises Refused, OSError.
    """
    user = mapped.make_user_namespace(request["mappings"]) if request["mappings"] else None
    near, far = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            near.close()
            _make_network(far, user)
        finally:
            os._exit(0)
    far.close()
    answer, sent, _, _ = socket.recv_fds(near, 64, 1)
    near.close()
    os.waitpid(pid, 0)
    if not sent:
        number = int(answer or b"0")
        raise OSError(number, os.strerror(number))
    return [sent[0], *([] if user is None else [user])], answer == b"again"


def _make_network(answer: socket.socket, user: int | None) -> None:
    """In a child: make the namespace as who the containers are, and send it."""
    try:
        if user is not None:
            syscalls.setns(user, syscalls.CLONE["user"])
        syscalls.unshare(syscalls.CLONE["network"])
        loopback_up()
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        answer.send(b"%d" % (error.errno or 0))
        return
    socket.send_fds(answer, [b"again" if _forgets_connections() else b"once"], [namespace])


def _forgets_connections() -> bool:
    """Have closed connections of this network namespace forgotten at once; they are all that a container leaves."""
    try:
        with open(_CLOSED_CONNECTIONS, "w") as setting:
            setting.write("0")
    except OSError:  # inside a container whose settings cannot be written: no second one gets the namespace
        return False
    return True


class _Helper:
    """Owns the helper's process and what it says; nothing of the keeper goes to it but what it is given.

    Raises OSError.
    """

    def __init__(self, command: list[str], namespace: int) -> None:
        self._name = os.path.basename(command[0])
        self._text = b""
        self._ready, tell_ready = os.pipe()
        self._said, say = os.pipe()
        keeper = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _become(command, keeper, namespace, tell_ready, say)
        os.close(tell_ready)
        os.close(say)
        self._process = os.pidfd_open(self._pid)
        self._poller = select.poll()
        for fd in (self._process, self._said):
            self._poller.register(fd, select.POLLIN)

    def await_ready(self, channel: socket.socket) -> None:
        """Return when it is ready. Raises _Failed."""
        self._poller.register(self._ready, select.POLLIN)
        self._poller.register(channel, select.POLLIN | select.POLLRDHUP)
        end = time.monotonic() + _PATIENCE
        while (left := end - time.monotonic()) > 0:
            events = self._events(left * 1000)
            if self._ready in events:
                self._poller.unregister(self._ready)
                if os.read(self._ready, 64):
                    return
            if channel.fileno() in events:
                raise _Failed("nobody waits for it any more")
            if self._process in events:
                raise _Failed(self._last_words())
        raise _Failed(f"{self._name} was not ready after {_PATIENCE:g} seconds")

    def follow(self, channel: socket.socket) -> str:
        """Look after it until the builder is gone, which is "", or it has ended by itself, which is why."""
        while channel.fileno() not in (events := self._events(None)):
            if self._process in events:
                return self._last_words()
        return ""

    def end(self) -> None:
        """Kill it."""
        signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _events(self, milliseconds: float | None) -> list[int]:
        events = [fd for fd, _ in self._poller.poll(milliseconds)]
        if self._said in events and not self._listen():
            self._poller.unregister(self._said)
        return events

    def _listen(self) -> bool:
        """Take what it writes, and keep the last of it; False at its end."""
        data = os.read(self._said, _SAID_BYTES)
        self._text = (self._text + data)[-_SAID_BYTES:]
        return bool(data)

    def _last_words(self) -> str:
        os.set_blocking(self._said, False)
        with contextlib.suppress(BlockingIOError):
            while self._listen():
                pass
        lines = self._text.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")
        return "".join(char for char in f"{self._name} ended: {last}" if char.isprintable())


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
