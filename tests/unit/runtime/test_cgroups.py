"""Where control groups are, and what becomes of those whose builder is dead."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from imagetool.errors import HostError
from imagetool.runtime.ceilings import Ceilings
from imagetool.runtime.cgroup_settings import settings
from imagetool.runtime.cgroups import GroupTree, Hierarchy, Outcome, hierarchies, sweep

HYBRID = "8:pids:/\n4:memory:/own/x\n2:cpu,cpuacct:/\n9:name=systemd:/\n0::/user.slice\n"
MOUNTS = """30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""


def test_a_hybrid_host_has_hierarchies_of_both_versions() -> None:
    found = {",".join(sorted(place.controllers)): place.folder for place in hierarchies(HYBRID, MOUNTS)}
    assert found == {
        "": "/sys/fs/cgroup/unified/user.slice",
        "systemd": "/sys/fs/cgroup/systemd",
        "cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "pids": "/sys/fs/cgroup/pids",
        "memory": "/sys/fs/cgroup/memory/own/x",
    }


def test_a_unified_host_has_one() -> None:
    mounts = "31 30 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    assert hierarchies("0::/a/b\n", mounts) == (Hierarchy(2, frozenset(), "/sys/fs/cgroup/a/b"),)


def test_a_container_sees_its_own_part_only() -> None:
    mounts = "31 30 0:27 /docker/1 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
    assert [place.folder for place in hierarchies("4:pids:/docker/1/x\n", mounts)] == ["/sys/fs/cgroup/pids/x"]
    assert hierarchies("4:pids:/docker/10\n", mounts) == ()
    assert hierarchies("4:pids:/../other\n", mounts.replace("/docker/1", "/")) == ()


def test_a_mount_point_with_a_space_is_read_as_the_kernel_writes_it() -> None:
    mounts = "31 30 0:27 / /a\\040b rw - cgroup2 cgroup2 rw\n"
    assert hierarchies("0::/x\n", mounts) == (Hierarchy(2, frozenset(), "/a b/x"),)


