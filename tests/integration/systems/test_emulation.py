"""RUN and run for another architecture: by qemu-user, registered in our own user namespace; else a clear error."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.oci.platform import Platform
from imagetool.runtime.emulation import emulators
from tests.support.command import imagetool
from tests.support.programs import arm64_program
from tests.support.users import NOBODY, as_user, users_folder

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the foreign architecture here is arm64"),
]
DOCKERFILE = 'FROM scratch\nCOPY hello /hello\nRUN ["/hello"]\nCMD ["/hello"]\n'


def _context(folder: Path, status: int = 0) -> Path:
    folder.mkdir()
    (folder / "hello").write_bytes(arm64_program(b"hello from arm64\n", status))
    (folder / "hello").chmod(0o755)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


def _entries() -> list[str]:
    return sorted(os.listdir("/proc/sys/fs/binfmt_misc"))


@pytest.mark.peer
def test_an_ordinary_user_builds_and_runs_for_another_architecture() -> None:
    if not shutil.which("qemu-aarch64-static"):
        pytest.skip("needs qemu-user-static")
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        pytest.skip("needs Linux 6.7: before it there is one binfmt_misc for all")
    before = _entries()
    with users_folder() as folder:
        context = _context(folder / "context")
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(folder)], check=True)
        program = [sys.executable, "-m", "imagetool", "--root", folder / "store"]
        options = ["--platform", "linux/arm64", "--network", "none", "-t", "hello"]
        built = as_user([*program, "build", *options, context], folder=folder, subordinate=True)
        assert built.returncode == 0, built.stderr
        assert "hello from arm64" in built.stderr
        ran = as_user([*program, "run", "--platform", "linux/arm64", "hello"], folder=folder, subordinate=True)
        assert (ran.returncode, ran.stdout) == (0, "hello from arm64\n"), ran.stderr
    assert _entries() == before, "the host's entries are as they were"


@pytest.mark.peer
def test_root_needs_no_entries_of_the_host(tmp_path: Path) -> None:
    """Each container registers the emulator in its own user namespace, also the second one of a build."""
    if not shutil.which("qemu-aarch64-static"):
        pytest.skip("needs qemu-user-static")
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        pytest.skip("needs Linux 6.7: before it there is one binfmt_misc for all")
    before = _entries()
    context, root = _context(tmp_path / "context"), tmp_path / "store"
    (context / "Dockerfile").write_text(DOCKERFILE.replace("CMD", 'RUN ["/hello"]\nRUN --network=none ["/hello"]\nCMD'))
    options = ["--platform", "linux/arm64", "-t", "hello"]
    built = imagetool("build", *options, "--no-cache", "--progress", "plain", context, root=root)
    assert built.stderr.count("  hello from arm64") == 3
    ran = imagetool("run", "--platform", "linux/arm64", "hello", root=root)
    assert ran.stdout == "hello from arm64\n"
    assert _entries() == before, "the host's entries are as they were"
    if "arm64" not in emulators(Platform()):
        refused = imagetool("build", *options, "--no-cache", "--userns", "host", context, root=root, check=False)
        assert refused.returncode == 9
        assert "with --userns auto" in refused.stderr
        found = json.loads(imagetool("doctor", "--json", root=root).stdout)["findings"]
        assert next(one for one in found if one["name"] == "emulation")["state"] == "ok"


def test_without_an_emulator_the_error_names_what_to_install(tmp_path: Path) -> None:
    if "arm64" in emulators(Platform()):
        done = imagetool("build", "--platform", "linux/arm64", _context(tmp_path / "c"), root=tmp_path / "store")
        assert "hello from arm64" in done.stderr
        return
    context = _context(tmp_path / "context")
    options = ["--platform", "linux/arm64", "--userns", "host"]
    done = imagetool("build", *options, context, root=tmp_path / "store", check=False)
    assert done.returncode == 9
    assert "programs for linux/arm64 do not run on this amd64 machine" in done.stderr
    assert "apt-get install qemu-user-static binfmt-support" in done.stderr


def test_without_run_no_emulator_is_needed(tmp_path: Path) -> None:
    context = _context(tmp_path / "context")
    (context / "Dockerfile").write_text('FROM scratch\nCOPY hello /hello\nCMD ["/hello"]\n')
    imagetool("build", "--platform", "linux/arm64", "-t", "hello", context, root=tmp_path / "store")
