"""`build --output`: what the text means, and writing the image there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from imagetool import api
from imagetool.errors import UsageError
from imagetool.image.image import Image
from imagetool.values import dataclass

_TYPES = ("oci", "docker", "local", "tar", "registry")


@dataclass(frozen=True, slots=True)
class Output:
    """One place an image is written to. `kind` is one of `_TYPES`; `dest` "-" is stdout."""

    kind: str
    dest: str
    archive: bool = False

    @classmethod
    def parse(cls, text: str) -> Output:
        """Read `type=…,dest=…[,tar=true]`; a bare path is a directory and `-` a tar on stdout, as with docker."""
        if not text.strip():
            raise UsageError(f"--output {text!r}: write type=oci|docker|local|tar,dest=PATH, a directory, or -")
        if "=" not in text:
            return cls("tar", "-") if text == "-" else cls("local", text)
        fields = dict(_pair(part, text) for part in text.split(","))
        kind, dest = fields.pop("type", ""), fields.pop("dest", "")
        archive = fields.pop("tar", "false")
        if kind == "image" and fields.get("push") == "true" and "name" in fields:
            kind, fields["ref"] = "registry", fields.pop("name")
            del fields["push"]
        if kind == "registry" and not dest:
            dest = fields.pop("ref", "") or fields.pop("name", "")
        if fields:
            raise UsageError(f"--output {text!r}: there are type, dest and tar, but no {next(iter(fields))!r}")
        if kind not in _TYPES or not dest or archive not in ("true", "false"):
            raise UsageError(f"--output {text!r}: write type=oci|docker|local|tar,dest=PATH[,tar=true]")
        if kind == "registry" and (archive == "true" or dest == "-"):
            raise UsageError(f"--output {text!r}: write type=registry,ref=NAME")
        if dest == "-" and kind == "local":
            raise UsageError(f"--output {text!r}: a directory cannot be written to stdout; take type=tar")
        made = cls(kind, dest, archive == "true" or dest == "-")
        if made.is_stdout and sys.stdout.isatty():
            raise UsageError(f"--output {text!r}: an archive is not for a terminal; redirect stdout")
        return made

    @property
    def is_stdout(self) -> bool:
        """Whether the bytes go to stdout, which then carries nothing else."""
        return self.dest == "-"

    def write(self, image: Image, place: api.Workplace, *, name: str) -> None:
        """Write the image; `name` is what it is called there, where the format has names."""
        if not self.is_stdout:
            api.export(image, self.kind, self.dest, place, name=name, archive=self.archive)
            return
        to_stdout(lambda path: api.export(image, self.kind, str(path), place, name=name, archive=True), place)


def to_stdout(write: Callable[[Path], None], place: api.Workplace) -> None:
    """Have an archive written aside, and write it to stdout when it is whole."""
    import shutil

    from imagetool.transports.scratch import scratch_folder

    with scratch_folder(place.surroundings) as aside:
        path = aside / "image.tar"
        write(path)
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)


def _pair(part: str, text: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise UsageError(f"--output {text!r}: {part!r} is not KEY=VALUE")
    return name.strip(), value
