"""Run tools of other projects."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def peer(*command: str | Path) -> str:
    """Run a tool that must succeed; return its stdout. Skips where it is not installed."""
    if not shutil.which(str(command[0])):
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


_REGISTRY = """version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0"}}
{auth}"""


def end(process: subprocess.Popen[Any], seconds: int) -> None:
    """Have a process end, by force if it has not in so many seconds."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def docker_registry(folder: Path, *, auth: str = "") -> Iterator[str]:
    """Run Debian's registry on a port of loopback that it takes itself; yield HOST:PORT. Skips without it."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    (folder / "config.yml").write_text(_REGISTRY.format(root=folder / "data", auth=auth))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        try:
            for line in process.stderr:  # to its end, which would be that of the process
                said += line
                if match := re.search(r'msg="listening on (127\.0\.0\.1:\d+)"', line):
                    break
            assert match, f"docker-registry does not listen:\n{said}"
            reader = threading.Thread(target=process.stderr.read, daemon=True)  # so that it can go on writing
            reader.start()
            yield match[1]
        finally:
            end(process, 10)
