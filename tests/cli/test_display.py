"""What is shown while something happens: on a terminal, in logs, and to programs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from imagetool.cli import display as displays
from imagetool.cli import faces
from imagetool.cli.display import display
from imagetool.errors import StepFailed
from imagetool.progress import (
    BlobAdvanced,
    BlobFinished,
    BlobStarted,
    BuildPlanned,
    Event,
    Note,
    PhaseAdvanced,
    PhaseFinished,
    PhaseStarted,
    PlannedStep,
    StepAborted,
    StepFinished,
    StepOutput,
    StepStarted,
)
from tests.support.wire import wait_for

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


_PLAN = BuildPlanned(
    "linux/amd64",
    6,
    (
        PlannedStep(1, "build", "FROM busybox AS build", ()),
        PlannedStep(
            2, "build", "RUN 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字", (1,)
        ),
        PlannedStep(3, "check", "FROM busybox AS check", ()),
        PlannedStep(4, "check", "RUN pytest", (3,)),
        PlannedStep(5, "final", "FROM busybox AS final", ()),
        PlannedStep(6, "final", "COPY --from=build /a /a", (2, 5)),
    ),
)


def _started(number: int) -> StepStarted:
    step = _PLAN.steps[number - 1]
    return StepStarted(number, _PLAN.total, step.name, step.stage)


def _underway(events: list[Event]) -> faces.Underway:
    """Return what is under way after some events."""
    shown = displays._Shown(faces.Log(io.StringIO()))
    for event in events:
        shown._take(event)
    return shown._underway


def _shown(mode: str, events: list[Event], monkeypatch: pytest.MonkeyPatch, *, until: Sequence[str] = ()) -> str:
    """Return what is shown of events; the last goes on until there is text for each of some patterns."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with display(mode) as observer:
        for event in events:
            observer(event)
        wait_for(lambda: all(re.search(pattern, stream.getvalue(), re.MULTILINE) for pattern in until))
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
    monkeypatch.setattr(faces, "_LINE_SECONDS", 0.05)
    monkeypatch.setattr(faces, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(faces.Log, "period", 0.02)
    events: list[Event] = [BlobStarted(_DIGEST, 4_000_000, "layer", "pull"), BlobAdvanced(_DIGEST, 1_000_000)]
    events += [PhaseStarted("unpacking to x"), StepStarted(1, 1, "RUN sleep", "s")]
    lines = ("^unpacking to x …$", "^1 blobs: 1.0 MB of 4.0 MB, .*/s  ETA ", r"^\[1/1\] RUN sleep … ")
    _shown("plain", events, monkeypatch, until=lines)


def test_a_terminal_shows_what_moves_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "QUIET_SECONDS", 0.0)
    events: list[Event] = [StepStarted(3, 7, "RUN  make   all", "s")]
    events += [BlobStarted(_DIGEST, 4_000_000, "layer", "pull"), BlobAdvanced(_DIGEST, 1_000_000)]
    moving = (
        r"0 of 7 steps done {10,}0s\n",
        r"└─ s  RUN make all {10,}0s\n",
        re.escape("[=====>              ]    1.0 MB / 4.0 MB"),
    )
    text = _shown("tty", events, monkeypatch, until=moving)
    assert text.endswith("\r\x1b[3A\x1b[J")  # all lines that moved are erased
    lines = _shown("tty", _EVENTS, monkeypatch).replace("\x1b[2m", "")
    assert [line.rpartition("\x1b[J")[2] for line in lines.splitlines()][: len(_LINES)] == [
        line.replace(_DIGEST, _DIGEST[:19]) for line in _LINES
    ]


_PARALLEL: list[Event] = [
    _PLAN,
    *(event for number in (1, 3, 5) for event in (_started(number), StepFinished(number, number == 3, "", 0.0))),
    _started(2),
    _started(4),
]


def test_stages_side_by_side_are_a_tree_that_says_what_waits_for_what() -> None:
    screen = faces.Terminal(io.StringIO())
    underway = _underway(_PARALLEL)
    lines = [faces.fitted(line, 59) for line in screen._moving(underway, 59)]
    assert [re.sub(" {2,}", "  ", line) for line in lines] == [
        "3 of 6 steps done, 1 cached  0s",
        "├─ build  2/2 RUN 漢字漢字漢字漢字漢字漢字漢字漢字漢字…  0s",
        "├─ check  2/2 RUN pytest  0s",
        "└─ final  waits for build",
    ]
    assert all(faces.width_of(line) <= 59 for line in lines)


def test_a_terminal_that_became_narrower_is_left_clean_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    screen = faces.Terminal(stream)
    monkeypatch.setattr(faces, "terminal_size", lambda _: (60, 24))
    screen.tick(_underway(_PARALLEL))
    monkeypatch.setattr(faces, "terminal_size", lambda _: (30, 24))
    screen.end()
    assert stream.getvalue().endswith("\r\x1b[7A\x1b[J")  # three lines of 59 columns take two rows each now


def test_what_moves_is_never_higher_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(faces, "terminal_size", lambda _: (60, 4))
    faces.Terminal(stream).tick(_underway(_PARALLEL))
    assert len(stream.getvalue().splitlines()) == 2
    assert "… and 3 more lines" in stream.getvalue()


def test_a_failed_step_is_shown_with_the_line_it_did_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [StepStarted(1, 1, "RUN false", "s"), StepOutput(1, 2, b"no such"), StepAborted(1, "why", 0.25)]
    assert _shown("plain", events, monkeypatch).splitlines()[1:] == ["  no such", "--> failed (0.25s)"]


def test_quiet_tells_the_output_of_the_step_that_failed_and_of_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [_started(2), _started(4), StepOutput(2, 1, b"of the one\n"), StepOutput(4, 1, b"of the other\n")]
    with pytest.raises(StepFailed) as failed:
        _fail_quietly([*events, StepAborted(2, "", 0.1), StepAborted(4, "broken", 0.1)])
    assert failed.value.__notes__ == ["the last lines of its output:\n  of the other"]


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
    shown = _all_of(main).decode()
    assert ("\x1b[1mSTEP 1/2" in shown) == colored
    assert "STEP 2/2: [stage-0] COPY Dockerfile /" in shown
    assert done.stdout.startswith(b"sha256:")
    assert done.stdout.count(b"\n") == 1


def _all_of(terminal: int) -> bytes:
    """Return all that was written to a terminal that nobody has open any more; it may come in several pieces."""
    text = b""
    with os.fdopen(terminal, "rb", 0) as pieces, contextlib.suppress(OSError):
        while piece := pieces.read(65536):
            text += piece
    return text


def _fail_quietly(events: list[Event]) -> None:
    with display("quiet") as observer:
        for event in events:
            observer(event)
        raise StepFailed("broken", status=1)
