"""What every executor must do; each test runs under all of them, so all are in one file, which starts each once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagetool.errors import HostError
from imagetool.runtime.ceilings import Ceilings
from imagetool.runtime.executors import EmbeddedExecutor, Executor
from imagetool.runtime.network import NONE
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.security import Security
from imagetool.runtime.spec import Mount, build_step_spec
from imagetool.runtime.users import User
from tests.support.containers import (
    NOBODY,
    VARIANTS,
    busybox_root,
    full_root,
    host_mounts,
    open_files,
    overlay,
    run,
    separate_mounts,
    sh,
    shared_folder,
    tree,
    unprivileged,
    variant,
)
from tests.support.programs import i386_socket_program

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with variant(request.param) as started:
        yield started


@pytest.fixture(params=["bare", "full"])
def lower(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return (busybox_root if request.param == "bare" else full_root)(tmp_path / "lower")


def files_for_network(tmp_path: Path) -> list[Mount]:
    (tmp_path / "resolv.conf").write_text("nameserver 198.51.100.1\n")
    return [Mount("/etc/resolv.conf", "bind", str(tmp_path / "resolv.conf"), ("bind", "ro"))]


def test_a_step_that_does_nothing_leaves_an_empty_upper_directory(
    executor: Executor, lower: Path, tmp_path: Path
) -> None:
    root = overlay(tmp_path / "run", lower)
    os.utime(root.upper, ns=(5, 5))
    before = tree(lower)
    ran = run(executor, root, "true", mounts=files_for_network(tmp_path))
    assert (ran.code, ran.out, ran.err) == (0, b"", b"")
    assert tree(root.upper) == {}
    assert root.upper.stat().st_mtime_ns == 5
    assert tree(lower) == before


def test_a_directory_root_is_left_as_it_was(executor: Executor, lower: Path, tmp_path: Path) -> None:
    before = tree(lower)
    ran = run(executor, Directory(lower), "cat", "/etc/resolv.conf", mounts=files_for_network(tmp_path))
    assert ran.text == "nameserver 198.51.100.1\n"
    assert tree(lower) == before


def test_what_the_step_changes_is_in_the_upper_directory_and_nothing_else(
    executor: Executor, lower: Path, tmp_path: Path
) -> None:
    root = overlay(tmp_path / "run", lower)
    ran = sh(executor, root, "mkdir -p /etc; echo x > /etc/new; rm /bin/tr", mounts=files_for_network(tmp_path))
    assert (ran.code, ran.err) == (0, b"")
    assert sorted(tree(root.upper)) == ["bin", "bin/tr", "etc", "etc/new"]


def test_a_directory_the_step_changes_keeps_its_change(executor: Executor, lower: Path, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", lower)
    assert sh(executor, root, "mkdir -p /etc; chmod 711 /etc", mounts=files_for_network(tmp_path)).code == 0
    assert {name: oct(mode) for name, (mode, _) in tree(root.upper).items()} == {"etc": "0o40711"}


def test_several_runs_may_share_an_upper_directory(executor: Executor, lower: Path, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", lower)
    assert sh(executor, root, "echo one > /a; rm -f /etc/resolv.conf; mkdir -p /etc").code == 0
    middle = {name: mode for name, (mode, _) in tree(root.upper).items()}
    assert sh(executor, root, "cat /a", mounts=files_for_network(tmp_path)).text == "one\n"
    assert {name: mode for name, (mode, _) in tree(root.upper).items()} == middle


@pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 255])
def test_the_exit_code_is_exact(executor: Executor, tmp_path: Path, code: int) -> None:
    assert sh(executor, Directory(busybox_root(tmp_path / "root")), f"exit {code}").code == code


@pytest.mark.parametrize("number", [2, 9, 15])
def test_a_signal_is_128_and_its_number(executor: Executor, tmp_path: Path, number: int) -> None:
    script = f"sh -c 'kill -{number} $$'; exit $?"
    assert sh(executor, Directory(busybox_root(tmp_path / "root")), script).code == 128 + number


def test_a_program_that_is_not_there_gives_127_and_says_so(executor: Executor, tmp_path: Path) -> None:
    root = Directory(busybox_root(tmp_path / "root"))
    for name in ("nosuch", "/bin/nosuch", "./nosuch"):
        ran = run(executor, root, name)
        assert ran.code == 127
        assert b"nosuch" in ran.err
        assert ran.out == b""


def test_a_program_that_cannot_be_executed_gives_126(executor: Executor, tmp_path: Path) -> None:
    folder = busybox_root(tmp_path / "root")
    (folder / "bin/plain").write_text("echo hello\n")
    for name in ("/bin/plain", "/bin"):
        assert run(executor, Directory(folder), name).code == 126


def test_scripts_run_by_their_interpreter(executor: Executor, tmp_path: Path) -> None:
    folder = busybox_root(tmp_path / "root")
    (folder / "script").write_text("#!/bin/sh -e\necho $0 $1\n")
    (folder / "script").chmod(0o755)
    assert run(executor, Directory(folder), "/script", "arg").text == "/script arg\n"
    assert run(executor, Directory(folder), "script", "arg", env={"PATH": "/nowhere:/"}).text == "/script arg\n"


def test_stdout_and_stderr_come_apart_and_stdin_is_empty(executor: Executor, tmp_path: Path) -> None:
    ran = sh(executor, Directory(busybox_root(tmp_path / "root")), "echo out; echo err >&2; cat; echo $?")
    assert (ran.out, ran.err) == (b"out\n0\n", b"err\n")


def test_output_comes_while_the_step_runs(executor: Executor, tmp_path: Path) -> None:
    folder = busybox_root(tmp_path / "root")
    os.mkfifo(folder / "go")
    pieces: list[bytes] = []

    def take(_stream: int, data: bytes) -> None:
        pieces.append(data)
        if len(pieces) == 1:
            (folder / "go").write_text("on\n")  # it waits for this, having said what it said

    args = ["/bin/sh", "-c", "echo a; cat /go; echo b"]
    spec = build_step_spec(args=args, env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box")
    executor.run(spec, Directory(folder), output=take)
    assert pieces[0] == b"a\n"
    assert b"".join(pieces[1:]) == b"on\nb\n"


def test_much_output_arrives_whole(executor: Executor, tmp_path: Path) -> None:
    script = "head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2"
    ran = sh(executor, Directory(busybox_root(tmp_path / "root")), script)
    assert (len(ran.out), len(ran.err)) == (5_000_000, 3_000_000)


def test_a_long_command_and_odd_bytes_arrive_whole(executor: Executor, tmp_path: Path) -> None:
    word = "ü'\"\\\n$" * 15000
    ran = run(executor, Directory(busybox_root(tmp_path / "root")), "echo", "-n", word, env={"X": word})
    assert ran.text == word


def test_what_is_left_running_ends_with_the_step(executor: Executor, tmp_path: Path) -> None:
    ran = sh(executor, Directory(busybox_root(tmp_path / "root")), "sleep 300 & echo done")
    assert (ran.code, ran.text) == (0, "done\n")


def test_user_groups_directory_umask_and_environment_are_as_described(executor: Executor, tmp_path: Path) -> None:
    root = Directory(full_root(tmp_path / "root"))
    ran = sh(
        executor,
        root,
        "id -u; id -g; id -G; pwd; umask; echo $A; env | wc -l",
        user=User(1000, 100, (7, 8)),
        cwd="/tmp",
        env={"A": "b=c d"},
    )
    assert ran.text.split("\n")[:-2] == ["1000", "100", "100 7 8", "/tmp", "0022", "b=c d"]
    assert int(ran.text.split("\n")[-2]) <= 5  # PATH, A, PWD, SHLVL, HOME: nothing of the builder's


def test_root_has_the_described_capabilities_and_no_other_user_has_any(executor: Executor, tmp_path: Path) -> None:
    root = Directory(full_root(tmp_path / "root"))
    script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"

    def status(**options: object) -> dict[str, int]:
        lines = sh(executor, root, script, **options).text.splitlines()
        return {line.split(":")[0]: int(line.split(":")[1], 16) for line in lines}

    expected = 0x800405FB
    held = {"CapInh": 0, "CapPrm": expected, "CapEff": expected, "CapBnd": expected, "CapAmb": 0, "NoNewPrivs": 0}
    assert status() == held
    assert status(user=User(1000, 1000)) == {**held, "CapPrm": 0, "CapEff": 0}
    none = status(security=Security((), no_new_privileges=True))
    assert none == {name: int(name == "NoNewPrivs") for name in held}


def test_a_user_may_open_its_own_output(executor: Executor, tmp_path: Path) -> None:
    root = Directory(full_root(tmp_path / "root"))
    ran = sh(executor, root, "echo out > /dev/stdout; echo err > /dev/stderr", user=User(1000, 1000))
    assert (ran.code, ran.out, ran.err) == (0, b"out\n", b"err\n")


def test_system_calls_are_filtered(executor: Executor, tmp_path: Path) -> None:
    root = Directory(full_root(tmp_path / "root"))
    probe = "grep -E '^Seccomp:' /proc/self/status; unshare -U true && echo userns; mount -t tmpfs x /tmp && echo mount"
    ran = sh(executor, root, probe)
    assert ran.text.split() == ["Seccomp:", "2"]
    assert ran.err.count(b"Operation not permitted") + ran.err.count(b"permission denied") == 2
    assert sh(executor, root, probe, user=User(1000, 1000)).text.split() == ["Seccomp:", "2"]
    strict = Security(no_new_privileges=True)
    assert sh(executor, root, probe, security=strict).text.split() == ["Seccomp:", "2"]
    assert "userns" in sh(executor, root, probe, security=Security(seccomp=None)).text


def test_a_profile_of_ones_own_is_in_force(executor: Executor, tmp_path: Path) -> None:
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    if isinstance(executor, EmbeddedExecutor):  # runc 1.1 knows no flags
        profile["flags"] = ["SECCOMP_FILTER_FLAG_LOG"]
    ran = sh(executor, Directory(full_root(tmp_path / "root")), "mkdir /x", security=Security(seccomp=profile))
    assert (ran.code, ran.err) == (1, b"mkdir: can't create directory '/x': No space left on device\n")


def test_namespaces_are_fresh(executor: Executor, tmp_path: Path) -> None:
    ran = sh(
        executor,
        Directory(full_root(tmp_path / "root")),
        "hostname; ls /proc | grep -c '^[0-9]'; for n in mnt pid uts ipc net; do readlink /proc/self/ns/$n; done",
    )
    name, count, *namespaces = ran.text.split()
    assert name == "box"
    assert int(count) <= 5
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "uts", "ipc", "net")]
    assert not set(namespaces[:4]) & set(ours)
    assert namespaces[4] == ours[4]


def test_without_network_there_is_loopback_only(executor: Executor, tmp_path: Path) -> None:
    root = Directory(full_root(tmp_path / "root"))
    ran = sh(executor, root, "ip -o link | wc -l; ip -o link", network=NONE)
    assert ran.text.startswith("1\n")
    assert "LOOPBACK,UP" in ran.text


def test_the_usual_devices_work(executor: Executor, tmp_path: Path) -> None:
    script = """set -e
    echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo y > /dev/stdout
    ls /dev; touch /dev/shm/a; ls -d /dev/pts/ptmx; ! echo 1 2>&- > /dev/full"""
    ran = sh(executor, Directory(busybox_root(tmp_path / "root")), script)
    names = [
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert ran.text.split() == ["3", "4", "y", *names, "/dev/pts/ptmx"]


def test_mounts_are_readonly_when_they_say_so(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts = [
        *files_for_network(tmp_path),
        Mount("/new/place", "bind", str(shared), ("bind", "rw")),
        Mount("/ro", "bind", str(shared), ("bind", "ro")),
        Mount("/mem", "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=1777", "size=1m")),
    ]
    script = "echo x > /etc/resolv.conf; rm /etc/resolv.conf; touch /ro/b; touch /new/place/a /mem/c; ls /ro /mem"
    ran = sh(executor, root, script, mounts=mounts)
    assert ran.err.count(b"Read-only") == 2
    assert b"busy" in ran.err
    assert ran.text == "/mem:\nc\n\n/ro:\na\n"
    assert os.listdir(shared) == ["a"]
    assert tree(root.upper) == {}
    assert (tmp_path / "resolv.conf").read_text() == "nameserver 198.51.100.1\n"


def test_a_readonly_root_is_readonly(executor: Executor, tmp_path: Path) -> None:
    root = Directory(full_root(tmp_path / "root"))
    ran = sh(executor, root, "touch /x; touch /dev/shm/y && echo fine", readonly=True)
    assert b"Read-only" in ran.err
    assert ran.text == "fine\n"


def test_kernel_files_that_reach_the_host_are_hidden_or_readonly(executor: Executor, tmp_path: Path) -> None:
    script = """cat /proc/kcore | wc -c; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; ls /proc/acpi | wc -l
    echo 0 > /proc/sys/kernel/randomize_va_space; touch /sys/x"""
    ran = sh(executor, Directory(full_root(tmp_path / "root")), script)
    assert ran.text.split() == ["0", "0", "0", "0"]
    assert b"can't create /proc/sys/kernel/randomize_va_space: Read-only" in ran.err
    assert b"/sys/x: Read-only" in ran.err


def test_several_threads_may_run_containers_at_once(executor: Executor, tmp_path: Path) -> None:
    folder = full_root(tmp_path / "root")
    results: dict[int, str] = {}

    def one(number: int) -> None:
        root = overlay(tmp_path / f"run{number}", folder)
        results[number] = sh(executor, root, f"sleep 0.05; echo {number}").text

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(6)}


@pytest.mark.parametrize("kind", sorted(VARIANTS))
def test_the_host_sees_no_mount_and_no_descriptor_stays_open(kind: str, tmp_path: Path) -> None:
    if kind == "runc" and shutil.which(kind) is None:
        pytest.skip(f"needs {kind}")
    with separate_mounts(), VARIANTS[kind]() as executor:
        leave_nothing(executor, tmp_path)


def leave_nothing(executor: Executor, tmp_path: Path) -> None:
    folder = full_root(tmp_path / "root")
    run(executor, overlay(tmp_path / "first", folder), "true")
    mounts, files = host_mounts(), open_files()
    seen: list[list[str]] = []
    spec = build_step_spec(args=["/bin/sh", "-c", "echo x"], env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box")
    executor.run(spec, overlay(tmp_path / "second", folder), output=lambda *_: seen.append(host_mounts()))
    for number in range(10):
        run(executor, overlay(tmp_path / f"run{number}", folder), "true")
    assert set(seen[0]) <= set(mounts), "others may take mounts of theirs away meanwhile"
    assert set(host_mounts()) <= set(mounts)
    assert not open_files() - files


def test_where_files_cannot_be_shown_with_other_owners_there_is_no_user_namespace_and_one_line_says_so(
    tmp_path: Path,
) -> None:
    warned: list[str] = []
    (tmp_path / "ram").mkdir()
    with separate_mounts(), EmbeddedExecutor(warn=warned.append) as executor:
        subprocess.run(["mount", "-t", "ramfs", "ramfs", str(tmp_path / "ram")], check=True)
        root = Directory(full_root(tmp_path / "ram/root"))
        for _ in range(2):
            ran = sh(executor, root, "cat /proc/self/uid_map", userns="default")
            assert ran.text.split() == ["0", "0", "4294967295"]
        assert len(warned) == 1
        assert f"root of this machine, with few capabilities: the filesystem of {root.path}" in warned[0]
        with pytest.raises(HostError, match="--userns host runs without one"):
            sh(executor, root, "true", userns="auto")
        mapped = Directory(full_root(tmp_path / "root"))
        assert "1879048192" in sh(executor, mapped, "cat /proc/self/uid_map", userns="auto").text


NESTED = """
import os, subprocess, sys
from pathlib import Path
from imagetool.runtime.namespaces import enter_user_namespace
from imagetool.runtime.executors import EmbeddedExecutor
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.spec import build_step_spec
from imagetool.runtime.users import User

