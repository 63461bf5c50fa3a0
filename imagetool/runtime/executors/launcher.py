"""The builder's side of the zygote: starts it, has it make containers, pumps their output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from imagetool.errors import BuildError, HostError
from imagetool.runtime import mountpoints
from imagetool.runtime.executors.networks import Networks, Unmappable, Wanted
from imagetool.runtime.executors.protocol import ExitStatus, Output, Usage
from imagetool.runtime.rootfs import Directory, Rootfs
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.runtime.session import Session

_START: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from imagetool.runtime.zygote import serve; serve(int(sys.argv[2]), sys.argv[3:])"
)
_PIECE: Final = 65536  # bytes of output handed on at once: what a pipe holds


class Launcher:
    """Owns a zygote process; a context manager, for several threads at once.

    Args:
        groups: directories of control groups that the zygote and its containers join, where they can.
        warn: told what the user should know of a container, for each anew.
    """

    def __init__(self, groups: Sequence[str] = (), *, warn: Callable[[str], None] = lambda _: None) -> None:
        self._groups = groups
        self._warn = warn

    def __enter__(self) -> Launcher:
        self._lock = threading.Lock()
        self._ready = False
        self._running: set[socket.socket] = set()
        self._stopped = False
        self.networks = Networks(self._start_network, self._warn)
        self._start(sealed=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.networks.close()
        self._stop()

    def _start(self, *, sealed: bool) -> None:
        try:
            self._spawn(sealed=sealed)
        except OSError as error:
            raise HostError(f"the helper process for containers does not start: {error}") from None

    def _spawn(self, *, sealed: bool) -> None:
        package = str(Path(__file__).resolve().parents[3])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, _interpreter(sealed=sealed) as (program, fds):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _START, package, str(theirs.fileno()), *self._groups],
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                pass_fds=[theirs.fileno(), *fds],
                start_new_session=True,  # a terminal's ^C is for the builder alone
            )
        self._channel = ours

    def _stop(self) -> None:
        self._channel.close()
        self._process.wait()

    def _wait_until_ready(self) -> None:
        with self._lock:
            if self._ready:
                return
            if not self._channel.recv(1):
                # Some interpreters find their libraries only beside their own file.
                self._stop()
                self._start(sealed=False)
                if not self._channel.recv(1):
                    raise HostError(f"the helper process for containers does not start with {sys.executable}")
            self._ready = True

    def stop(self) -> None:
        """End every container, and those to come; from any thread."""
        self.networks.stop()
        with self._lock:
            self._stopped = True
            for control in self._running:
                _end(control)

    def _follow(self, control: socket.socket) -> None:
        """Let `stop` end a container, from its first moment on."""
        with self._lock:
            if self._stopped:
                raise HostError("the container was not started: the build has been stopped")
            self._running.add(control)

    def _forget(self, control: socket.socket) -> None:
        with self._lock:
            self._running.discard(control)

    def launch(
        self,
        request: dict[str, Any],
        root: Rootfs,
        output: Output,
        *,
        timeout: float | None = None,
        session: Session | None = None,
    ) -> ExitStatus:
        """Have a container made and run to its end, or killed after `timeout` seconds.

        See `protocol.Executor` and `container`. With "helper" in the request it has a network that this connects.
        """
        self._wait_until_ready()
        with contextlib.ExitStack() as stack:
            given: dict[str, int] = {}
            if helper := request.get("helper"):
                given = stack.enter_context(self.networks.lent(Wanted.of(request["spec"], tuple(helper))))
            control, far = socket.socketpair()
            stack.callback(control.close)
            self._follow(control)
            stack.callback(self._forget, control)
            streams = _Streams(control, output, timeout, session)
            stack.callback(streams.close)
            with far:
                self._start_container(far, streams, session)
            try:
                size = None if session is None else session.size
                tree = {**request, "root": _tree(root), "size": size, "given": list(given)}
                _send(control, json.dumps(tree).encode() + b"\n", list(given.values()))
                if session is not None:
                    stack.enter_context(session.forwarding(control))
                streams.pump()
            except BrokenPipeError:  # it ended before it had read everything: the report says why
                streams.pump()
            except BaseException:
                _end(control)
                streams.drain()
                raise
            finally:
                if streams.gained:
                    _remove_mountpoints(root, streams.gained)
        if not streams.reported and self._is_gone():
            raise HostError("the helper process for containers was killed, perhaps because memory ran out")
        for text in streams.warnings:
            self._warn(text)
        return streams.ending()

    def _start_container(self, far: socket.socket, streams: _Streams, session: Session | None) -> None:
        """Have the zygote fork a container's watcher, whose streams are its own from then on."""
        try:
            stdin = [] if session is None else [session.stdin]
            self._ask(b"c", [far.fileno(), *streams.writers, *stdin])
        finally:
            streams.close_writers()

    def _start_network(self, far: socket.socket) -> None:
        """Have the zygote fork a keeper; see `connection`."""
        self._wait_until_ready()
        self._ask(b"n", [far.fileno()])

    def _ask(self, what: bytes, descriptors: list[int]) -> None:
        """Tell the zygote what to fork, and give it what that needs."""
        try:
            socket.send_fds(self._channel, [what], descriptors)
        except OSError as error:
            raise HostError(f"the helper process for containers is gone: {error.strerror}") from None

    def _is_gone(self) -> bool:
        """Say whether the zygote has ended; it closes its end before the container's streams."""
        try:
            return not self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


