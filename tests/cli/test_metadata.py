"""--metadata-file: docker's words, and what became of each step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from tests.support.command import imagetool

_SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/metadata.schema.json").read_text())


def _read(path: Path) -> dict[str, Any]:
    """Return what was written; it is as the schema says, and has no field that the schema does not know."""
    metadata: dict[str, Any] = json.loads(path.read_text())
    jsonschema.Draft202012Validator(_SCHEMA).validate(metadata)
    assert set(metadata) <= set(_SCHEMA["properties"])
    for step in metadata.get("imagetool.steps", []):
        assert set(step) == set(_SCHEMA["properties"]["imagetool.steps"]["items"]["properties"])
    return metadata


def _metadata(folder: Path, *args: str) -> dict[str, Any]:
    context = folder / "context"
    context.mkdir(exist_ok=True)
    (context / "file").write_text("content\n")
    (context / "Dockerfile").write_text(
        "FROM scratch AS a\nCOPY file /\nENV a=b\nFROM scratch\nCOPY --from=a /file /\n"
    )
    done = imagetool("build", "--metadata-file", folder / "meta", *args, context, root=folder / "root")
    metadata = _read(folder / "meta")
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


def test_an_index_has_no_config_and_commit_tells_no_steps(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    root, meta = tmp_path / "root", tmp_path / "meta"
    platforms = "linux/amd64,linux/arm64"
    imagetool("build", "--platform", platforms, "-t", "both", "--metadata-file", meta, tmp_path, root=root)
    assert set(_read(meta)) == {"containerimage.digest", "containerimage.descriptor", "image.name"}
    imagetool("from", "--name", "c", "scratch", root=root)
    image = imagetool("commit", "--metadata-file", meta, "c", "made:1", root=root).stdout.strip()
    found = _read(meta)
    assert (found["containerimage.config.digest"], found["image.name"]) == (image, "docker.io/library/made:1")
    assert "imagetool.steps" not in found
