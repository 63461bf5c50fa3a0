"""Files without an end, as devices and pipes are: each is refused with one error after a bounded part of it."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool import limits
from imagetool.api import Workplace, opened
from imagetool.errors import LimitExceeded
from imagetool.layer.tarreader import read
from imagetool.transports.archivefile import image_archive

_PATIENCE = 120.0  # seconds; each takes one or two here, and what reads on takes minutes


def _imagetool(tmp_path: Path, *args: str, stdin: str = os.devnull) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imagetool", "--root", str(tmp_path / "root"), *args]
    with open(stdin, "rb") as file:
        return subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=_PATIENCE, check=False)


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "aci"])
def test_an_archive_of_nothing_but_zeros_is_an_empty_one_with_too_much_behind_it(tmp_path: Path, kind: str) -> None:
    done = _imagetool(tmp_path, "inspect", f"{kind}:/dev/zero")
    assert done.returncode == LimitExceeded.exit_code, done.stderr
    assert "/dev/zero: more follows the end of the archive than the limit tar-trailing-bytes=1073741824" in done.stderr
    assert "tar-trailing-bytes" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "root/scratch").iterdir()) == []


def test_a_build_context_of_nothing_but_zeros_is_refused(tmp_path: Path) -> None:
    done = _imagetool(tmp_path, "build", "-", stdin="/dev/zero")
    assert done.returncode == LimitExceeded.exit_code, done.stderr
    assert "stdin: more follows the end of the archive than the limit tar-trailing-bytes=1073741824" in done.stderr


@pytest.mark.parametrize("args", [("--env-file", "/dev/zero"), ("--security-opt", "seccomp=/dev/zero")], ids="".join)
def test_what_options_name_is_not_read_without_end(tmp_path: Path, args: tuple[str, str]) -> None:
    done = _imagetool(tmp_path, "run", *args, "no-image")
    assert done.returncode in (2, LimitExceeded.exit_code), done.stderr
    assert "/dev/zero" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipe_that_never_ends_is_left_when_the_archive_has_too_many_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ARCHIVE_ENTRIES", 100)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=_feed, args=(pipe, _entries()), daemon=True)
    writer.start()
    with (
        pytest.raises(LimitExceeded, match="archive-entries"),
        opened(f"oci-archive:{pipe}", Workplace(tmp_path / "r")),
    ):
        pass
    writer.join(_PATIENCE)
    assert not writer.is_alive()


def _feed(pipe: Path, chunks: Iterator[bytes]) -> None:
    try:
        with open(pipe, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
    except BrokenPipeError:
        pass


def _entries(size: int = 0) -> Iterator[bytes]:
    for number in itertools.count():
        member = tarfile.TarInfo(f"blobs/{number}")
        member.size = size
        yield member.tobuf()
        yield bytes(size)


def test_an_archive_that_would_unpack_to_too_much_is_refused_before_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "ARCHIVE_BYTES", 4096)
    given: list[bytes] = []

    def take() -> None:
        for entry, content in image_archive(_entries(1024), where="archive"):
            assert sum(map(len, content)) == 1024
            given.append(entry.name)

    with pytest.raises(LimitExceeded, match="archive: unpacks to more than the limit archive-bytes=4096"):
        take()
    assert len(given) == 4


@pytest.mark.parametrize("marker", [512, 1024])
def test_what_follows_the_end_of_an_archive_is_read_to_its_end_and_no_further_than_the_limit(
    monkeypatch: pytest.MonkeyPatch, marker: int
) -> None:
    monkeypatch.setattr(limits, "TAR_TRAILING_BYTES", 8192)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    whole = file.getvalue()[:512] + bytes(marker)
    passed = 0

    def chunks(count: int) -> Iterator[bytes]:
        nonlocal passed
        yield whole
        for _ in range(count):
            passed += 1
            yield b"x" * 4096

    assert [entry.name for entry, _ in read(chunks(2), where="layer")] == [b"a"]
    assert passed == 2
    with pytest.raises(LimitExceeded, match="layer: more follows the end of the archive than the limit"):
        list(read(chunks(1 << 30), where="layer"))
    assert passed == 5
