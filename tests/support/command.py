"""Run the program as a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def imagetool(
    *args: str | Path, root: Path, check: bool = True, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `imagetool --root ROOT ARGS`; with `check`, a failure fails the test with what it printed."""
    command = [sys.executable, "-m", "imagetool", "--root", str(root), *map(str, args)]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=110, check=False)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


@contextmanager
def registry(root: Path) -> Iterator[str]:
    """Run our registry on a free port of loopback; yield HOST:PORT."""
    log = root.with_suffix(".log")
    command = [sys.executable, "-m", "imagetool", "registry", "serve", "--root", str(root), "--listen", "127.0.0.1:0"]
    with open(log, "w") as output:
        process = subprocess.Popen(command, stderr=output, stdout=output)
    try:
        for _ in range(400):
            match = re.search(r"listening on http://(\S+)\n", log.read_text())
            if match:
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        else:
            raise AssertionError(f"the registry did not start: {log.read_text()}")
        yield match[1]
    finally:
        process.terminate()
        process.wait(20)
