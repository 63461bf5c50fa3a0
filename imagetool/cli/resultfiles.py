"""--iidfile and --metadata-file: what a build tells programs of the image it made."""

from __future__ import annotations

import json
from pathlib import Path

from imagetool.content.staging import followed, storage_errors, write_file
from imagetool.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from imagetool.build.unchanged import Answer


def forget(iidfile: str) -> None:
    """Remove what an earlier build wrote to --iidfile: one that fails must not leave another image's ID, as docker."""
    with storage_errors(f"cannot remove {iidfile}"):
        place = followed(Path(iidfile))
        if not place.is_symlink() and place.is_file():
            place.unlink()


def record(
    answer: Answer, tags: Sequence[str], iidfile: str | None, metadata_file: str | None, *, answered: bool = False
) -> None:
    """Write --iidfile and --metadata-file, whole and only after everything else has worked.

    The names are docker's; `imagetool.steps` is ours. answered: nothing was carried out for it.
    """
    if iidfile:
        write_file(Path(iidfile), answer.identity.encode())
    if metadata_file:
        known: dict[str, Any] = {}
        if answer.identity != answer.descriptor["digest"]:  # an index has no config
            known["containerimage.config.digest"] = answer.identity
        known["containerimage.descriptor"] = answer.descriptor
        known["containerimage.digest"] = answer.descriptor["digest"]
        if tags:
            known["image.name"] = ",".join(str(Reference.parse(tag).with_default_tag()) for tag in tags)
        if answer.shown:
            known["imagetool.steps"] = list(_steps(answer, answered=answered))
        write_file(Path(metadata_file), json.dumps(known, indent=2).encode() + b"\n")


def _steps(answer: Answer, *, answered: bool) -> Iterator[dict[str, Any]]:
    """Yield what --metadata-file tells of the steps: whether the cache had them, and how long they took."""
    names: dict[int, tuple[str, str]] = {}
    for kind, *fields in answer.shown:
        if kind == "step":
            names[fields[0]] = fields[3], fields[2]
        elif kind == "done":
            number, layer, size, key, cached, seconds = fields
            stage, name = names[number]
            known = {"number": number, "stage": stage, "name": name, "layer": layer, "size": size, "key": key}
            yield {
                **known,
                "cached": bool(layer) if answered else cached,
                "seconds": 0.0 if answered else round(seconds, 3),
            }
