"""The app behind a real HTTP server: granian, through its RSGI interface (docs/adr/0004)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from imagetool import limits
from imagetool.content.staging import sync_folder
from imagetool.errors import ImagetoolError, StorageError, UsageError
from imagetool.values import replace
from registry_server.accesslog import AccessLog
from registry_server.app import App, unexpected
from registry_server.gc import collect
from registry_server.handlers.stores import Stores
from registry_server.message import Disconnected, File, Request, Response
from registry_server.metadata.sqlite import SqliteMetadata
from registry_server.storage.filesystem import FilesystemBlobs

_ASKING_THREADS: Final = 8
_SENDING_THREADS: Final = 64  # requests with a body wait for their clients; they must not keep others out
_HOP: Final = {"content-length"}  # granian states it itself for bodies it sends
_SWEEP_SECONDS: Final = 6 * 3600.0
_STOP_SECONDS: Final = 8.0  # that running requests get when the server is told to stop; `docker stop` kills after 10
_STILL_SECONDS: Final = 2.0  # that those get of them whose client neither sends nor takes anything


def open_stores(root: Path) -> Stores:
    """Open the registry in a directory, which is made when missing. Raises StorageError."""
    blobs = FilesystemBlobs(root)
    metadata = SqliteMetadata(root / "registry.db")
    sync_folder(root)
    return Stores(blobs, metadata)


def serve(root: Path, host: str, port: int, *, log: AccessLog, ready: Callable[[str, int], None]) -> None:
    """Serve the registry in `root` until SIGINT or SIGTERM.

    Port 0 takes a free one. `ready` is called with host and port once connections are accepted.
    Raises UsageError when the address cannot be had, StorageError for the directory.
    """
    stores = open_stores(root)
    with closing(_reserve(host, port)) as reserved:
        address, taken = reserved.getsockname()[:2]
        asyncio.run(_Server(root, stores, log).run(address, taken, lambda: ready(host, taken), reserved))


def _reserve(host: str, port: int) -> socket.socket:
    """Bind an address without listening, so that nobody else gets it before granian does.

    A name stands for its first address, of IPv4 if it has any.
    granian shares its port (SO_REUSEPORT), so a second server would silently get half of the
    requests; the first bind here, which does not share, finds that out.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # for localhost: 127.0.0.1
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()
        shared = socket.socket(family, socket.SOCK_STREAM)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(address)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --listen") from None
    return shared


