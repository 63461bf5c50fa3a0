"""The page of a build's timeline: it is whole, harmless whatever is in it, and right about what took the time."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imagetool.build.secrets import Secrets
from imagetool.cli.buildoptions import redacting
from imagetool.cli.timeline import Timeline
from imagetool.cli.timelinepage import drawn, page
from imagetool.errors import StepFailed, StorageError
from imagetool.progress import (
    BlobFinished,
    BlobStarted,
    BuildPlanned,
    Event,
    Note,
    PhaseFinished,
    PhaseStarted,
    PlannedStep,
    StepAborted,
    StepFinished,
    StepMeasured,
    StepOutput,
    StepStarted,
)
from tests.support.bases import store_with
from tests.support.command import imagetool

_DIGEST = "sha256:" + "a" * 64
_EVIL = "</script></style><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload=x \x1b[31m &amp;"
_TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body header main section footer h1 h2 h3 p ul li span b small code pre i a div "
        "table caption thead tbody tr th td details summary dl dt dd time",
    )
)


class Page(HTMLParser):
    """Reads a page strictly: known tags, closed in order, and nothing that loads or runs anything."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.ids: set[str] = set()
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "data"), name
            if name == "href":
                assert value is not None
                assert value.startswith("#")
                self.links.append(value[1:])
            if name == "style":
                assert re.fullmatch(r"(left:[\d.]+%;?)?(width:[\d.]+%)?|--tick:[\d.]+%", value or ""), value
            if name == "id":
                assert value not in self.ids
                self.ids.add(str(value))
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        else:
            self.text += data


def _read(text: str) -> Page:
    read = Page(text)
    assert set(read.links) <= read.ids
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text
    return read


def _gathered(events: list[Event], *, at: dict[int, float] | None = None) -> Timeline:
    """Return the timeline of events; `at` says when the steps began, in seconds."""
    timeline = Timeline()
    for event in events:
        timeline(event)
    for number, start in (at or {}).items():
        timeline.parts[-1].steps[number].start = start
    return timeline


def _plan(*steps: tuple[str, str, tuple[int, ...]]) -> BuildPlanned:
    planned = (PlannedStep(number, stage, name, needs) for number, (stage, name, needs) in enumerate(steps, 1))
    return BuildPlanned("linux/amd64", len(steps), tuple(planned))


def _done(number: int, seconds: float, *, cached: bool = False, layer: str = _DIGEST) -> list[Event]:
    return [StepStarted(number, 9, f"RUN {number}", "s"), StepFinished(number, cached, layer, seconds, 10, "k")]


def test_the_critical_path_is_the_longest_way_through_what_waits_for_what() -> None:
    plan = _plan(
        ("base", "FROM a", ()),
        ("base", "RUN b", (1,)),
        ("slow", "FROM base", (2,)),
        ("slow", "RUN c", (3,)),
        ("fast", "FROM base", (2,)),
        ("fast", "RUN d", (5,)),
        ("final", "FROM x", ()),
        ("final", "COPY --from=fast", (6, 7)),
        ("final", "COPY --from=slow", (4, 8)),
    )
    spent = [0.1, 1.0, 0.1, 3.0, 0.1, 4.0, 0.1, 0.2, 0.2]
    began = {1: 0.0, 2: 0.1, 3: 1.1, 4: 1.2, 5: 1.1, 6: 1.2, 7: 0.0, 8: 5.2, 9: 5.4}
    timeline = _gathered(
        [plan, *(one for number, took in enumerate(spent, 1) for one in _done(number, took))], at=began
    )
    (part,) = timeline.parts
    assert [step.number for step in part.critical] == [1, 2, 5, 6, 8, 9]
    assert part.slowest is not None
    assert part.slowest.number == 6
    timeline.total = 5.6
    text = page(timeline, "x", "", str)
    assert re.search(r'class="bar done critical slowest" href="#step-1-6".*?★ 6 RUN 6<', text)
    assert re.search(r'class="bar done" href="#step-1-4" .*?style="left:21.429%;width:53.571%"', text)
    assert "steps 1 → 2 → 5 → 6 → 8 → 9" in _read(text).text


def test_hostile_texts_stay_texts() -> None:
    events: list[Event] = [
        BuildPlanned(_EVIL, 2, (PlannedStep(1, _EVIL, _EVIL, ()), PlannedStep(2, _EVIL, _EVIL, (1,)))),
        StepStarted(1, 2, _EVIL, _EVIL),
        StepOutput(1, 1, _EVIL.encode() + b"\xff"),
        StepMeasured(1, 1.5, 1000, 10),
        StepFinished(1, False, _EVIL, 1.0, 5, _EVIL),
        StepStarted(2, 2, _EVIL, _EVIL),
        StepAborted(2, _EVIL, 0.5),
        BlobStarted(_EVIL, 5, _EVIL, "pull"),
        BlobFinished(_EVIL, "done"),
        PhaseStarted(_EVIL),
        PhaseFinished(_EVIL),
        Note(_EVIL, "warning"),
    ]
    timeline = _gathered(events)
    timeline.built(_EVIL)
    text = page(timeline, _EVIL, _EVIL, str)
    shown = _read(text).text
    assert shown.count("<script>alert(1)</script>") > 10
    assert "\x1b" not in text


