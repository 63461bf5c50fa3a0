"""However a run or its builder ends: no process, no mount, no descriptor is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.errors import HostError
from imagetool.runtime.ceilings import Ceilings
from imagetool.runtime.cgroups import GroupTree, hierarchies
from imagetool.runtime.executors import EmbeddedExecutor, Executor, RuncExecutor, limited
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.spec import build_step_spec
from imagetool.runtime.users import User
from tests.support.containers import (
    VARIANTS,
    busybox_root,
    full_root,
    helpers,
    host_mounts,
    open_files,
    overlay,
    processes,
    run,
    separate_mounts,
    session_of,
    sh,
    tree,
)

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[3]

BUILDER = """
import sys
from pathlib import Path
from imagetool.runtime.rootfs import Overlay
from imagetool.runtime.spec import build_step_spec
from imagetool.runtime.users import User
from tests.support.containers import VARIANTS

kind, lower, folder, script, *groups = sys.argv[1:]
for group in groups:
    Path(group, "cgroup.procs").write_text("0")
root = Overlay((Path(lower),), Path(folder, "upper"), Path(folder, "work"))
spec = build_step_spec(args=["/bin/sh", "-c", script], env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box")
hoard = []

def take(stream, data):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    if b"hungry" in data:
        sys.stdin.readline()  # whoever looks on has seen what there is to see
    while b"hungry" in data:
        hoard.append(b"x" * (1 << 20))

with VARIANTS[kind]() as executor:
    executor.run(spec, root, output=take)
"""


@pytest.fixture(params=sorted(VARIANTS))
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "runc" and shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    return str(request.param)


@pytest.fixture
def executor(kind: str) -> Iterator[Executor]:
    with VARIANTS[kind]() as started:
        yield started


def named(mark: str) -> dict[int, str]:
    """Return the processes whose command line has a mark, apart from this one."""
    return {pid: line for pid, line in processes().items() if mark in line and pid != os.getpid()}


def wait_until_gone(mark: str, seconds: float = 30) -> dict[int, str]:
    end = time.monotonic() + seconds
    while (left := named(mark)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_builder_is_the_end_of_everything(kind: str, tmp_path: Path, number: signal.Signals) -> None:
    lower = full_root(tmp_path / "lower")
    root = overlay(tmp_path / "run", lower)
    mark = f"{os.getpid()}{number.value}31"
    script = f"trap '' INT TERM; (trap '' INT TERM; sleep {mark}) & echo started; sleep {mark}"
    command = [sys.executable, "-c", BUILDER, kind, str(lower), str(root.upper.parent), script]
    with separate_mounts():
        mounts = host_mounts()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY) as builder:
            assert builder.stdout is not None
            assert builder.stdout.readline() == b"started\n"
            assert len(named(f"sleep {mark}")) >= 2
            builder.send_signal(number)
            assert builder.wait(10) == -number
        assert wait_until_gone(mark) == {}
        assert not set(host_mounts()) - set(mounts)  # others unmount theirs meanwhile


def test_a_builder_that_the_kernel_kills_for_its_memory_leaves_nothing_after_the_next_start(
    kind: str, tmp_path: Path
) -> None:
    lower = full_root(tmp_path / "lower")
    mark = f"{os.getpid()}{len(kind)}33"
    script = f"trap '' INT TERM; (trap '' INT TERM; sleep {mark}) & echo hungry; sleep {mark}"

    def builder(name: str, script: str) -> list[str]:
        folder = str(overlay(tmp_path / name, lower).upper.parent)
        return [sys.executable, "-c", BUILDER, kind, str(lower), folder, script, *group.folders]

    with GroupTree() as groups, separate_mounts():
        mounts = host_mounts()
        group = groups.group({"memory": {"limit": 128 << 20, "swap": 128 << 20}})
        try:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen(builder("first", script), cwd=REPOSITORY, **pipes) as hungry:
                assert hungry.stdin is not None
                assert hungry.stdout is not None
                assert hungry.stdout.readline() == b"hungry\n"
                left = own_groups(mark) - set(group.folders)
                hungry.stdin.close()
                assert hungry.wait(60) == -signal.SIGKILL
            assert group.outcome().killed >= 1, "it was the kernel"
            assert wait_until_gone(mark, 20) == {}
            assert not set(host_mounts()) - set(mounts)
            assert left
            again = subprocess.run(builder("second", "echo fed"), capture_output=True, cwd=REPOSITORY, check=False)
            assert (again.returncode, again.stdout) == (0, b"fed\n"), again.stderr
            assert not any(map(os.path.isdir, left))
        finally:
            group.close()
        assert not any(map(os.path.isdir, group.folders))


def test_an_exception_of_the_output_goes_on_when_the_container_is_dead(executor: Executor, tmp_path: Path) -> None:
    lower = busybox_root(tmp_path / "lower")
    root = overlay(tmp_path / "run", lower)
    mark = f"{os.getpid()}77"
    spec = build_step_spec(
        args=["/bin/sh", "-c", f"trap '' INT TERM; sleep {mark} & yes; sleep {mark}"],
        env={"PATH": "/bin"},
        cwd="/",
        user=User(),
        hostname="box",
    )

    def interrupt(_stream: int, _data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor.run(spec, root, output=interrupt)
    assert named(f"sleep {mark}") == {}
    assert tree(root.upper) == {}
    assert sh(executor, root, "echo next").text == "next\n"


def own_groups(mark: str) -> set[str]:
    """Return the directories of the control groups that the processes with a mark are in, apart from the builder's."""
    found = set()
    for pid in named(f"sleep {mark}"):
        try:
            lines = Path("/proc", str(pid), "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):  # one on its way from a program to the next has ended
            continue
        found |= {place.folder for place in hierarchies(lines, Path("/proc/self/mountinfo").read_text())}
    return {folder for folder in found if "/imagetool-" in folder}


def test_an_interrupted_run_leaves_no_cgroup(tmp_path: Path) -> None:
    if shutil.which("runc") is None:
        pytest.skip("needs runc")
    seen: set[str] = set()

    def interrupt(_stream: int, _data: bytes) -> None:
        seen.update(own_groups(mark))
        raise KeyboardInterrupt

    mark = f"{os.getpid()}78"
    spec = build_step_spec(
        args=["/bin/sh", "-c", f"echo x; sleep {mark}"], env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box"
    )
    with RuncExecutor() as executor, pytest.raises(KeyboardInterrupt):
        executor.run(spec, Directory(full_root(tmp_path / "root")), output=interrupt)
    assert seen
    assert not any(map(os.path.isdir, seen))


def test_the_next_builder_sweeps_the_cgroups_of_one_that_was_killed(kind: str, tmp_path: Path) -> None:
    lower = full_root(tmp_path / "lower")
    root = overlay(tmp_path / "run", lower)
    mark = f"{os.getpid()}{len(kind)}79"
    command = [sys.executable, "-c", BUILDER, kind, str(lower), str(root.upper.parent), f"echo x; sleep {mark}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"x\n"
        left = own_groups(mark)
        builder.kill()
    assert left
    assert wait_until_gone(mark) == {}
    with VARIANTS[kind]():
        assert not any(map(os.path.isdir, left))


@pytest.mark.parametrize("kind", ["embedded", "mapped"])
def test_the_first_process_of_a_container_tells_nothing_of_the_host(kind: str, tmp_path: Path) -> None:
    script = "cat /proc/1/comm; tr '\\000' ' ' < /proc/1/cmdline; cat /proc/1/environ /proc/1/maps 2>&1 | head -c 200"
    with VARIANTS[kind]() as executor:
        words = sh(executor, Directory(full_root(tmp_path / "root")), script).text.split()
    assert words[:2] == ["init", "init"]
    assert "".join(words[2:]).count("Permissiondenied") == 2
    assert str(REPOSITORY) not in " ".join(words)


@pytest.mark.parametrize("kind", ["embedded", "mapped"])
def test_a_hundred_runs_leak_nothing(kind: str, tmp_path: Path) -> None:
    lower = full_root(tmp_path / "lower")
    limits = Ceilings(pids=50)  # so that each has a control group of its own
    with GroupTree() as tree:
        limited = bool(tree.shared)
    with separate_mounts(), VARIANTS[kind]() as executor:
        run(executor, overlay(tmp_path / "first", lower), "true")
        (helper,) = helpers()
        files, mounts = open_files(), host_mounts()
        places = hierarchies(Path(f"/proc/{helper}/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
        trees = [Path(place.folder).parent for place in places if place.folder.endswith("/shared")]
        assert bool(trees) == limited
        for number in range(100):
            options = {"ceilings": limits} if limited and number % 2 else {}
            assert run(executor, overlay(tmp_path / str(number), lower), "true", **options).code == 0
        assert not open_files() - files
        assert not set(host_mounts()) - set(mounts)  # others unmount theirs meanwhile
        for folder in trees:
            assert [path.name for path in folder.iterdir() if path.is_dir()] == ["shared"]
        end = time.monotonic() + 30
        while session_of(helper) != {helper} and time.monotonic() < end:
            time.sleep(0.02)
        assert session_of(helper) == {helper}
    assert not any(map(os.path.isdir, trees))


def test_closing_the_executor_ends_its_helper(tmp_path: Path) -> None:
    with EmbeddedExecutor() as executor:
        run(executor, Directory(busybox_root(tmp_path / "root")), "true")
        started = helpers()
        assert started
    assert not started & set(processes())


def test_a_helper_that_was_killed_is_a_host_error(tmp_path: Path) -> None:
    root = Directory(busybox_root(tmp_path / "root"))
    with EmbeddedExecutor() as executor:
        run(executor, root, "true")
        (helper,) = helpers()
        os.kill(helper, signal.SIGKILL)
        with pytest.raises(HostError, match="helper process"):
            run(executor, root, "true")


def test_the_helper_imports_nothing_slow() -> None:
    code = "import sys, imagetool.runtime.zygote; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    slow = {"subprocess", "typing_extensions", "requests", "threading", "dataclasses", "pathlib", "inspect", "tempfile"}
    assert not slow & set(done.stdout.split())


def processor_time() -> float:
    """Return the seconds of processor time of this process and of all that it has waited for."""
    return sum(os.times()[:4])


def test_an_empty_step_starts_fast(tmp_path: Path) -> None:
    lower = full_root(tmp_path / "lower")
    times = []
    spent = processor_time()
    with EmbeddedExecutor() as executor:
        for number in range(20):
            root = overlay(tmp_path / str(number), lower)
            start = time.perf_counter()
            run(executor, root, "true")
            times.append(time.perf_counter() - start)
    assert (processor_time() - spent) / len(times) < 0.02  # ours and what starting the helper takes
    assert min(times) < 0.1  # 10 to 20 ms on an idle machine: nothing that takes no processor time is waited for


def test_an_executor_that_does_not_start_leaves_no_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[GroupTree] = []

    def noted() -> GroupTree:
        made.append(GroupTree())
        return made[-1]

    monkeypatch.setattr(limited, "GroupTree", noted)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(HostError, match="the helper process for containers does not start"), EmbeddedExecutor():
        pass
    (groups,) = made
    assert groups.name
    assert not [folder for folder in groups.folders if os.path.exists(folder)]
