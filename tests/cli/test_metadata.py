"""--metadata-file: docker's words, and what became of each step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.command import imagetool


def _metadata(folder: Path, *args: str) -> dict[str, Any]:
    context = folder / "context"
    context.mkdir(exist_ok=True)
    (context / "file").write_text("content\n")
    (context / "Dockerfile").write_text(
        "FROM scratch AS a\nCOPY file /\nENV a=b\nFROM scratch\nCOPY --from=a /file /\n"
    )
    done = imagetool("build", "--metadata-file", folder / "meta", *args, context, root=folder / "root")
    metadata: dict[str, Any] = json.loads((folder / "meta").read_text())
    assert metadata["containerimage.config.digest"] == done.stdout.strip()
    assert metadata["containerimage.digest"] == metadata["containerimage.descriptor"]["digest"]
    return metadata


def test_names_are_whole_and_absent_when_there_are_none(tmp_path: Path) -> None:
    assert "image.name" not in _metadata(tmp_path)
    named = _metadata(tmp_path, "-t", "app", "-t", "localhost:5000/x/app:2")
    assert named["image.name"] == "docker.io/library/app:latest,localhost:5000/x/app:2"


def test_steps_tell_whether_the_cache_had_them(tmp_path: Path) -> None:
    first = {step["number"]: step for step in _metadata(tmp_path)["imagetool.steps"]}
    assert [(step["stage"], step["name"]) for _, step in sorted(first.items())] == [
        ("a", "FROM scratch AS a"),
        ("a", "COPY file /"),
        ("a", "ENV a=b"),
        ("stage-1", "FROM scratch"),
        ("stage-1", "COPY --from=a /file /"),
    ]
    again = {step["number"]: step for step in _metadata(tmp_path, "--explain-cache")["imagetool.steps"]}
    assert [number for number, step in sorted(again.items()) if step["cached"]] == [2, 5]
    assert not any(step["cached"] for step in first.values())
    assert {again[number]["layer"] for number in (2, 5)} == {first[number]["layer"] for number in (2, 5)}
    assert all(len(again[number]["key"]) == 64 for number in (2, 5))