@contextlib.contextmanager
def _interpreter(*, sealed: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a path to start Python by, and descriptors it needs.

    A sealed copy in memory cannot be written to, by whatever trick a container gets hold of it
    (CVE-2019-5736); it costs less than a millisecond.
    """
    if not sealed:
        yield sys.executable, ()
        return
    add_seals, all_seals = 1033, 0xF
    copy = os.memfd_create("imagetool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(sys.executable, "rb") as original:
            left = os.fstat(original.fileno()).st_size
            while left > 0 and (sent := os.sendfile(copy, original.fileno(), None, left)):
                left -= sent
        fcntl.fcntl(copy, add_seals, all_seals)
        yield f"/proc/self/fd/{copy}", (copy,)
    finally:
        os.close(copy)


def _send(control: socket.socket, line: bytes, descriptors: list[int]) -> None:
    """Send a line and descriptors, which go with its first byte."""
    sent = socket.send_fds(control, [line], descriptors) if descriptors else 0
    control.sendall(line[sent:])


def _end(control: socket.socket) -> None:
    """Have a container's watcher end it."""
    with contextlib.suppress(OSError):  # it has ended by itself
        control.shutdown(socket.SHUT_WR)


def _discard(_stream: int, _data: bytes) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Problem:
    text: str
    image: bool
    unmappable: bool = False


class _Streams:
    """The three ways a container speaks: stdout, stderr, and the reports of its init."""

    def __init__(self, control: socket.socket, output: Output, timeout: float | None, session: Session | None) -> None:
        self._control = control
        self._session = session
        self._output = output
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout
        self._reports = bytearray()
        self._selector = selectors.DefaultSelector()
        self._readers: list[int] = []
        self.writers: list[int] = []
        self.gained: list[list[Any]] = []
        self.warnings: list[str] = []
        self._status: ExitStatus | None = None
        self._problem: _Problem | None = None
        self._late = False
        for stream in (1, 2):
            reader, writer = os.pipe()
            self._readers.append(reader)
            self.writers.append(writer)
            self._selector.register(reader, selectors.EVENT_READ, stream)
        self._selector.register(control, selectors.EVENT_READ, 0)

    def close_writers(self) -> None:
        while self.writers:
            os.close(self.writers.pop())

    def close(self) -> None:
        self.close_writers()
        self._selector.close()
        for fd in self._readers:
            os.close(fd)

    def pump(self) -> None:
        """Hand output on until all three have ended: then the container and its processes have."""
        self._run(self._output)

    def drain(self) -> None:
        """Do the same without handing on."""
        self._run(_discard)

    def _run(self, output: Output) -> None:
        while self._selector.get_map():
            for key, _ in self._selector.select(self._time_left()):
                try:
                    data = self._read_control() if key.data == 0 else os.read(key.fd, _PIECE)
                except ConnectionResetError:  # it ended before it had read everything
                    data = b""
                except OSError as error:
                    if error.errno != errno.EIO:  # a terminal that nothing has open any more
                        raise
                    data = b""
                if not data:
                    self._selector.unregister(key.fd)
                elif key.data == 0:
                    self._take_reports(data)
                else:
                    output(key.data, data)

    def _read_control(self) -> bytes:
        """Read from the control socket; the master of a terminal that comes with it speaks for stdout from now on."""
        data, descriptors, _, _ = socket.recv_fds(self._control, _PIECE, 1)
        for master in descriptors:
            os.set_inheritable(master, False)
            self._readers.append(master)
            self._selector.register(master, selectors.EVENT_READ, 1)
            if self._session is not None:
                self._session.attach(master)
        return data

    def _time_left(self) -> float | None:
        """Return the seconds that are left; end the container when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left > 0:
            return left
        self._end = None
        self._late = True
        _end(self._control)
        return None

    def _take_reports(self, data: bytes) -> None:
        self._reports += data
        *lines, rest = self._reports.split(b"\n")
        self._reports = rest
        for line in lines:
            report = json.loads(line)
            if "warning" in report:
                self.warnings.append(report["warning"])
            elif "gained" in report:
                self.gained = report["gained"]
            elif "terminal" in report:
                pass  # it came with the master
            elif "problem" in report:
                self._problem = self._problem or _Problem(
                    report["problem"], report["image"], report.get("unmappable", False)
                )
            else:
                code = 128 + report["signal"] if report["signal"] else report["code"]
                self._status = ExitStatus(code, Usage(*report["usage"]))

    @property
    def reported(self) -> bool:
        """Whether the container's end, or why there is none, is known."""
        return self._late or self._status is not None or self._problem is not None

    def ending(self) -> ExitStatus:
        """Return how the container ended. Raises BuildError or HostError when it could not be made."""
        if self._problem is not None:
            if self._problem.unmappable:
                raise Unmappable(f"{self._problem.text}; --userns host runs without one")
            raise (BuildError if self._problem.image else HostError)(self._problem.text)
        if self._late and self._status is None:
            return ExitStatus(128 + signal.SIGKILL, limit=f"its time limit of {self._timeout:g} seconds")
        if self._status is None:
            raise HostError("the container was killed from outside, perhaps because memory ran out")
        return self._status


def _tree(root: Rootfs) -> dict[str, Any]:
    if isinstance(root, Directory):
        return {"directory": os.path.abspath(root.path)}
    return {
        "lowers": [os.path.abspath(lower) for lower in root.lowers],
        "upper": os.path.abspath(root.upper),
        "work": os.path.abspath(root.work),
        "userxattr": root.userxattr,
    }


def _remove_mountpoints(root: Rootfs, gained: list[list[Any]]) -> None:
    fd = os.open(root.path if isinstance(root, Directory) else root.upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mountpoints.remove(fd, gained)
    finally:
        os.close(fd)
