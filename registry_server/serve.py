"""The app behind a real HTTP server: granian, through its RSGI interface (docs/adr/0004)."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from imagetool.errors import StorageError, UsageError
from registry_server.app import App
from registry_server.handlers.stores import Stores
from registry_server.message import File, Request, Response
from registry_server.metadata.sqlite import SqliteMetadata
from registry_server.storage.filesystem import FilesystemBlobs

_THREADS: Final = 16
_HOP: Final = {"content-length"}  # granian states it itself for bodies it sends


def open_app(root: Path) -> App:
    """Open the registry in a directory, which is made when missing."""
    blobs = FilesystemBlobs(root)
    return App(Stores(blobs, SqliteMetadata(root / "registry.db")))


def serve(root: Path, host: str, port: int, *, ready: Callable[[str, int], None]) -> None:
    """Serve the registry in `root` until SIGINT or SIGTERM.

    Port 0 takes a free one. `ready` is called with host and port once connections are accepted.
    """
    app = open_app(root)
    if port == 0:
        port = _free_port(host)
    asyncio.run(_serve(app, host, port, ready))


async def _serve(app: App, host: str, port: int, ready: Callable[[str, int], None]) -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(_THREADS, "handler") as pool:
        server = Server(
            _adapter(app, loop, pool),
            address=host,
            port=port,
            interface=Interfaces.RSGI,
            log_access=False,
            log_enabled=False,
        )
        task = asyncio.create_task(server.serve())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        await _wait_until_open(host, port, task)
        ready(host, port)
        await task


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


def _free_port(host: str) -> int:
    try:
        with socket.create_server((host, 0)) as probe:
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise UsageError(f"cannot listen on {host}: {error.strerror}") from None


def _adapter(app: App, loop: asyncio.AbstractEventLoop, pool: ThreadPoolExecutor) -> Callable[[Any, Any], Any]:
    """Return the RSGI application: the handler runs in a thread and pulls the body chunk by chunk."""

    async def application(scope: Any, protocol: Any) -> None:
        chunks = aiter(protocol)

        def body() -> Iterator[bytes]:
            while chunk := asyncio.run_coroutine_threadsafe(_next(chunks), loop).result():
                yield chunk

        request = Request(
            method=scope.method,
            path=unquote(scope.path),
            query=dict(parse_qsl(scope.query_string, keep_blank_values=True)),
            headers={name.lower(): value for name, value in scope.headers.items()},
            body=body(),
        )
        response = await loop.run_in_executor(pool, app, request)
        _send(protocol, request, response)

    return application


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    while True:
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            return b""
        if chunk:
            return bytes(chunk)


def _send(protocol: Any, request: Request, response: Response) -> None:
    headers = [(name.lower(), value) for name, value in response.headers]
    body = response.body
    if request.method == "HEAD" or response.status in (204, 304):
        protocol.response_empty(response.status, headers)
    elif isinstance(body, File):
        plain = [(name, value) for name, value in headers if name not in _HOP]
        if body.start == body.end:
            protocol.response_bytes(response.status, plain, b"")
        else:
            protocol.response_file_range(
                response.status,
                [*plain, ("content-length", str(body.end - body.start))],
                str(body.path),
                body.start,
                body.end,
            )
    else:
        protocol.response_bytes(response.status, [(name, value) for name, value in headers if name not in _HOP], body)
