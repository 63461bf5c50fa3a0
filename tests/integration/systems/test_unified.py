"""Limits where control groups are of version 2 alone, as on nearly every host with systemd: in a virtual machine.

The groups are arranged as systemd's, by hand: a session's scope or a user's delegated part in a slice that has
processes counted and memory limited, and nothing more.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.guest import boot, guest_disk
from tests.support.systems import kernel, need

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.slow]

#: `turned_on` lists what each group controls below it; the last words are the groups that there should be.
ARRANGED = """\
cd /sys/fs/cgroup
for controller in cpuset cpu io memory pids; do echo +$controller > cgroup.subtree_control; done
slice() {
    mkdir -p $1
    echo "+memory +pids" > $1/cgroup.subtree_control
}
turned_on() {
    find * -type d | while read group; do echo "$group: $(cat $group/cgroup.subtree_control)"; done
}
mkdir init.scope && for pid in $(cat cgroup.procs); do echo $pid > init.scope/cgroup.procs; done 2> /dev/null
"""
SESSION = """\
for group in user.slice user.slice/user-0.slice; do slice $group; done
mkdir user.slice/user-0.slice/session-1.scope && echo 0 > user.slice/user-0.slice/session-1.scope/cgroup.procs
"""
USERS = """\
above=user.slice/user-1000.slice
own=$above/user@1000.service/app.slice
for group in user.slice $above $above/user@1000.service $own; do slice $group; done
mkdir $above/session-1.scope $own/run.scope
for group in $above/user@1000.service $own $own/run.scope; do
    chown user $group $group/cgroup.procs $group/cgroup.subtree_control $group/cgroup.threads
done
cp -a /store /home/user/store && chown -R user:user /home/user/store
"""
FILLS_MEMORY = "busybox sh -c 'dd if=/dev/zero of=/dev/shm/x bs=1M count=40; echo after $?'"
FORKS = "busybox sh -c 'f() { f | f & }; f 2> /dev/null; sleep 1; exit 3'"
#: The shell that began it ends with 3, or with 2 when it is the one that cannot fork.
STOPPED = r"the container met its limit of 20 processes\nstatus [23] "
KILLED = "the container met its memory limit of 32.0 MiB, using 32.0 MiB\nstatus 137 "


@pytest.fixture(scope="module")
def disk(busybox_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_disk(tmp_path_factory, busybox_base)


def answers(said: str) -> list[str]:
    """Return what was said for each command, its status last."""
    return [part.partition("\n")[2] for part in re.split(r"^## ", said, flags=re.MULTILINE)[1:]]


def test_in_a_session_of_root_limits_bite(disk: Path, tmp_path: Path) -> None:
    job = f"""\
commands <<'END'
run --network host --memory 32m {FILLS_MEMORY}
run --network host --pids-limit 20 {FORKS}
run --network host --cpuset-cpus 1 busybox grep Cpus_allowed_list /proc/self/status
run --network host --cpuset-cpus 77 busybox true
END
turned_on
"""
    said = boot(disk, kernel(), ARRANGED + SESSION + job, tmp_path)
    memory, pids, processor, refused = answers(said)
    assert KILLED in memory
    assert "after" not in memory, "all of it is killed, not the one process that was the largest"
    assert re.search(STOPPED, pids)
    assert "Cpus_allowed_list:\t1\nstatus 0 " in processor
    assert "cpuset.cpus does not take 77: Numerical result out of range" in refused
    assert "\nstatus 9 " in refused
    groups = dict(line.split(": ", 1) for line in refused.splitlines() if re.match(r"(user|init)\.s\S+: ", line))
    assert groups == {
        "user.slice": "cpuset memory pids",
        "user.slice/user-0.slice": "cpuset memory pids",
        "user.slice/user-0.slice/session-1.scope": "",
        "init.scope": "",
    }, "no group is left, and of what was not needed nothing is turned on"


def test_in_a_session_of_root_steps_have_their_share_of_time(disk: Path, tmp_path: Path) -> None:
    job = """\
mkdir /context && cat > /context/Dockerfile <<'END'
FROM busybox
RUN cat /proc/uptime; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cat /proc/uptime; times
END
commands <<'END'
build --network host --progress plain --cpus 0.2 --memory 64m --stats /context
run --network host --timeout 1 busybox sleep 100
END
find -name 'imagetool-*'; echo looked
"""
    said = boot(disk, kernel(), ARRANGED + SESSION + job, tmp_path)
    build, late = answers(said)
    start, end = (float(line.split()[0]) for line in build.splitlines() if re.fullmatch(r"  \d+\.\d+ \d+\.\d+", line))
    spent = sum(60 * int(minutes) + float(rest) for minutes, rest in re.findall(r"(\d+)m(\d+\.\d+)s", build))
    assert 0 < spent < 0.5 * (end - start)
    assert "\nstatus 0 " in build
    assert re.search(r"the container met its time limit of 1 seconds(, using .*)?\nstatus 137 ", late)
    assert late.endswith("looked\n")
    assert "imagetool-" not in late


def test_in_a_session_of_root_limits_hold_for_runc(disk: Path, tmp_path: Path) -> None:
    need("runc")
    job = f"""\
commands <<'END'
run --network host --isolation oci --memory 32m {FILLS_MEMORY}
END
find -name '*imagetool-*'; echo looked
"""
    (said,) = answers(boot(disk, kernel(), ARRANGED + SESSION + job, tmp_path))
    assert KILLED in said
    assert said.endswith("looked\n")
    assert "imagetool-" not in said


def test_the_doctor_tells_root_and_users_what_they_can_limit(disk: Path, tmp_path: Path) -> None:
    job = """\
(echo 0 > $own/run.scope/cgroup.procs; as_user "echo --root /home/user/store doctor | commands")
echo doctor | commands
"""
    user, root = answers(boot(disk, kernel(), ARRANGED + USERS + job, tmp_path))
    assert re.search(r"limited +limits +no --cpus \(.*no control group for cpu\..*\)\n +fix: .*Delegate=yes", user)
    assert re.search(r"ok +limits +--memory, --cpus, --pids-limit can be put into force", root)


def test_an_ordinary_user_in_a_session_has_no_limits_and_is_told(disk: Path, tmp_path: Path) -> None:
    job = """\
echo 0 > $above/session-1.scope/cgroup.procs
as_user "export IMAGETOOL_ROOT=/home/user/store; commands" <<'END'
run --network host --memory 32m busybox true
run --network host busybox echo unlimited
END
"""
    refused, unlimited = answers(boot(disk, kernel(), ARRANGED + USERS + job, tmp_path))
    assert "--memory cannot be put into force: no control group for memory" in refused
    assert "systemd-run --user --scope -p Delegate=yes" in refused
    assert "\nstatus 9 " in refused
    assert unlimited.startswith("unlimited\nstatus 0 ")


def test_an_ordinary_user_has_limits_where_a_part_is_delegated(disk: Path, tmp_path: Path) -> None:
    job = f"""\
echo 0 > $own/run.scope/cgroup.procs
as_user "export IMAGETOOL_ROOT=/home/user/store; commands" <<'END'
run --network host --memory 32m {FILLS_MEMORY}
run --network host --pids-limit 20 {FORKS}
run --network host --cpus 0.5 busybox true
END
turned_on
"""
    memory, pids, cpus = answers(boot(disk, kernel(), ARRANGED + USERS + job, tmp_path))
    assert KILLED in memory
    assert re.search(STOPPED, pids)
    assert "--cpus and --cpu-shares cannot be put into force: no control group for cpu" in cpus
    assert "\nstatus 9 " in cpus
    assert "imagetool-" not in cpus
