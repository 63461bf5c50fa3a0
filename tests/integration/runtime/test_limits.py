"""Limits that bite, under every executor."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.errors import HostError
from imagetool.runtime.ceilings import Ceilings, Ulimit
from imagetool.runtime.cgroups import GroupTree, hierarchies
from imagetool.runtime.executors import EXECUTORS, Executor
from imagetool.runtime.executors.limited import limited
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.spec import build_step_spec
from imagetool.runtime.users import User
from tests.support.containers import VARIANTS, full_root, overlay, processes, sh, variant

pytestmark = pytest.mark.root


@pytest.fixture(params=sorted(VARIANTS))
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with GroupTree() as tree:
        if not tree.shared:
            pytest.skip("needs a control group for pids that this process may use")
    with variant(request.param) as started:
        yield started


@pytest.fixture
def root(tmp_path: Path) -> Directory:
    return Directory(full_root(tmp_path / "root"))


def test_memory(executor: Executor, root: Directory) -> None:
    ceilings = Ceilings(memory=32 << 20, shm_size=1 << 30)
    ran = sh(executor, root, "dd if=/dev/zero of=/dev/shm/x bs=1M count=200 2>&1", ceilings=ceilings)
    assert ran.code == 137
    assert ran.status.limit.startswith("its memory limit of 32.0 MiB, using ")
    assert 16 << 20 < ran.status.usage.peak_memory <= 33 << 20
    fits = sh(executor, root, "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>&1", ceilings=ceilings)
    assert (fits.code, fits.status.limit) == (0, "")


def test_a_fork_bomb_is_stopped(executor: Executor, root: Directory) -> None:
    script = "f() { f | f & }; f; while :; do sleep 1000 & done"  # ends when it cannot start one itself
    ran = sh(executor, root, script, ceilings=Ceilings(pids=40))
    assert ran.code != 0
    assert ran.status.limit == "its limit of 40 processes"
    assert sh(executor, root, "echo alive").text == "alive\n"


def sleeper(line: str) -> int:
    """Return the process with this command line, which may have to start yet."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid, command in processes().items():
            if command.startswith(line):
                return pid
    raise AssertionError(f"no process {line!r}")


def test_processes_are_limited_when_nothing_is_said(executor: Executor, root: Directory) -> None:
    mark = f"{os.getpid()}55"
    found: list[str] = []

    def look(_stream: int, _data: bytes) -> None:
        pid = sleeper(f"sleep {mark}")
        places = hierarchies(Path(f"/proc/{pid}/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
        for place in places:
            above, shared, _ = f"{place.folder}/".partition("/shared/")
            limit = Path(above + shared, "pids.max")
            if "/imagetool-" in above and limit.is_file():
                found.append(limit.read_text())
        os.kill(pid, signal.SIGKILL)

    args = ["/bin/sh", "-c", f"sleep {mark} & echo x; wait; true"]
    spec = build_step_spec(args=args, env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box")
    executor.run(spec, root, output=look)
    assert found == ["4096\n"]


def test_processor_time(executor: Executor, root: Directory) -> None:
    script = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done"
    start = time.monotonic()
    ran = sh(executor, root, script, ceilings=Ceilings(cpus=0.2))
    wall = time.monotonic() - start
    assert ran.code == 0
    assert 0 < ran.status.usage.cpu_seconds < 0.5 * wall


def test_processors(executor: Executor, root: Directory) -> None:
    ran = sh(executor, root, "grep Cpus_allowed_list /proc/self/status", ceilings=Ceilings(cpuset="0", cpu_shares=100))
    assert ran.text.split() == ["Cpus_allowed_list:", "0"]
    with pytest.raises(HostError, match=r"--cpuset-cpus cannot be put into force: cpuset.cpus does not take 4095"):
        sh(executor, root, "true", ceilings=Ceilings(cpuset="4095"))


def test_time(executor: Executor, root: Directory) -> None:
    start = time.monotonic()
    ran = sh(executor, root, "echo begin; trap '' TERM INT; sleep 77 & sleep 77", ceilings=Ceilings(timeout=3.5))
    assert time.monotonic() - start < 20
    assert (ran.code, ran.text) == (137, "begin\n")
    assert re.fullmatch(r"its time limit of 3\.5 seconds, using \d+\.\d MiB of memory at most", ran.status.limit)
    assert sh(executor, root, "echo next", ceilings=Ceilings(timeout=60)).text == "next\n"


def test_ulimits_are_set_and_never_above_what_we_have(executor: Executor, root: Directory) -> None:
    ulimits = (Ulimit("nofile", 40, 50), Ulimit("core", 0, 0))
    ran = sh(executor, root, "ulimit -n; ulimit -Hn; ulimit -c", ceilings=Ceilings(ulimits=ulimits))
    assert ran.text.split() == ["40", "50", "0"]


def test_ulimits_above_our_own_are_clamped(root: Directory) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is nothing above")
    with EXECUTORS["embedded"]() as executor:
        script = "ulimit -n; ulimit -Hn"
        ran = sh(executor, root, script, ceilings=Ceilings(ulimits=(Ulimit("nofile", 9, hard + 1),)))
        assert ran.text.split()[0] == "9"
        assert int(ran.text.split()[1]) in (hard, hard + 1)


def test_shared_memory(executor: Executor, root: Directory) -> None:
    ran = sh(executor, root, "grep /dev/shm /proc/self/mounts", ceilings=Ceilings(shm_size=5 << 20))
    assert "size=5120k" in ran.text


def test_usage_is_told_without_being_asked(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    script = "dd if=/dev/zero of=/x bs=1M count=8 2>&1; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
    ran = sh(executor, root, script)
    assert 0 < ran.status.usage.cpu_seconds < 60
    assert 8 << 20 <= ran.status.usage.written < 64 << 20
    assert ran.status.usage.peak_memory > 100_000
    measured = sh(executor, root, "dd if=/dev/zero of=/dev/shm/y bs=1M count=8 2>&1", measured=True)
    assert measured.status.usage.peak_memory > 8 << 20


def test_groups_of_containers_are_gone_afterwards(root: Directory) -> None:
    with GroupTree() as tree:
        spec = build_step_spec(
            args=["true"],
            env={},
            cwd="/",
            user=User(),
            hostname="box",
            sandbox=Sandbox(ceilings=Ceilings(pids=5, memory=64 << 20)),
        )
        with limited(tree, spec) as group:
            assert group is not None
            folders = group.folders
            assert all(map(os.path.isdir, folders))
        assert not any(map(os.path.isdir, folders))
        top = tree.folders
    assert not any(map(os.path.isdir, top))