def test_only_trees_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    (tmp_path / "imagetool-dead/deep/er").mkdir(parents=True)
    (tmp_path / "imagetool-held").mkdir()
    (tmp_path / "other").mkdir()
    held = os.open(tmp_path / "imagetool-held", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    place = Hierarchy(1, frozenset({"pids"}), str(tmp_path))
    with GroupTree([place]) as first, GroupTree([place]) as second:
        assert set(os.listdir(tmp_path)) == {"imagetool-held", "other", first.name, second.name}
    os.close(held)
    assert set(os.listdir(tmp_path)) == {"imagetool-held", "other"}
    sweep(str(tmp_path))
    assert os.listdir(tmp_path) == ["other"]


def test_where_no_group_can_be_made_there_is_none(tmp_path: Path) -> None:
    with GroupTree([Hierarchy(2, frozenset(), str(tmp_path / "missing"))]) as tree:
        assert tree.folders == []
        with pytest.raises(HostError, match=r"--memory cannot be put into force.*systemd-run"):
            tree.group({"memory": {"limit": 1 << 30}})
        with pytest.raises(HostError, match="--pids-limit"):
            tree.group({"pids": {"limit": 5}})


RESOURCES = Ceilings(memory=64 << 20, cpus=1.5, cpu_shares=512, cpuset="0", pids=100).resources()


def written(version: int, resources: dict[str, Any]) -> dict[str, str]:
    return {setting.file: setting.value for setting in settings(resources, version)}


def test_limits_are_written_as_each_version_has_them() -> None:
    assert list(written(1, RESOURCES).items()) == [
        ("memory.limit_in_bytes", "67108864"),
        ("memory.memsw.limit_in_bytes", "67108864"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
        ("cpu.shares", "512"),
        ("cpuset.cpus", "0"),
        ("pids.max", "100"),
    ]
    assert written(2, RESOURCES) == {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "150000 100000",
        "cpu.weight": "20",
        "cpuset.cpus": "0",
        "pids.max": "100",
    }


def test_swap_is_counted_with_memory_in_version_1_and_apart_in_version_2() -> None:
    more = Ceilings(memory=64 << 20, memory_swap=96 << 20).resources()
    assert written(1, more)["memory.memsw.limit_in_bytes"] == str(96 << 20)
    assert written(2, more)["memory.swap.max"] == str(32 << 20)
    any_amount = Ceilings(memory=64 << 20, memory_swap=-1).resources()
    assert written(1, any_amount)["memory.memsw.limit_in_bytes"] == "-1"
    assert written(2, any_amount)["memory.swap.max"] == "max"


def test_weights_keep_their_ends() -> None:
    for shares, weight in ((2, "1"), (262144, "10000")):
        assert written(2, {"cpu": {"shares": shares}}) == {"cpu.weight": weight}


CONTROLLERS = "cpuset cpu memory pids"
FILES = (
    "cgroup.procs", "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "cpu.weight", "cpuset.cpus",
    "pids.max",
)  # fmt: skip


@pytest.fixture
def unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that behaves as far as a version 2 hierarchy as `cgroups` sees of it."""
    make, take = os.mkdir, os.rmdir

    def fill(folder: str) -> None:
        Path(folder, "cgroup.controllers").write_text(CONTROLLERS)
        Path(folder, "cgroup.type").write_text("domain\n")
        for name in ("cgroup.subtree_control", *FILES):
            Path(folder, name).touch()

    def mkdir(path: str, *args: Any) -> None:
        make(path, *args)
        fill(path)

    def rmdir(path: str, *args: Any) -> None:
        for file in Path(path).iterdir():
            if file.is_file():
                file.unlink()
        take(path, *args)

    def write(path: str, text: str) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if path.endswith("subtree_control"):
            text = f"{Path(path).read_text()} {text.removeprefix('+')}"
        Path(path).write_text(text)

    make(tmp_path / "slice")
    make(tmp_path / "slice/scope")
    for folder in (tmp_path, tmp_path / "slice", tmp_path / "slice/scope"):
        fill(str(folder))
    (tmp_path / "cgroup.type").unlink()
    (tmp_path / "cgroup.procs").write_text("1\n")
    (tmp_path / "slice/scope/cgroup.procs").write_text("77\n")
    monkeypatch.setattr("os.mkdir", mkdir)
    monkeypatch.setattr("os.rmdir", rmdir)
    monkeypatch.setattr("imagetool.runtime.cgroups._write", write)
    return tmp_path


def place_of(unified: Path) -> Hierarchy:
    return Hierarchy(2, frozenset(), str(unified / "slice/scope"), str(unified))


def controlled(folder: Path) -> set[str]:
    return set((folder / "cgroup.subtree_control").read_text().split())


def test_version_2_has_limits_below_a_group_without_processes(unified: Path) -> None:
    """Our own group has processes: with pids turned on, which the kernel allows, groups below it would take none."""
    with GroupTree([place_of(unified)]) as tree:
        top = unified / "slice" / tree.name
        assert [controlled(folder) for folder in (unified, unified / "slice", top)] == [{"pids"}] * 3
        assert tree.shared == (f"{top}/shared",)
        assert (top / "shared/pids.max").read_text() == "4096"
        group = tree.group(RESOURCES)
        assert group.folders == (f"{top}/1",)
        assert [controlled(folder) for folder in (unified, unified / "slice", top)] == [set(CONTROLLERS.split())] * 3
        assert controlled(unified / "slice/scope") == set()
        for name, value in written(2, RESOURCES).items():
            assert (top / "1" / name).read_text() == value
        (top / "1/memory.peak").write_text("12345\n")
        (top / "1/memory.events").write_text("low 0\nmax 3\noom 2\noom_kill 1\n")
        (top / "1/pids.events").write_text("max 7\n")
        (top / "1/pids.peak").write_text("9\n")
        assert group.outcome() == Outcome(12345, 9, 1, 7)
        assert tree.path(group.name, "box") == f"/slice/{tree.name}/1/box"
        group.close()
        assert not (top / "1").exists()
    assert not top.exists()


def test_the_topmost_group_has_both_processes_and_limits(unified: Path) -> None:
    with GroupTree([Hierarchy(2, frozenset(), str(unified), str(unified))]) as tree:
        assert tree.folders == [str(unified / tree.name)]
        tree.group(RESOURCES).close()


def test_in_a_container_whose_processes_are_in_the_only_group_there_are_no_limits(unified: Path) -> None:
    (unified / "cgroup.type").write_text("domain\n")
    with GroupTree([Hierarchy(2, frozenset(), str(unified), str(unified))]) as tree:
        assert (tree.folders, tree.shared, controlled(unified)) == ([], (), set())
        with pytest.raises(HostError, match="inside a container, limit that one"):
            tree.group({"pids": {"limit": 9}})


def as_delegated(unified: Path, monkeypatch: pytest.MonkeyPatch, *, above: bool) -> None:
    """Make it a user's: its own group is in use; of the one above, if at all, memory and pids were delegated."""
    from imagetool.runtime import cgroups

    make, write = os.mkdir, cgroups._write

    def mkdir(path: str, *args: Any) -> None:
        parent = Path(path).parent
        if parent == unified or (parent == unified / "slice" and not above):
            raise PermissionError(errno.EACCES, "not yours", path)
        make(path, *args)
        Path(path, "cgroup.controllers").write_text((parent / "cgroup.subtree_control").read_text())

    def refuse(path: str, text: str) -> None:
        if path in (str(unified / "cgroup.subtree_control"), str(unified / "slice/cgroup.subtree_control")):
            raise PermissionError(errno.EACCES, "not yours")
        write(path, text)

    for folder in (unified, unified / "slice"):
        (folder / "cgroup.subtree_control").write_text("memory pids\n")
    monkeypatch.setattr("os.mkdir", mkdir)
    monkeypatch.setattr("imagetool.runtime.cgroups._write", refuse)


def test_a_user_can_limit_what_systemd_has_delegated(unified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_delegated(unified, monkeypatch, above=True)
    with GroupTree([place_of(unified)]) as tree:
        limits = {"memory": {"limit": 1 << 26, "swap": 1 << 26}, "pids": {"limit": 9}}
        group = tree.group(limits)
        assert group.folders == (str(unified / "slice" / tree.name / "1"),)
        for name, value in written(2, limits).items():
            assert Path(group.folders[0], name).read_text() == value
        group.close()
        with pytest.raises(HostError, match=r"--cpus and --cpu-shares cannot be put into force.*Delegate=yes"):
            tree.group({"cpu": {"shares": 100}})
    assert [path.name for path in (unified / "slice").iterdir() if path.is_dir()] == ["scope"]


def test_a_user_without_a_delegated_part_can_limit_nothing(unified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_delegated(unified, monkeypatch, above=False)
    with GroupTree([place_of(unified)]) as tree:
        assert (tree.folders, tree.shared) == ([], ())
        for resources in ({"memory": {"limit": 1 << 26}}, {"pids": {"limit": 9}}):
            with pytest.raises(HostError, match="Delegate=yes"):
                tree.group(resources)


def test_a_limit_that_the_kernel_refuses_is_a_host_error_and_leaves_no_group(
    unified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imagetool.runtime import cgroups

    write = cgroups._write

    def refuse(path: str, text: str) -> None:
        if path.endswith("cpuset.cpus"):
            raise OSError(errno.EINVAL, "Invalid argument")
        write(path, text)

    monkeypatch.setattr("imagetool.runtime.cgroups._write", refuse)
    with GroupTree([place_of(unified)]) as tree:
        with pytest.raises(HostError, match=r"--cpuset-cpus cannot be put into force: cpuset.cpus does not take 99"):
            tree.group({"cpu": {"cpus": "99"}})
        assert not (unified / "slice" / tree.name / "1").exists()