class _Server:
    """One run of the server."""

    def __init__(self, root: Path, stores: Stores, log: AccessLog) -> None:
        self._root = os.path.realpath(root)
        self._stores = stores
        self._app = App(stores)
        self._log = log
        self._asking = ThreadPoolExecutor(_ASKING_THREADS, "asking")
        self._sending = ThreadPoolExecutor(_SENDING_THREADS, "sending")
        self._awaited: set[Future[bytes]] = set()
        self._running = 0
        self._pieces = 0
        self._stopping = False

    async def run(self, address: str, port: int, ready: Callable[[], None], reserved: socket.socket) -> None:
        from granian.constants import Interfaces
        from granian.server.embed import Server

        self._loop = asyncio.get_running_loop()
        server = Server(
            self._answer,
            address=address,
            port=port,
            interface=Interfaces.RSGI,
            log_access=False,
            log_enabled=False,
            websockets=False,
            backlog=1024,
        )
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as running:
            serving = asyncio.create_task(server.serve())
            running.push_async_callback(self._shut_down, server, serving)
            await _wait_until_open(address, port, serving)
            reserved.close()
            running.callback(asyncio.create_task(self._sweep()).cancel)
            ready()
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()

    async def _shut_down(self, server: Any, serving: asyncio.Task[Any]) -> None:
        """Let running requests end, but not wait for clients for ever."""
        server.stop()
        await self._while_they_move(serving)
        self._stopping = True
        for waiting in list(self._awaited):
            waiting.cancel()
        for pool in (self._asking, self._sending):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        self._loop.set_exception_handler(_when_given_up)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving

    async def _while_they_move(self, serving: asyncio.Task[Any]) -> None:
        """Wait until all requests have ended, or nothing happens in those that are left."""
        began = moved = time.monotonic()
        before: tuple[int, int] | None = None
        while not serving.done():
            await asyncio.wait({serving}, timeout=_STILL_SECONDS / 10)
            now = time.monotonic()
            state = self._pieces, _read_so_far(self._root)
            if state != before or self._running > len(self._awaited):  # a handler that waits for no client works
                before, moved = state, now
            if now - moved > _STILL_SECONDS or now - began > _STOP_SECONDS:
                return

    async def _sweep(self) -> None:
        """Collect what nobody needs, now and then; a failure is for the log, and for the next time."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self._loop.run_in_executor(self._asking, lambda: collect(self._stores, now=time.time()))
            except ImagetoolError as error:
                sys.stderr.write(f"garbage collection failed: {error}\n")

    async def _answer(self, scope: Any, protocol: Any) -> None:
        """Answer one request: the RSGI application. The handler runs in a thread and pulls the body from here."""
        began = time.monotonic()
        headers = {name.lower(): value for name, value in scope.headers.items()}
        request = Request(
            method=scope.method,
            path=scope.path,  # decoded by granian, once
            query=tuple(parse_qsl(scope.query_string, keep_blank_values=True)),
            headers=headers,
        )
        request = replace(request, body=self._body(aiter(protocol), request.length))
        pool = self._sending if request.method in ("POST", "PUT", "PATCH") else self._asking
        self._running += 1
        try:
            response = await self._loop.run_in_executor(pool, self._guarded, request)
        finally:
            self._running -= 1
        size = _send(protocol, request, response)
        self._log.write(scope, request, response.status, size, time.monotonic() - began)

    def _guarded(self, request: Request) -> Response:
        try:
            return self._app(request)
        except Exception:  # noqa: BLE001 - a bug: the client gets an answer, the operator the whole story
            sys.stderr.write(traceback.format_exc())
            return unexpected()

    def _body(self, chunks: AsyncIterator[bytes], length: int | None) -> Iterator[bytes]:
        """Yield a body in the handler's thread; raises Disconnected when the client is gone or too slow."""
        seen, allowed = 0, limits.BODY_SECONDS
        began = time.monotonic()
        while True:
            left = allowed + seen / limits.BODY_BYTES_PER_SECOND - (time.monotonic() - began)
            chunk = self._wait_for(_next(chunks), min(left, limits.BODY_SECONDS))
            if not chunk and length is not None and seen < length:
                raise Disconnected(f"the body ended after {seen} of {length} bytes")
            if not chunk:
                return
            seen += len(chunk)
            self._pieces += 1
            yield chunk

    def _wait_for(self, chunk: Coroutine[Any, Any, bytes], seconds: float) -> bytes:
        waiting = asyncio.run_coroutine_threadsafe(chunk, self._loop)
        self._awaited.add(waiting)
        try:
            if self._stopping:
                waiting.cancel()
            return waiting.result(max(0.0, seconds))
        except TimeoutError:
            waiting.cancel()
            raise Disconnected("the body was sent too slowly") from None
        except CancelledError:
            raise Disconnected("the server is stopping") from None
        finally:
            self._awaited.discard(waiting)


def _read_so_far(root: str) -> int:
    """Return how far the open files below a directory have been read, all together: granian sends blobs by itself."""
    total = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError, ValueError, IndexError):  # closed meanwhile
            if os.readlink(f"/proc/self/fd/{number}").startswith(f"{root}/"):
                total += int(Path(f"/proc/self/fdinfo/{number}").read_text().split()[1])
    return total


def _when_given_up(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what went wrong in a callback, but not that granian, too, ended a server already given up."""
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)


async def _wait_until_open(host: str, port: int, task: asyncio.Task[Any]) -> None:
    for _ in range(500):
        if task.done():
            break
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return
    raise StorageError(f"cannot listen on {host}:{port}")


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    while True:
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            return b""
        if chunk:
            return bytes(chunk)


def _send(protocol: Any, request: Request, response: Response) -> int:
    """Send a response; return how many bytes its body has."""
    headers = [(name.lower(), value) for name, value in response.headers]
    plain = [(name, value) for name, value in headers if name not in _HOP]
    body = response.body
    if request.method == "HEAD" or response.status in (204, 304):
        protocol.response_empty(response.status, headers)
        return 0
    if not isinstance(body, File):
        protocol.response_bytes(response.status, plain, body)
        return len(body)
    size = body.end - body.start
    if size == 0:
        protocol.response_bytes(response.status, plain, b"")
    else:
        stated = [*plain, ("content-length", str(size))]
        protocol.response_file_range(response.status, stated, str(body.path), body.start, body.end)
    return size
