"""The default executor: namespaces and mounts by our own hand, nothing to install."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from imagetool.errors import HostError
from imagetool.runtime.executors import ExitStatus, Output
from imagetool.runtime.rootfs import Directory, Rootfs
from imagetool.runtime.spec import RuntimeSpec
from imagetool.runtime.stubs import Stubs

_LENGTH = struct.Struct("!I")
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from imagetool.runtime.zygote import main; main(int(sys.argv[2]))"
)


class EmbeddedExecutor:
    """Owns a zygote process; a context manager. One container at a time."""

    def __enter__(self) -> EmbeddedExecutor:
        self._folder = tempfile.TemporaryDirectory(prefix="imagetool-run-")
        self._mountpoint = Path(self._folder.name) / "root"
        self._mountpoint.mkdir()
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._folder.cleanup()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).resolve().parents[3])
        with theirs:
            self._zygote = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, package, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._connection = ours

    def _stop(self) -> None:
        self._connection.close()
        self._zygote.wait()

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output) -> ExitStatus:
        """Run a container; see `Executor`."""
        stubs = Stubs(root, [mount["destination"] for mount in spec.tree["mounts"]])
        with stubs:
            answer = self._exchange(
                {"spec": dict(spec.tree), "root": _root(root), "mountpoint": str(self._mountpoint)}, output
            )
        if answer["problem"]:
            raise HostError(f"{answer['problem']}")
        return ExitStatus(answer["status"])

    def _exchange(self, request: dict[str, Any], output: Output) -> dict[str, Any]:
        body = json.dumps(request).encode()
        readers, writers = zip(os.pipe(), os.pipe(), strict=True)
        try:
            try:
                socket.send_fds(self._connection, [_LENGTH.pack(len(body))], list(writers))
                self._connection.sendall(body)
            finally:
                for fd in writers:
                    os.close(fd)
            self._pump(dict(zip(readers, (1, 2), strict=True)), output)
            return self._answer()
        except BaseException:
            # Interrupted: end the container with its whole tree, by the zygote's death, and start afresh.
            self._zygote.send_signal(signal.SIGKILL)
            self._stop()
            self._start()
            raise
        finally:
            for fd in readers:
                os.close(fd)

    def _pump(self, streams: dict[int, int], output: Output) -> None:
        poller = select.poll()
        for fd in streams:
            poller.register(fd, select.POLLIN)
        open_streams = set(streams)
        while open_streams:
            for fd, _ in poller.poll():
                data = os.read(fd, 65536)
                if data:
                    output(streams[fd], data)
                else:
                    poller.unregister(fd)
                    open_streams.discard(fd)

    def _answer(self) -> dict[str, Any]:
        header = self._receive(_LENGTH.size)
        answer: dict[str, Any] = json.loads(self._receive(_LENGTH.unpack(header)[0]))
        return answer

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise HostError("the process that makes containers ended unexpectedly")
            data += part
        return bytes(data)


def _root(root: Rootfs) -> dict[str, Any]:
    if isinstance(root, Directory):
        return {"path": str(root.path)}
    return {
        "lowers": [str(lower) for lower in root.lowers],
        "upper": str(root.upper),
        "work": str(root.work),
        "userxattr": root.userxattr,
    }
