"""`imagetool doctor` says what is there, what will be used, and how to get what is missing; scripts can ask it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import imagetool
from tests.support.users import as_user, users_folder

pytestmark = pytest.mark.root
NAMES = {
    "system", "containers", "ids", "storage", "idmap", "limits", "seccomp", "runc", "crun", "bwrap", "systemd-nspawn",
    "lxc-execute", "network", "emulation", "clock", "certificates",
}  # fmt: skip


def findings(text: str) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in json.loads(text)["findings"]}


def test_a_host_that_can_is_healthy(tmp_path: Path) -> None:
    done = imagetool("doctor", "--json", root=tmp_path / "store")
    found = json.loads(done.stdout)
    assert found["healthy"] is True
    assert found["used"]["isolation"] == "embedded"
    assert set(findings(done.stdout)) == NAMES
    assert all(set(finding) == {"name", "state", "detail", "fix"} for finding in found["findings"])
    assert not (tmp_path / "store").exists(), "looking changes nothing"


def test_people_get_lines_with_a_fix_below_what_is_not_there(tmp_path: Path) -> None:
    done = imagetool("doctor", root=tmp_path, env={"PATH": "/no/such/place"})
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.split()[1:2] == ["crun"])
    assert lines[at].split() == ["limited", "crun", "not", "installed"]
    assert lines[at + 1].strip() == "fix: apt-get install crun, if wanted for --isolation oci"


def test_a_place_that_cannot_be_written_is_a_failure_with_a_fix() -> None:
    done = imagetool("doctor", "--json", root=Path("/proc/no-such-place"), check=False)
    assert done.returncode == 9
    storage = findings(done.stdout)["storage"]
    assert storage["state"] == "missing"
    assert "IMAGETOOL_ROOT=" in storage["fix"]


@pytest.mark.parametrize(("subordinate", "state"), [(True, "ok"), (False, "limited")])
def test_an_ordinary_user_learns_about_subordinate_ids(subordinate: bool, state: str) -> None:
    with users_folder() as folder:
        command = [sys.executable, "-m", "imagetool", "--root", folder / "store", "doctor", "--json"]
        done = as_user(command, folder=folder, subordinate=subordinate)
    assert done.returncode == 0, done.stderr
    found = findings(done.stdout)
    assert found["ids"]["state"] == state
    assert ("usermod --add-subuids" in found["ids"]["fix"]) == (not subordinate)
    assert found["containers"]["state"] == "ok"
    assert found["limits"]["state"] == "limited"
    assert "Delegate=yes" in found["limits"]["fix"]


def test_where_users_may_not_make_namespaces_the_setting_is_named() -> None:
    with users_folder() as folder:
        command = [sys.executable, "-m", "imagetool", "--root", folder / "store", "doctor", "--json"]
        done = as_user(command, folder=folder, namespaces=False)
    assert done.returncode == 9, done.stderr
    found = findings(done.stdout)["containers"]
    assert found["state"] == "missing"
    assert "max_user_namespaces" in found["fix"]
    assert json.loads(done.stdout)["used"]["isolation"].startswith("none")


def test_a_folder_of_path_that_cannot_be_looked_into_hides_no_other() -> None:
    """As after `su`, which leaves root's PATH."""
    with users_folder() as folder:
        closed, store = folder / "closed", folder / "store"
        closed.mkdir()
        path = {"PATH": f"{closed}/bin:/usr/bin:/bin"}
        closed.chmod(0)  # it stays root's
        command = [sys.executable, "-m", "imagetool", "--root", store]
        done = as_user([*command, "doctor", "--json"], folder=folder, env=path)
        assert done.returncode == 0, done.stderr
        assert set(findings(done.stdout)) == NAMES
        made = as_user([*command, "base", "busybox"], folder=folder, env=path)
        assert made.returncode == 0, made.stderr
