"""Scratch directories: their own, gone in the end, and swept when their user was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from imagetool.content import folders
from imagetool.content.folders import scratch_folder
from tests.support.users import as_user, users_folder

CHECKOUT = Path(__file__).resolve().parents[3]


def test_it_goes_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")

    def fail() -> None:
        with scratch_folder(tmp_path / "place") as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "a/b").mkdir(parents=True)
            (folder / "a/link").symlink_to(tmp_path / "kept")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path / "place") == []
    assert (tmp_path / "kept").read_text() == "kept"


def test_what_a_killed_command_left_is_swept_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    place = tmp_path / "place"
    code = (
        "import sys, time; from pathlib import Path; from imagetool.content.folders import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder: print(folder, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        (left / "file").write_text("much")
        with scratch_folder(place) as used:
            assert left.exists()
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            with scratch_folder(place) as another:
                assert sorted(os.listdir(place)) == sorted([used.name, another.name])
    assert os.listdir(place) == []


def test_a_name_that_a_sweep_took_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another sweep may have it open still, and would remove by name what is made under it.
    lock, taken = folders._locked, []

    def after_a_sweep(folder: Path) -> int:
        if not taken:
            taken.append(folder)
            folders.sweep(tmp_path)
        return lock(folder)

    monkeypatch.setattr(folders, "_locked", after_a_sweep)
    with folders.new_folder(tmp_path) as made:
        assert made.is_dir()
        assert made not in taken
        assert not taken[0].exists()


def test_what_is_discarded_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / ".boot.0123456789abcdef").write_text("of a writer that was killed")
    folders.discard_folder(tmp_path, ".boot.0123456789abcdef")
    assert os.listdir(tmp_path) == []


def test_many_make_and_sweep_at_once(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(40):
                with scratch_folder(tmp_path) as folder:
                    (folder / "file").write_text("mine")
                    assert (folder / "file").read_text() == "mine"
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_a_user_is_rid_of_directories_nobody_may_enter() -> None:
    code = (
        "import os, sys; from pathlib import Path; from imagetool.content.folders import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "  (folder / 'a/b/c').mkdir(parents=True); (folder / 'a/out').symlink_to('/etc')\n"
        "  os.chmod(folder / 'a/b', 0); os.chmod(folder / 'a', 0o500)\n"
    )
    with users_folder() as home:
        done = as_user([sys.executable, "-c", code, str(home / "place")], folder=home)
        assert done.returncode == 0, done.stderr
        assert os.listdir(home / "place") == []
