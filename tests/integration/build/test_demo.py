"""`make demo` for root, for ordinary users, and where it cannot work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.users import CHECKOUT, as_user, users_folder

pytestmark = pytest.mark.root

_EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}


def _as_root(folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "fixtures/demo/run.sh"],
        cwd=CHECKOUT,
        env={**os.environ, **_EPOCH, "PATH": path, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def _digest(done: subprocess.CompletedProcess[str]) -> str:
    """Return the digest that the demo pushed, after checking that it went well."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("== done")
    assert "files, all the same" in done.stdout
    pushed = re.search(r"== push\n(sha256:[0-9a-f]{64})\n", done.stdout)
    assert pushed, done.stdout
    return pushed[1]


def test_the_demo_makes_the_same_image_for_root_and_for_ordinary_users(tmp_path: Path) -> None:
    digest = _digest(_as_root(tmp_path))
    assert os.listdir(tmp_path) == []
    for subordinate in (False, True):
        with users_folder() as folder:
            done = as_user(["bash", "fixtures/demo/run.sh"], folder=folder, subordinate=subordinate, env=_EPOCH)
            assert _digest(done) == digest
            assert ("all files will belong to root" in done.stderr) is not subordinate
            assert set(os.listdir(folder)) <= {"subids"}, "the demo left something behind"


def test_the_demo_says_in_one_line_that_user_namespaces_are_missing() -> None:
    with users_folder() as folder:
        done = as_user(["bash", "fixtures/demo/run.sh"], folder=folder, namespaces=False)
    assert done.returncode == 9
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "max_user_namespaces is 0" in done.stderr
    assert "sysctl user.max_user_namespaces=" in done.stderr


def test_a_build_says_the_same() -> None:
    with users_folder() as folder:
        context = folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        command = [sys.executable, "-m", "imagetool", "--root", folder / "store", "build", context]
        done = as_user(command, folder=folder, namespaces=False)
        assert done.returncode == 0, "COPY needs no container"
        (context / "Dockerfile").write_text("FROM scratch\nRUN true\n")
        done = as_user(command, folder=folder, namespaces=False)
        assert (done.returncode, done.stderr.count("\n")) == (9, 1), done.stderr
        assert "max_user_namespaces is 0" in done.stderr