def test_secrets_are_in_no_text() -> None:
    redact = redacting(Secrets({"id": b"hunter2-and-more", "other": b"<&quote>"}))
    name = "RUN echo hunter2-and-more aHVudGVyMi1hbmQtbW9yZQ== <&quote>"
    events: list[Event] = [
        BuildPlanned("hunter2-and-more", 1, (PlannedStep(1, "hunter2-and-more", name, ()),)),
        StepStarted(1, 1, name, "hunter2-and-more"),
        StepOutput(1, 1, b"hunter2-and-more"),
        StepFinished(1, False, "hunter2-and-more", 1.0, 5, "hunter2-and-more"),
        PhaseStarted("hunter2-and-more"),
        Note("hunter2-and-more"),
    ]
    timeline = _gathered(events)
    timeline.built("hunter2-and-more")
    text = page(timeline, "hunter2-and-more", name, redact)
    for secret in ("hunter2", "aHVudGVyMi1hbmQtbW9yZQ", "<&quote>", html.escape("<&quote>")):
        assert secret not in text
    assert "[redacted]" in _read(text).text


def test_what_failed_is_told_in_a_page_that_is_there_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    error = StepFailed("it broke", status=1)
    error.add_note("at Dockerfile:3")
    with pytest.raises(StepFailed), drawn(str(path), "x", str):
        raise error
    shown = _read(path.read_text()).text
    assert ("x failed" in shown, "it broke\nat Dockerfile:3" in shown) == (True, True)
    with pytest.raises(KeyboardInterrupt), drawn(str(path), "x", str):
        raise KeyboardInterrupt
    assert "interrupted" in path.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_a_page_that_cannot_be_written_hides_no_failure_and_is_one_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere/page.html")
    with pytest.raises(StepFailed, match="it broke") as failed, drawn(path, "x", str):
        raise StepFailed("it broke", status=1)
    assert failed.value.__notes__[0].startswith("--timeline: cannot write")
    with pytest.raises(StorageError, match="cannot write"), drawn(path, "x", str):
        pass


def _context(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("content\n")
    (folder / "Dockerfile").write_text(text)
    return folder


def test_builds_of_all_kinds_have_a_page(tmp_path: Path) -> None:
    root, path = tmp_path / "root", tmp_path / "page.html"
    context = _context(
        tmp_path / "context",
        "FROM scratch AS a\nCOPY file /\nLABEL a='</script><script>alert(1)</script><img src=x onerror=alert(2)>'\n"
        "COPY <<EOF /b\nheredoc </script>\nEOF\n"
        "FROM scratch\nCOPY --from=a /file /\n",
    )
    for state, *args in (
        ("built", "-t", "app:1"),
        ("built", "-t", "app:1", "--explain-cache"),
        ("built", "--platform", "linux/amd64,linux/arm64"),
    ):
        done = imagetool("build", "--timeline", path, *args, context, root=root)
        shown = _read(path.read_text())
        assert state in shown.text
        assert done.stdout.strip() in shown.text
        assert "heredoc </script>" in shown.text
    assert "linux/arm64" in shown.text
    import time

    time.sleep(2.1)  # files younger than that are not trusted
    for state in ("built", "unchanged"):
        done = imagetool("build", "--timeline", path, "-t", "app:2", context, root=root)
        shown = _read(path.read_text())
        assert (f"app:2 {state}" in shown.text, done.stdout.strip() in shown.text) == (True, True)
    _context(context, "FROM scratch\nCOPY file /\nCOPY nothing /\n")
    assert imagetool("build", "--timeline", path, context, root=root, check=False).returncode == 1
    shown = _read(path.read_text())
    assert ("✕ failed" in shown.text, "'nothing' not found" in shown.text, "✓ cached" in shown.text) == (True,) * 3


@pytest.mark.root
def test_a_step_that_is_run_has_its_output_and_usage_and_no_secret(tmp_path: Path, busybox_base: Path) -> None:
    context = _context(
        tmp_path / "context",
        "FROM busybox\n"
        "RUN --mount=type=secret,id=s echo '</script>'; cat /run/secrets/s; base64 /run/secrets/s; exit 5\n",
    )
    (tmp_path / "secret").write_text("the-very-secret-of-the-house")
    path = tmp_path / "page.html"
    args = ["--secret", f"id=s,src={tmp_path / 'secret'}", "--timeline", path, context]
    root = store_with(busybox_base, tmp_path)
    assert imagetool("build", *args, root=root, check=False).returncode == 1
    text = path.read_text()
    assert "very-secret" not in text
    assert "dGhlLXZlcnktc2VjcmV0" not in text
    shown = _read(text).text
    assert "[redacted]" in shown
    assert "CPU of steps" in shown or "Memory" in shown
    assert "</script>" in shown