enter_user_namespace()
told = []
script = "grep -c . /proc/self/status; echo x > /proc/self/comm; echo done"
spec = build_step_spec(args=["sh", "-c", script], env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box")
with EmbeddedExecutor(warn=told.append) as executor:
    for _ in range(2):
        status = executor.run(spec, Directory(Path(sys.argv[1])), output=lambda _, data: os.write(1, data))
print(status.code, told)
"""


def test_inside_a_container_with_a_masked_proc_the_outer_one_is_seen_read_only_and_one_line_says_so() -> None:
    command = 'mount --bind /dev/null /proc/uptime && exec "$@"'
    hide = ["unshare", "--mount", "--propagation", "private", "sh", "-c", command]
    with shared_folder() as folder:
        root = full_root(folder / "root")
        subprocess.run(["chown", "-R", str(NOBODY), str(root)], check=True)
        ran = unprivileged([*hide, "sh"])(folder, f"import sys; sys.argv = ['x', {str(root)!r}]\n{NESTED}")
    assert ran.stdout.count("done\n") == 2, ran.stderr
    assert ran.stdout.endswith("]\n")
    assert ran.stdout.count("the kernel allows no new /proc here") == 1
    assert "\n0 [" in ran.stdout


def test_no_name_of_a_control_group_of_the_host_is_seen(executor: Executor, tmp_path: Path) -> None:
    settings: tuple[dict[str, Any], ...] = ({}, {"ceilings": Ceilings(pids=50)})
    for number, options in enumerate(settings):
        ran = sh(executor, Directory(full_root(tmp_path / str(number))), "cat /proc/self/cgroup", **options)
        assert {line.split(":", 2)[2] for line in ran.text.splitlines()} == {"/"}


def test_a_32_bit_program_makes_its_sockets_by_socketcall(executor: Executor, tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("i386 is the 32-bit machine of x86-64 only")
    root = busybox_root(tmp_path / "root")
    (root / "bin/socket").write_bytes(i386_socket_program(socket.AF_INET, socket.SOCK_STREAM))
    (root / "bin/socket").chmod(0o755)
    assert run(executor, Directory(root), "socket").code == 256 - 3
