"""The cost of starting: `--version` imports nothing heavy and takes next to no CPU."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.cli.app import run


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['imagetool', '--version']; from imagetool.__main__ import main; main();"
        "print(*sorted({'requests', 'rich', 'cryptography', 'typer', 'granian', 'zstandard'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[1:] == [""], "imported: " + out


def test_version_costs_less_than_80_ms_of_cpu() -> None:
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "imagetool", "--version"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) <= 0.080


@pytest.mark.parametrize("args", [["images"], ["verify", "nothing"], ["inspect", "nothing"], ["completion", "bash"]])
def test_a_right_command_line_starts_neither_typer_nor_the_network(args: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from imagetool.cli.app import run; code = run(sys.argv[1:]);"
        "print(*sorted({'requests', 'urllib3', 'rich', 'cryptography', 'typer', 'granian'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "--root", str(tmp_path / "root"), *args]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "", "imported: " + out


@pytest.mark.root
def test_a_build_from_the_cache_of_steps_loads_nothing_that_runs_or_unpacks(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM busybox\nRUN echo 1 > /file\n")
    root, out = str(tmp_path / "root"), str(tmp_path / "out")
    program = [sys.executable, "-m", "imagetool", "--root", root]
    subprocess.run([*program, "base", "busybox"], capture_output=True, check=True)
    args = ["--root", root, "build", "-q", "-o", f"type=oci,dest={out}", str(tmp_path / "context")]
    code = (
        "import sys; from imagetool.cli.app import run; code = run(sys.argv[1:]);"
        "unwanted = ('imagetool.runtime.executors', 'imagetool.snapshot', 'imagetool.layer.unpack', 'requests');"
        "print(*(name for name in sys.modules if name.startswith(unwanted)))"
    )
    for expected in (True, False):  # run, then cached
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
        assert ("imagetool.snapshot" in done.stdout) == expected, done.stdout
    assert done.stdout.splitlines()[-1] == ""


def test_a_build_that_changes_nothing_waits_for_no_disk_even_when_it_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nENV A=b\n")
    args = ["--root", str(tmp_path / "root"), "build", "-q", "--explain-cache", "-t", "app", str(tmp_path / "context")]
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), fsync(fd))[1])
    counts = []
    for _ in range(3):
        assert run(args) == 0
        counts.append(len(synced))
    first, _, third = capsys.readouterr().out.split()
    assert first == third
    assert counts[0] > 0
    assert counts[1:] == [counts[0]] * 2
    manifest = json.loads((tmp_path / "root/layout/index.json").read_text())["manifests"][0]["digest"].split(":")[1]
    blob = tmp_path / "root/layout/blobs/sha256" / manifest
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + b" ")  # a damaged document is written anew
    assert run(args) == 0
    assert blob.read_bytes() == whole
