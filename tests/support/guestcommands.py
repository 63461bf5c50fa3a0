"""In a guest: run the program's command lines, one for each line of stdin, each in a process forked from this one.

So the program is imported once, which takes longer there than what it does. Each is told as it begins, and its end
as "status N in S seconds". What `imagetool` does by itself, its own start, is left to a test of its own.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time

from imagetool.__main__ import main

_IMPORTED = (
    "api", "build.run", "build.solver", "build.steps", "cli.app", "cli.building", "cli.running", "cli.commands.running",
    "cli.display", "runtime.executors", "runtime.process", "snapshot.overlay", "streams.codecs", "verbs.build",
    "verbs.run",
)  # fmt: skip


def _run(args: list[str]) -> None:
    sys.argv = ["imagetool", *args]
    main()


if __name__ == "__main__":
    for name in _IMPORTED:
        importlib.import_module(f"imagetool.{name}")
    for line in sys.stdin.read().splitlines():
        print(f"## {line}", flush=True)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _run(shlex.split(line))
        _, ended = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(ended)
        print(f"status {status} in {time.monotonic() - start:.1f} seconds", flush=True)
