"""Builds from a context, and the files of the image."""

from __future__ import annotations

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from imagetool.api import Workplace, opened
from imagetool.image.image import load
from imagetool.layer.merge import flatten

MARK = "outside the context"


def files_of(root: Path, name: str = "x") -> dict[str, str]:
    with opened(name, Workplace(root)) as (store, descriptor):
        return {
            entry.name.decode(): b"".join(content).decode(errors="replace")
            for entry, content in flatten(load(store, descriptor).openers())
            if entry.kind == "file"
        }


def build(root: Path, *args: str | Path, data: bytes | None = None, fails: bool = False) -> str:
    """Build as image `x`; return what was shown. With `data`, that is stdin."""
    command = [sys.executable, "-m", "imagetool", "--root", str(root), "build", "-t", "x", *map(str, args)]
    done = subprocess.run(command, input=data or b"", capture_output=True, check=False, timeout=110)
    shown = done.stderr.decode()
    assert (done.returncode != 0) == fails, shown
    assert "Traceback" not in shown
    return shown


# URLs


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
