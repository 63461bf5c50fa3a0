"""`imagetool registry …`: the server's part of the command line, found by entry point."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from imagetool.errors import NotFound, UsageError

app = typer.Typer(
    help="Run a registry.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def registry() -> None:
    """Run a registry."""


@app.command()
def serve(
    root: Annotated[Path, typer.Option("--root", help="Directory that holds the registry; made when missing.")],
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:5000",
    log: Annotated[
        Literal["plain", "json", "none"], typer.Option("--log", help="Form of the access log on standard error.")
    ] = "plain",
) -> None:
    """Serve a registry until it is interrupted.

    Blobs that no image refers to, and uploads that nobody continued, are removed after a day.
    On SIGTERM and SIGINT running requests get eight seconds to end; those that do not move, two.
    """
    from registry_server.accesslog import AccessLog
    from registry_server.serve import serve as run

    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
        raise UsageError(f"--listen {listen!r}: write HOST:PORT, as 127.0.0.1:5000")
    host = host.strip("[]")

    def ready(host: str, port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        sys.stderr.write(f"listening on http://{shown}:{port}\n")
        if not _is_loopback(host):
            sys.stderr.write(
                "warning: anyone who can reach this address may push and delete: there is no authentication\n"
            )
        sys.stderr.flush()

    run(root, host, int(port), log=AccessLog(log), ready=ready)


@app.command()
def gc(
    root: Annotated[Path, typer.Option("--root", help="Directory that holds the registry.")],
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Hours that a blob may wait for its manifest, an upload to go on.")
    ] = 24,
) -> None:
    """Delete blobs that no image refers to and uploads that nobody continued.

    The server may run meanwhile; it does the same by itself, every few hours. Manifests are never
    deleted, tagged or not. A grace shorter than a push takes makes that push fail.
    """
    import time

    from registry_server.gc import collect
    from registry_server.serve import open_stores

    if not (root / "registry.db").is_file():
        raise NotFound(f"{root} holds no registry")
    done = collect(open_stores(root), now=time.time(), grace=grace * 3600)
    sys.stderr.write(f"removed {done.blobs} blobs, {done.uploads} uploads, {done.orphans} files without a record\n")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
