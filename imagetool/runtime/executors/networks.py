"""The builder's side of networks that a helper connects: each is lent to one container at a time, and used again.

A helper takes longer to start than a container. A namespace in which all processes have been killed has no
sockets left, so the next container of the same builder gets it as the one before got it; not where
a container may change the network itself. See docs/adr/0042.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from imagetool.errors import HostError
from imagetool.values import dataclass

#: With one of these, what a container leaves may be more than closed connections.
_CHANGES_NETWORKS: Final = frozenset(("CAP_NET_ADMIN", "CAP_SYS_ADMIN"))
_MAPPINGS: Final = ("uidMappings", "gidMappings")


class Unmappable(HostError):
    """The container can be made, but not in a user namespace of its own."""


class Unconnected(HostError):
    """The helper for a network does not work here; `reason` says why, as the end of a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the container has no network: {reason}; try --network host or none")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Wanted:
    """A network as containers want it.

    helper: the command; see `connection`. mappings: of the user namespace that it belongs to; {} for the builder's.
    lasting: it may be used by a second container.
    """

    helper: tuple[str, ...]
    mappings: Mapping[str, Any]
    lasting: bool = True

    @classmethod
    def of(cls, spec: Mapping[str, Any], helper: tuple[str, ...]) -> Wanted:
        """Return what a container of this OCI config wants."""
        mappings = {kind: spec["linux"][kind] for kind in _MAPPINGS if kind in spec["linux"]}
        held = spec["process"].get("capabilities", {}).get("bounding", ())
        return cls(helper, mappings, _CHANGES_NETWORKS.isdisjoint(held))

    @property
    def key(self) -> str:
        """What networks that are the same have in common."""
        return json.dumps([self.helper, self.mappings])


class _Network:
    """Owns one network: its control socket and its namespaces, by kind."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.lasting = wanted.lasting
        self.namespaces: dict[str, int] = {}
        self.control, self.far = socket.socketpair()

    def await_ready(self) -> None:
        """Take the namespaces when the helper is ready. Raises Unconnected, Unmappable."""
        request = {"helper": self.wanted.helper, "mappings": self.wanted.mappings}
        with suppress(BrokenPipeError):  # the answer tells
            self.control.sendall(json.dumps(request).encode() + b"\n")
        line, descriptors = _line(self.control)
        self.namespaces = dict(zip(("network", "user"), descriptors, strict=False))
        answer = json.loads(line or '{"problem": "the process that connects it was killed"}')
        if "problem" in answer:
            if answer.get("unmappable"):
                raise Unmappable(f"{answer['problem']}; --userns host runs without one")
            raise Unconnected(answer["problem"])
        self.lasting = self.lasting and answer["again"]

    def ended(self) -> str:
        """Say why the helper has ended; "" while it has not."""
        try:
            line = self.control.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return ""
        except ConnectionResetError:
            line = b""
        return str(json.loads(line)["ended"]) if line else "the process that connects it was killed"

    def stop(self) -> None:
        """Have it ended; from any thread."""
        with suppress(OSError):  # it has ended by itself
            self.control.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it, and wait for that."""
        self.stop()
        for fd in self.namespaces.values():
            os.close(fd)
        with suppress(ConnectionResetError):
            while self.control.recv(1 << 16):
                pass
        self.control.close()


def _line(control: socket.socket) -> tuple[bytes, list[int]]:
    line, found = b"", list[int]()
    while not line.endswith(b"\n"):
        try:
            part, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
        except ConnectionResetError:
            part, descriptors = b"", []
        for fd in descriptors:
            os.set_inheritable(fd, False)
        found += descriptors
        if not part:
            return b"", found
        line += part
    return line, found


class Networks:
    """Owns the networks of one launcher, for several threads at once.

    Args:
        start: has a keeper made for the other end of a control socket. Raises HostError.
        warn: told when a container lost its network.
    """

    def __init__(self, start: Callable[[socket.socket], None], warn: Callable[[str], None]) -> None:
        self._start = start
        self._warn = warn
        self._lock = threading.Lock()
        self._idle: list[_Network] = []
        self._all: set[_Network] = set()
        self._stopped = False

    @contextmanager
    def lent(self, wanted: Wanted) -> Iterator[dict[str, int]]:
        """Yield the namespaces of a network that nobody else uses meanwhile, by kind.

        Raises Unconnected when the helper does not work, Unmappable when there can be no user namespace.
        """
        network = self._waiting(wanted) or self._made(wanted)
        try:
            yield network.namespaces
        finally:
            self._take_back(network)

    def _waiting(self, wanted: Wanted) -> _Network | None:
        while wanted.lasting:
            with self._lock:
                found = next((one for one in self._idle if one.wanted.key == wanted.key), None)
                if found is None:
                    return None
                self._idle.remove(found)
            if not found.ended():
                return found
            self._drop(found)
        return None

    def _made(self, wanted: Wanted) -> _Network:
        network = _Network(wanted)
        with self._lock:
            self._all.add(network)
            stopped = self._stopped
        try:
            if stopped:
                raise HostError("the container was not started: the build has been stopped")
            with network.far:
                self._start(network.far)
            network.await_ready()
        except BaseException:
            self._drop(network)
            raise
        return network

    def _take_back(self, network: _Network) -> None:
        if text := network.ended():
            if not self._stopped:
                self._warn(f"a container lost its network: {text}")
        elif network.lasting:
            with self._lock:
                self._idle.append(network)
            return
        self._drop(network)

    def _drop(self, network: _Network) -> None:
        with self._lock:
            self._all.discard(network)
        network.far.close()
        network.close()

    def stop(self) -> None:
        """End all, and those to come, at once; from any thread."""
        with self._lock:
            self._stopped = True
            for network in self._all:
                network.stop()

    def close(self) -> None:
        """End those that nobody uses, and wait for that."""
        with self._lock:
            left, self._idle = self._idle, []
        for network in left:
            network.stop()
        for network in left:
            self._drop(network)
