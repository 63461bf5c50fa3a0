"""`imagetool registry …`: the server's part of the command line, found by entry point."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Annotated

import typer

from imagetool.errors import UsageError

app = typer.Typer(help="Run a registry.", no_args_is_help=True)


@app.callback()
def registry() -> None:
    """Run a registry."""


@app.command()
def serve(
    root: Annotated[Path, typer.Option("--root", help="Directory that holds the registry; made when missing.")],
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:5000",
) -> None:
    """Serve a registry until it is interrupted."""
    from registry_server.serve import serve as run

    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
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

    run(root, host, int(port), ready=ready)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
