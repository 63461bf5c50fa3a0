"""What `--progress json` tells of real builds is as its published schema says, and steps keep their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool

_SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/progress.schema.json").read_text())
_PARALLEL = (
    "".join(f"FROM scratch AS s{n}\nCOPY file /from-{n}\nENV a=b\n" for n in range(4))
    + "FROM scratch\n"
    + "".join(f"COPY --from=s{n} /from-{n} /\n" for n in range(4))
)


def _events(stderr: str) -> list[dict[str, Any]]:
    """Return the lines as objects; each is as the schema says, and has no field that the schema does not know."""
    validator = jsonschema.Draft202012Validator(_SCHEMA)
    events = []
    for line in stderr.splitlines():
        if line.startswith(("imagetool: ", "  ", "hint: ", "at ")):  # the error, which comes last as text
            break
        event = json.loads(line)
        validator.validate(event)
        assert set(event) == set(_SCHEMA["$defs"][event["event"]]["properties"]), line
        events.append(event)
    return events


def _build(folder: Path, dockerfile: str, *args: str, root: Path | None = None, code: int = 0) -> list[dict[str, Any]]:
    context = folder / "context"
    context.mkdir(exist_ok=True)
    (context / "file").write_text("content\n")
    (context / "Dockerfile").write_text(dockerfile)
    command = ["build", "--progress", "json", *args, str(context)]
    done = imagetool(*command, root=root or folder / "root", check=False)
    assert done.returncode == code, done.stderr
    return _events(done.stderr)


def _check_whole(events: list[dict[str, Any]]) -> None:
    """Check that each planned step begins and ends once, after those that it needs."""
    plan = {step["number"]: step for event in events if event["event"] == "BuildPlanned" for step in event["steps"]}
    assert list(plan) == list(range(1, len(plan) + 1))
    ended: list[int] = []
    for event in events:
        if event["event"] == "StepStarted":
            step = plan[event["number"]]
            assert (event["name"], event["stage"], event["total"]) == (step["name"], step["stage"], len(plan))
            assert set(step["needs"]) <= set(ended)
        elif event["event"] == "StepFinished":
            ended.append(event["number"])
    assert sorted(ended) == list(plan)


def test_a_parallel_build_and_the_same_from_the_cache(tmp_path: Path) -> None:
    _check_whole(_build(tmp_path, _PARALLEL))
    again = _build(tmp_path, _PARALLEL, "--explain-cache")
    _check_whole(again)
    for event in again:
        if event["event"] == "StepFinished":
            assert (event["cached"], bool(event["key"])) == ((True, True) if event["layer"] else (False, False))
            assert (event["size"] > 0) == bool(event["layer"])


def test_a_build_that_is_answered_from_the_record(tmp_path: Path) -> None:
    import time

    _build(tmp_path, "FROM scratch\nCOPY file /\n")
    time.sleep(2.1)  # files younger than that are not trusted
    first = imagetool("build", str(tmp_path / "context"), root=tmp_path / "root").stdout
    done = imagetool("build", "--progress", "json", str(tmp_path / "context"), root=tmp_path / "root")
    events = _events(done.stderr)
    _check_whole(events)
    assert done.stdout == first
    assert [event["seconds"] for event in events if event["event"] == "StepFinished"] == [0.0, 0.0]


def test_a_failing_build_tells_which_step_and_why(tmp_path: Path) -> None:
    events = _build(
        tmp_path, "FROM scratch AS a\nCOPY file /\nCOPY nothing /\nFROM scratch\nCOPY --from=a / /\n", code=1
    )
    (aborted,) = (event for event in events if event["event"] == "StepAborted")
    assert (aborted["number"], "'nothing' not found" in aborted["error"]) == (3, True)


def test_a_build_for_two_platforms_has_two_plans(tmp_path: Path) -> None:
    events = _build(tmp_path, _PARALLEL, "--platform", "linux/amd64,linux/arm64")
    starts = [at for at, event in enumerate(events) if event["event"] == "BuildPlanned"]
    assert [events[at]["platform"] for at in starts] == ["linux/amd64", "linux/arm64"]
    _check_whole(events[: starts[1]])
    _check_whole(events[starts[1] :])


@pytest.mark.root
def test_a_step_tells_its_output_and_what_it_used(tmp_path: Path, busybox_base: Path) -> None:
    root = store_with(busybox_base, tmp_path)
    dockerfile = "FROM busybox\nRUN echo to-stdout; echo to-stderr >&2; head -c 1000000 /dev/zero > /zeros\n"
    events = _build(tmp_path, dockerfile, root=root)
    _check_whole(events)
    assert {(event["stream"], event["data"]) for event in events if event["event"] == "StepOutput"} == {
        (1, "to-stdout\n"),
        (2, "to-stderr\n"),
    }
    (used,) = (event for event in events if event["event"] == "StepMeasured")
    assert (used["number"], used["peak_memory"] > 0) == (2, True)
    events = _build(tmp_path, "FROM busybox\nRUN echo half a line >&2; exit 3\n", root=root, code=1)
    assert [event["number"] for event in events if event["event"] == "StepAborted"] == [2]


def test_triggers_of_base_images_are_numbered_last_in_the_order_of_the_stages(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _build(
            tmp_path, f"FROM scratch\nLABEL name={name}\nONBUILD COPY file /{name}\nONBUILD ENV {name}=1\n", "-t", name
        )
    dockerfile = (
        "FROM one AS a\nENV x=y\nFROM two AS b\nENV x=y\nONBUILD ENV from=stage\n"
        "FROM b AS c\nCOPY file /c\nFROM scratch\nCOPY --from=a /one /\nCOPY --from=c /two /\n"
    )
    for _ in range(3):
        events = _build(tmp_path, dockerfile, "--no-cache")
        found = [(event["number"], event["name"]) for event in events if event["event"] == "StepStarted"]
        assert sorted(found) == [
            (1, "FROM one AS a"),
            (2, "ENV x=y"),
            (3, "FROM two AS b"),
            (4, "ENV x=y"),
            (5, "ONBUILD ENV from=stage"),
            (6, "FROM b AS c"),
            (7, "ENV from=stage"),
            (8, "COPY file /c"),
            (9, "FROM scratch"),
            (10, "COPY --from=a /one /"),
            (11, "COPY --from=c /two /"),
            (12, "COPY file /one"),
            (13, "ENV one=1"),
            (14, "COPY file /two"),
            (15, "ENV two=1"),
        ]
