"""What is shown while something happens: on a terminal, in logs, and to programs."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagetool.cli import display as displays
from imagetool.cli.display import display
from imagetool.progress import (
    BlobAdvanced,
    BlobFinished,
    BlobStarted,
    Event,
    Note,
    PhaseAdvanced,
    PhaseFinished,
    PhaseStarted,
    StepFinished,
    StepOutput,
    StepStarted,
)

_DIGEST = "sha256:" + "a" * 64
_EVENTS: list[Event] = [
    Note("take care", "warning"),
    StepStarted(1, 2, "RUN make\nmore", "stage-0"),
    StepOutput(1, 1, b"one\ntw"),
    StepOutput(1, 1, b"o\n\x1b[31mred"),
    StepFinished(1, False, _DIGEST, 1.5),
    StepStarted(2, 2, "COPY a b", "stage-0"),
    StepFinished(2, True, _DIGEST, 0.0),
    BlobStarted(_DIGEST, 1000, "layer", "push"),
    BlobAdvanced(_DIGEST, 1000),
    BlobFinished(_DIGEST, "mounted"),
]
_LINES = [
    "warning: take care",
    "STEP 1/2: [stage-0] RUN make",
    "  one",
    "  two",
    "  \\x1b[31mred",
    f"--> {_DIGEST} (1.50s)",
    "STEP 2/2: [stage-0] COPY a b",
    f"--> Using cache {_DIGEST}",
    "sha256:aaaaaaaaaaaa  mounted  1.0 kB",
]


def _shown(mode: str, events: list[Event], monkeypatch: pytest.MonkeyPatch, *, pause: float = 0) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with display(mode) as observer:
        for event in events:
            observer(event)
        time.sleep(pause)
    return stream.getvalue()


def test_a_log_has_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown("plain", _EVENTS, monkeypatch).splitlines() == _LINES
    assert _shown("auto", _EVENTS, monkeypatch).splitlines() == _LINES  # not a terminal
    assert _shown("quiet", _EVENTS, monkeypatch) == ""


def test_programs_get_an_object_a_line_with_the_documented_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[Event] = [PhaseStarted("p"), PhaseAdvanced("p", 1), PhaseFinished("p")]
    found = [json.loads(line) for line in _shown("json", _EVENTS + phases, monkeypatch).splitlines()]
    documented = (Path(__file__).parents[2] / "docs/progress.md").read_text()
    for event in found:
        assert f"`{event.pop('event')}`" in documented
        assert isinstance(event.pop("time"), float)
        assert all(f"`{name}`" in documented for name in event)
    assert found[2] == {"number": 1, "stream": 1, "data": "one\ntw"}


def test_a_log_says_every_ten_seconds_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "_LINE_SECONDS", 0.05)
    monkeypatch.setattr(displays, "_QUIET_SECONDS", 0.02)
    monkeypatch.setattr(displays._Log, "period", 0.02)
    events: list[Event] = [BlobStarted(_DIGEST, 4_000_000, "layer", "pull"), BlobAdvanced(_DIGEST, 1_000_000)]
    events += [PhaseStarted("unpacking to x"), StepStarted(1, 1, "RUN sleep", "s")]
    lines = _shown("plain", events, monkeypatch, pause=1.0).splitlines()
    assert "unpacking to x …" in lines
    assert any(line.startswith("1 blobs: 1.0 MB of 4.0 MB, ") and "/s  ETA " in line for line in lines)
    assert any(line.startswith("[1/1] RUN sleep … ") for line in lines)


def test_a_terminal_shows_what_moves_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "_QUIET_SECONDS", 0.0)
    events: list[Event] = [StepStarted(3, 7, "RUN  make   all", "s")]
    events += [BlobStarted(_DIGEST, 4_000_000, "layer", "pull"), BlobAdvanced(_DIGEST, 1_000_000)]
    text = _shown("tty", events, monkeypatch, pause=0.6)
    assert "[3/7] RUN make all  0s" in text
    assert "[=====>              ]    1.0 MB / 4.0 MB" in text
    assert text.endswith("\r\x1b[2A\x1b[J")  # both lines that moved are erased
    lines = _shown("tty", _EVENTS, monkeypatch).replace("\x1b[2m", "")
    assert [line.rpartition("\x1b[J")[2] for line in lines.splitlines()][: len(_LINES)] == _LINES


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True)],
    ids=str,
)
def test_colours_are_for_terminals_and_as_the_environment_says(
    environment: dict[str, str], colored: bool, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    cleaned = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    main, other = pty.openpty()
    command = [sys.executable, "-m", "imagetool", "--root", str(tmp_path / "root"), "build", str(tmp_path)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=other, env={"TERM": "xterm", **cleaned, **environment}, check=True
    )
    os.close(other)
    shown = os.read(main, 65536).decode()
    os.close(main)
    assert ("\x1b[1mSTEP 1/2" in shown) == colored
    assert "STEP 2/2: [stage-0] COPY Dockerfile /" in shown
    assert done.stdout.startswith(b"sha256:")
    assert done.stdout.count(b"\n") == 1
