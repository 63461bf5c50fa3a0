"""When the build context was committed: the moment that its build happens at, unless told otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Someone else's work tree is read, so what its configuration wants to run must not run: no
#: signature check, pager or fetch of missing objects. Reading one commit asks for nothing else.
_GIT: Final = ("git", "-c", "safe.directory=*", "--no-replace-objects", "--no-pager")
_ENVIRONMENT: Final = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", "LC_ALL": "C"}


def commit_time(context: Path, *, warn: Callable[[str], None]) -> int | None:
    """Return the commit time, in seconds, of HEAD of the Git work tree a context is in; None for any other.

    A work tree whose commit cannot be read gives None and a warning: the result depends on it.
    """
    context = context.resolve()
    if not any((folder / ".git").exists() for folder in (context, *context.parents)):
        return None
    import shutil
    import subprocess

    if not shutil.which("git"):
        warn(f"{context} is a Git work tree, but git is not installed: its commit time is not used")
        return None
    # Variables such as GIT_DIR, which hooks run with, mean another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _ENVIRONMENT
    command = [*_GIT, "-C", str(context), "cat-file", "commit", "HEAD"]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    found = _committer_time(done.stdout)
    if done.returncode != 0 or found is None:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        warn(f"{context} is a Git work tree without a readable commit, whose time is not used: {said[:1]}")
    return found


def _committer_time(commit: bytes) -> int | None:
    """Return the time in a commit's `committer` header, the seconds before the time zone."""
    headers = commit.partition(b"\n\n")[0]
    for line in headers.splitlines():
        if line.startswith(b"committer "):
            fields = line.rsplit(b" ", 2)
            return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() and len(fields[1]) <= 11 else None
    return None
