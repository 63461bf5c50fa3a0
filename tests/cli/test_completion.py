"""Completion: what is offered, and that the shells' scripts hand it on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagetool.cli.app import run
from imagetool.cli.commands import all_commands
from imagetool.cli.completion import FILES, candidates


def _words(*words: str) -> list[str]:
    return [word for word, _ in candidates(words)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds app:1 and apple:2."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    store = folder / "root"
    assert run(["build", "-q", "--root", str(store), "-t", "app:1", "-t", "apple:2", str(folder)]) == 0
    return store


def test_commands_are_offered_those_of_other_packages_too() -> None:
    assert set(_words("")) >= {*all_commands(), "registry"}
    assert _words("ins") == ["inspect"]
    assert _words("registry", "se") == ["serve"]
    assert "--listen" in _words("registry", "serve", "--l")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["build", "--progress", ""], ["auto", "tty", "plain", "json", "quiet"]),
        (["build", "--progress=p"], ["--progress=plain"]),
        (["build", "--metad"], ["--metadata-file"]),
        (["--no-t"], ["--no-tls-verify"]),
        (["build", "--output", "type=l"], ["type=local,dest="]),
        (["completion", "z"], ["zsh"]),
        (["completion", "zsh", ""], []),
        (["build", "--", "--pro"], [":files"]),
        (["nothing", ""], []),
    ],
)
def test_options_and_their_values_are_offered(words: list[str], expected: list[str]) -> None:
    assert _words(*words) == expected


@pytest.mark.parametrize("words", [["build", ""], ["build", "-f", "x"], ["inspect", "oci:/tmp/"], ["--root", ""]])
def test_paths_are_left_to_the_shell(words: list[str]) -> None:
    assert candidates(words) == FILES


def test_images_of_the_store_are_offered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _words("--root", str(root), "inspect", "app") == ["app:1", "apple:2"]
    monkeypatch.setenv("IMAGETOOL_ROOT", str(root))
    assert _words("inspect", "appl") == ["apple:2"]
    assert _words("rmi", "app:1", "appl") == ["apple:2"]
    assert "docker://" in _words("copy", "app:1", "")
    (root / "layout/index.json").rename(root / "layout/aside")
    assert "docker://" in _words("inspect", "")  # no store is no error
    (root / "layout/aside").rename(root / "layout/index.json")


def test_working_containers_are_offered(root: Path) -> None:
    assert run(["from", "--root", str(root), "--name", "apparatus", "app:1"]) == 0
    assert _words("--root", str(root), "commit", "app") == ["apparatus"]
    assert _words("--root", str(root), "run", "app") == ["apparatus", "app:1", "apple:2"]
    assert run(["rm", "--root", str(root), "apparatus"]) == 0
    assert _words("--root", str(root), "umount", "app") == []


def _environment(root: Path, tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "bin/imagetool"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m imagetool "$@"\n')
    program.chmod(0o755)
    repository = str(Path(__file__).parents[2])
    path = f"{program.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "IMAGETOOL_ROOT": str(root), "PYTHONPATH": repository}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("imagetool comp", ["completion"]),
        ("imagetool inspect app", ["app:1", "apple:2"]),
        ("imagetool inspect app:", ["1"]),  # bash replaces what is after the colon
        ("imagetool build --progress=q", ["quiet"]),
        ("imagetool build --progress ", ["auto", "tty", "plain", "json", "quiet"]),
        ("imagetool copy app:1 oci:lay", ["layout"]),
        ("imagetool build -f Dock", ["Dockerfile"]),
    ],
)
def test_bash_completes(line: str, expected: list[str], root: Path, tmp_path: Path) -> None:
    script = (
        'source <(imagetool completion bash); COMP_LINE="$1"; COMP_POINT=${#1};'
        '$(complete -p imagetool | sed -E "s/.*-F ([^ ]+).*/\\1/"); printf "%s\\n" "${COMPREPLY[@]}"'
    )
    (tmp_path / "Dockerfile").touch()
    (tmp_path / "layout").mkdir()
    environment = _environment(root, tmp_path)
    command = ["bash", "-c", script, "bash", line]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.peer
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_right_for_their_shells(shell: str, root: Path, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        if shell == "bash":
            pytest.fail("bash is missing")
        pytest.skip(f"{shell} is not installed")
    environment = _environment(root, tmp_path)
    script = subprocess.run(
        ["imagetool", "completion", shell], capture_output=True, text=True, env=environment, check=True
    )
    checked = subprocess.run([program, "-n"], input=script.stdout, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
