"""The build cache: what a step with these very inputs made last time.

Keys are digests over everything a step's result depends on, the parent's ChainID first; what
is recorded are descriptors of layers in the local store. Losing a record costs a rebuild and
nothing else, so records are renamed into place but not synced, and one that cannot be read is a miss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from imagetool.build.filestates import SUFFIX as FILES_SUFFIX
from imagetool.build.unchanged import SUFFIX
from imagetool.content.staging import StagedFile, storage_errors, sweep
from imagetool.errors import VerificationError
from imagetool.image.image import Layer
from imagetool.oci import document
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.values import dataclass

#: Part of every key; raised when what a step makes of the same inputs changes.
VERSION = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What a step made: a layer, or None when it made none."""

    layer: Layer | None


class BuildCache(Protocol):
    """What steps made, by their keys; safe for several threads.

    A key is what `key_of` returns. A record may be gone at any time, and then the step is done anew. Where it
    says a layer, the caller looks whether the store still has that.
    """

    def lookup(self, key: str) -> Result | None:
        """Return what was recorded under a key, None for nothing."""
        ...

    def record(self, key: str, result: Result) -> None:
        """Remember what a step made; called once the layer is in the store."""
        ...

    def facts(self, key: str) -> Mapping[str, Any] | None:
        """Return what a step asked about its parent last time, questions with answers; None for nothing."""
        ...

    def record_facts(self, key: str, facts: Mapping[str, Any]) -> None:
        """Remember what a step asked about its parent."""
        ...


def key_of(**inputs: Any) -> str:
    """Return the key for a step's inputs: the digest of their canonical JSON."""
    text = json.dumps({"version": VERSION, **inputs}, sort_keys=True, separators=(",", ":"))
    return Digest.of(text.encode()).hex


class FolderCache:
    """Records as small files in a folder; safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = folder / ".staging"
        sweep(self._staging)

    def lookup(self, key: str) -> Result | None:
        """Return a record; see `BuildCache`."""
        tree = self._read(f"{key}.json")
        if tree is None:
            return None
        if tree.get("layer") is None:
            return Result(None)
        what = f"cache record {key}"
        try:
            descriptor = Descriptor.read(tree["layer"], path="$.layer", what=what)
            diff_id = Digest.parse(document.get(tree, "diff_id", str, None, path="$", what=what))
        except VerificationError:  # damaged: as if it were not there
            return None
        return Result(Layer(descriptor, diff_id))

    def record(self, key: str, result: Result) -> None:
        """Write a record; see `BuildCache`."""
        layer = result.layer
        self._write(
            f"{key}.json",
            {"layer": layer.descriptor.tree(), "diff_id": str(layer.diff_id)} if layer else {"layer": None},
        )

    def facts(self, key: str) -> Mapping[str, Any] | None:
        """Return facts; see `BuildCache`."""
        return self._read(f"{key}.facts.json")

    def record_facts(self, key: str, facts: Mapping[str, Any]) -> None:
        """Write facts; see `BuildCache`."""
        self._write(f"{key}.facts.json", facts)

    def layers(self) -> Iterator[Digest]:
        """Yield the digest of every layer that a record names."""
        if self._folder.is_dir():
            for name in sorted(os.listdir(self._folder)):
                if name.endswith(".json") and not name.endswith((".facts.json", SUFFIX)):
                    result = self.lookup(name.removesuffix(".json"))
                    if result is not None and result.layer is not None:
                        yield result.layer.descriptor.digest

    def clear(self) -> int:
        """Forget everything; return how many records there were."""
        listed = os.listdir(self._folder) if self._folder.is_dir() else []
        names = [name for name in listed if name.endswith((".json", FILES_SUFFIX))]
        with storage_errors(f"cannot clear the build cache {self._folder}"):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
        return sum(not name.endswith((".facts.json", SUFFIX, FILES_SUFFIX)) for name in names)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            raw = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return document.decode(raw, what=name)
        except VerificationError:  # cut by a crash: as if it were not there
            return None

    def _write(self, name: str, tree: Mapping[str, Any]) -> None:
        with storage_errors(f"cannot make the build cache {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
        with StagedFile(self._staging) as file:
            file.write(document.encode(tree))
            file.place(self._folder / name, durable=False)
