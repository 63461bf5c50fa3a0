"""What a command that failed must not leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.command import imagetool


def assert_one_error(done: subprocess.CompletedProcess[str], status: int, *texts: str) -> None:
    """One error on stderr with these texts, no traceback, nothing on stdout, and that exit status."""
    assert done.returncode == status, f"{done.returncode}: {done.stderr}"
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("imagetool: ")]
    assert len(errors) == 1, done.stderr
    for text in texts:
        assert text in done.stderr, done.stderr


def assert_nothing_left(root: Path) -> None:
    """No staged files, no half-made snapshots, no scratch; and every image that is listed is whole."""
    if not (root / "layout").exists():
        return
    left = [
        path
        for path in root.rglob("*")
        if path.name.startswith(("new-", ".staging", ".index.json")) or path.parent.name == "scratch"
    ]
    assert left == []
    if not (root / "layout/index.json").exists():
        return
    rows = imagetool("images", root=root).stdout.splitlines()[1:]
    for row in rows:
        name, identity = row.split()[:2]
        imagetool("verify", identity if name == "<none>" else name, root=root)


def mounted_below(folder: Path) -> list[str]:
    """Return what this process sees mounted below a directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(f"{folder}/")]


def processes_with(text: str) -> list[str]:
    """Return the command lines of the running processes that have `text` among their arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if text in line:
                found.append(line)
    return found


def interrupted(
    command: Sequence[str | Path], *, root: Path, when: Callable[[], bool], seconds: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run a command of ours and press ^C, as a terminal does for the whole group, once `when` is true."""
    arguments = [sys.executable, "-m", "imagetool", "--root", str(root), *map(str, command)]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + seconds
        while not when():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"{process.returncode}: {process.communicate()}")
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of `size` (as tmpfs takes it) on a directory that is made."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        if subprocess.run(["umount", folder], check=False, capture_output=True).returncode:
            subprocess.run(["umount", "--lazy", folder], check=True)
