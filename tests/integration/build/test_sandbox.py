"""The options for the containers of RUN steps, through the command line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.image.image import load
from imagetool.layer.merge import flatten
from tests.support.command import imagetool

pytestmark = pytest.mark.root

Build = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build one RUN step on busybox: build(command, *options)."""
    root, context = tmp_path / "store", tmp_path / "context"
    context.mkdir()
    imagetool("base", "busybox", root=root)

    def run(command: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        (context / "Dockerfile").write_text(f"FROM busybox\nRUN {command}\n")
        return imagetool("build", "-t", "x", "--progress", "plain", *options, context, root=root, check=check)

    return run


def failure(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    return done.stderr


def test_a_step_that_meets_a_limit_says_which(build: Build) -> None:
    hungry = "dd if=/dev/zero of=/dev/shm/x bs=1M count=100"
    limits = ("--memory", "16m", "--shm-size", "200m")
    assert "it met its memory limit of 16.0 MiB, using 16.0 MiB" in failure(build(hungry, *limits, check=False))
    late = failure(build("sleep 60", "--timeout", "0.5", check=False))
    assert re.search(r"it met its time limit of 0\.5 seconds, using \d+\.\d MiB of memory at most", late)
    many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait"
    assert "it met its limit of 5 processes" in failure(build(many, "--pids-limit", "5", check=False))


def test_limits_are_in_force(build: Build) -> None:
    done = build(
        "ulimit -n; grep Cpus_allowed_list /proc/self/status", "--ulimit", "nofile=77:88", "--cpuset-cpus", "0"
    )
    assert "77" in done.stderr
    assert "Cpus_allowed_list:\t0" in done.stderr


def test_what_a_step_used_is_told_when_asked(build: Build) -> None:
    done = build("dd if=/dev/zero of=/x bs=1M count=3", "--stats")
    assert "s of CPU time, " in done.stderr
    assert "and wrote 3." in done.stderr
    assert "CPU time" not in build("true").stderr


def test_capabilities_and_system_calls(build: Build) -> None:
    assert "Operation not permitted" in failure(build("unshare -U true", check=False))
    build("unshare -U true", "--security-opt", "seccomp=unconfined")
    assert failure(build("chown 5 /tmp", "--cap-drop", "chown", check=False))
    build("chown 5 /tmp", "--cap-drop", "all", "--cap-add", "chown")


@pytest.mark.parametrize(
    ("options", "there"),
    [
        ((), "0"),
        (("--userns", "auto"), "0"),
        (("--security-opt", "no-new-privileges"), "1"),
        (("--userns", "host"), "1"),
        (("--userns", "host", "--security-opt", "no-new-privileges=false"), "0"),
        (("--cap-add", "net_raw"), "0"),
    ],
)
def test_setuid_programs_give_nothing_where_root_is_that_of_the_host(
    build: Build, options: tuple[str, ...], there: str
) -> None:
    assert f"NoNewPrivs:\t{there}" in build("grep NoNewPrivs /proc/self/status", *options).stderr


def test_root_of_a_step_is_nobody_outside_and_the_image_is_the_same(build: Build) -> None:
    owners = "chown -R 7:8 /a && chown 2000000000 /a/d && chmod 4755 /a/b/c"
    script = f"mkdir -p /a/b && touch /a/b/c /a/d && {owners} && rm -r /home; cat /proc/self/uid_map"
    done = build(script, "--no-cache")
    assert "0 1879048192   16777216" in done.stderr
    assert build(script, "--userns", "auto", "--no-cache").stdout == done.stdout
    host = build(script, "--userns", "host", "--no-cache")
    assert host.stdout == done.stdout
    assert "0          0 4294967295" in host.stderr
    assert "0          0 4294967295" in build(script, "--cap-add", "net_raw", "--no-cache").stderr


def test_names_of_the_network_are_seen_and_never_committed(build: Build, tmp_path: Path) -> None:
    done = build("cat /etc/hosts /etc/resolv.conf", "--add-host", "db.test:192.0.2.9", "--dns", "198.51.100.7")
    assert "192.0.2.9\tdb.test" in done.stderr
    assert "nameserver 198.51.100.7" in done.stderr
    with opened("x", Workplace(tmp_path / "store")) as (store, descriptor):
        last = load(store, descriptor).openers()[-1:]
        assert [entry.name for entry, _ in flatten(last) if entry.name != b"."] == []


@pytest.mark.parametrize(
    "options",
    [
        ("--memory", "lots"),
        ("--ulimit", "nofile"),
        ("--cap-add", "everything"),
        ("--security-opt", "label=disable"),
        ("--add-host", "x"),
        ("--dns", "here"),
        ("--timeout", "soon"),
    ],
)
def test_what_is_misspelt_is_a_usage_error_before_anything_is_done(build: Build, options: tuple[str, str]) -> None:
    done = build("true", *options, check=False)
    assert done.returncode == 2
    assert options[0] in done.stderr
    assert "Traceback" not in done.stderr
