"""Where control groups are, and what becomes of those whose builder is dead."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from imagetool.runtime.cgroups import GroupTree, Hierarchy, hierarchies, sweep

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
        assert tree.folders == {}
