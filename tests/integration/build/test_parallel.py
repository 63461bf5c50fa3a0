"""Stages that do not wait for each other are built at the same time, and end together when one fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import imagetool

pytestmark = pytest.mark.root

#: Each stage waits for the other's file in a cache mount: built one after the other, the first never ends.
MEETING = r"""
FROM busybox AS left
RUN --mount=type=cache,id=meet,target=/meet touch /meet/left && \
     until [ -e /meet/right ]; do sleep 0.05; done; echo l > /l
FROM busybox AS right
RUN --mount=type=cache,id=meet,target=/meet touch /meet/right && \
     until [ -e /meet/left ]; do sleep 0.05; done; echo r > /r
FROM scratch
COPY --from=left /l /
COPY --from=right /r /
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    imagetool("base", "busybox", root=tmp_path / "store")
    return tmp_path / "store"


def write(tmp_path: Path, text: str) -> Path:
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(text)
    return context


def test_independent_stages_run_at_the_same_time(root: Path, tmp_path: Path) -> None:
    context = write(tmp_path, MEETING)
    side_by_side = imagetool("build", "--timeout", "60s", "--jobs", "2", context, root=root).stdout
    one_by_one = imagetool("build", "--no-cache", "--jobs", "1", context, root=root).stdout
    assert side_by_side == one_by_one


def test_output_says_which_of_several_stages_it_is_of(root: Path, tmp_path: Path) -> None:
    text = MEETING.replace("echo l > /l", "echo from left; echo l > /l").replace("echo r > /r", "echo hi; echo r > /r")
    shown = imagetool("build", "--progress", "plain", write(tmp_path, text), root=root).stderr
    assert "  [left] from left\n" in shown or "  from left\n" in shown
    assert shown.count("STEP ") == 7
    assert {line.split()[1] for line in shown.splitlines() if line.startswith("STEP")} == {
        f"{number}/7:" for number in range(1, 8)
    }


def test_the_failure_of_one_stage_ends_the_others(root: Path, tmp_path: Path) -> None:
    context = write(
        tmp_path,
        "FROM busybox AS slow\n"
        "RUN --mount=type=cache,id=meet,target=/meet touch /meet/slow && sleep 600\n"
        "FROM busybox AS bad\n"
        "RUN --mount=type=cache,id=meet,target=/meet until [ -e /meet/slow ]; do sleep 0.05; done; exit 7\n"
        "FROM scratch\nCOPY --from=slow / /\nCOPY --from=bad / /\n",
    )
    done = imagetool("build", context, root=root, check=False)
    assert done.returncode == 1
    assert "exit code 7" in done.stderr
    assert "Dockerfile:4" in done.stderr
    assert "slow" not in done.stderr.partition("error")[2]
    assert "Traceback" not in done.stderr
    assert [name for name in os.listdir(root / "snapshots") if name.startswith("new-")] == []


def test_an_interrupt_ends_all_stages(root: Path, tmp_path: Path) -> None:
    text = MEETING.replace("echo l > /l", "touch /meet/ready; sleep 600").replace("echo r > /r", "sleep 600")
    command = [sys.executable, "-m", "imagetool", "--root", str(root), "build", str(write(tmp_path, text))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list((root / "cache-mounts").glob("*/ready")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in shown
