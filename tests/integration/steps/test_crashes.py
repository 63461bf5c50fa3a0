"""Working containers and what is killed, and several commands at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.steps.conftest import Shop

pytestmark = pytest.mark.root


def start(shop: Shop, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "imagetool", "--root", str(shop.root), *args]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def begun(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "begun\n", process.communicate()


def test_a_run_that_is_killed_has_not_happened_and_the_next_one_works(shop: Shop) -> None:
    name = shop.do("from", "busybox")
    shop.do("run", name, "sh", "-c", "echo one > /one")
    process = start(shop, "run", name, "sh", "-c", "echo two > /two; rm /one; echo begun; sleep 1000")
    begun(process)
    process.kill()
    process.communicate()
    assert shop.do("run", name, "sh", "-c", "cat /one; ls /two 2>/dev/null || echo none").split() == ["one", "none"]
    assert [path.name for path in (shop.root / "snapshots").iterdir() if path.name.startswith("new-")] == []


def test_a_signal_is_the_commands_and_what_it_did_until_then_stays(shop: Shop) -> None:
    name = shop.do("from", "busybox")
    process = start(shop, "run", name, "sh", "-c", "trap 'exit 5' TERM; echo two > /two; echo begun; sleep 1000 & wait")
    begun(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 5
    process.communicate()
    assert shop.do("run", name, "cat", "/two") == "two"


def test_containers_do_not_wait_for_each_other_but_steps_of_one_do(shop: Shop, tmp_path: Path) -> None:
    name, other = shop.do("from", "busybox"), shop.do("from", "busybox")
    (tmp_path / "gate").mkdir()
    script = "echo begun; until [ -e /gate/open ]; do sleep 0.1; done; echo first > /step"
    first = start(shop, "run", "-v", f"{tmp_path}/gate:/gate", name, "sh", "-c", script)
    begun(first)
    assert shop.do("run", other, "echo", "free") == "free"
    second = start(shop, "run", name, "cat", "/step")
    assert second.stderr is not None
    assert "waiting for the container busybox-working-container" in second.stderr.readline()
    assert second.poll() is None
    (tmp_path / "gate/open").touch()
    assert second.communicate(timeout=90)[0] == "first\n"
    first.communicate(timeout=90)
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_container_that_is_removed_while_somebody_waits_for_it_is_not_there(shop: Shop, tmp_path: Path) -> None:
    name = shop.do("from", "busybox")
    (tmp_path / "gate").mkdir()
    script = "echo begun; until [ -e /gate/open ]; do sleep 0.1; done"
    first = start(shop, "run", "-v", f"{tmp_path}/gate:/gate", name, "sh", "-c", script)
    begun(first)
    waiting = [start(shop, "rm", name), start(shop, "rm", name)]
    for process in waiting:
        assert process.stderr is not None
        assert "waiting" in process.stderr.readline()
    (tmp_path / "gate/open").touch()
    assert sorted(process.wait(90) for process in waiting) == [0, 3]
    for process in (first, *waiting):
        process.communicate()
    assert shop.do("containers", "-q") == ""


def test_all_at_once_get_names_and_identities_of_their_own(shop: Shop) -> None:
    processes = [start(shop, "from", "busybox") for _ in range(4)]
    names = sorted(process.communicate(timeout=90)[0].strip() for process in processes)
    stem = "busybox-working-container"
    assert names == [stem, f"{stem}-1", f"{stem}-2", f"{stem}-3"]
    assert len(set(shop.do("containers", "-q").split())) == 4
