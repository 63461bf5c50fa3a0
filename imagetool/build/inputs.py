"""What a step of a build may look at, and what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from imagetool.build.cache import Result, key_of
from imagetool.build.entitlements import Entitlements
from imagetool.build.files import FolderSource, Trees
from imagetool.build.filestates import FileStates
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.secrets import Secrets
from imagetool.build.state import StageState
from imagetool.build.worker import Unwatched, Worker
from imagetool.dockerfile import IgnoreRules, Instruction
from imagetool.image.image import Layer
from imagetool.image.write import write_layer
from imagetool.layer.entry import Item
from imagetool.layer.tarcodec import write
from imagetool.progress import Note, Observer
from imagetool.values import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a step may look at.

    source: gives the layers, or the directory, that `--from=NAME` means.
    asked: where a step leaves what its cache key was made of.
    keeps: whether what a failing RUN leaves is wanted, with the error that it raises.
    """

    worker: Worker
    state: StageState
    number: int
    context: Path
    ignore: IgnoreRules
    build_args: Mapping[str, str]
    use_cache: bool
    network: str
    source: Callable[[str, Instruction], tuple[Layer, ...] | FolderSource]
    trees: Trees
    observer: Observer
    known: FileStates | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    entitlements: Entitlements = field(default_factory=Entitlements)
    keeps: bool = False

    def context_files(self, times: Callable[[int], int] | None = None) -> FolderFiles:
        """Return the files of the build context, to be opened; what is read of them the witness gets to know."""
        worker = self.worker
        return FolderFiles(
            self.context,
            ignore=self.ignore,
            times=times or worker.times.of_context,
            witness=worker.witness,
            known=self.known,
            warn=lambda text: self.observer(Note(text, "warning")),
        )

    def over(self, source: FolderSource) -> Inputs:
        """Return the inputs of a step whose build context is another directory."""
        self.worker.witness.opaque()
        worker = replace(self.worker, witness=Unwatched())
        return replace(self, context=source.folder, ignore=source.ignore, worker=worker, known=None)

    def key(self, **inputs: Any) -> str:
        """Return a cache key over the parent's files, what the worker adds, and `inputs`.

        A linked step sees nothing of its parent, so that its layer is good on any other.
        """
        worker = self.worker
        chain = "" if inputs.get("link") else str(self.state.chain)
        about = {"parent": chain, "codec": worker.codec.identity, "times": worker.times.key, **inputs}
        self.asked.update(about)
        return key_of(**about)

    def lookup(self, key: str) -> Result | None:
        """Return a cached result whose layer the store still has; None for none, or when the cache is off."""
        result = self.worker.cache.lookup(key) if self.use_cache else None
        if result is None or (result.layer is not None and not self.worker.store.exists(result.layer.descriptor)):
            return None
        return result


@dataclass(frozen=True, slots=True)
class Made:
    """What a step made: a layer or none, its line of history, and what the cache has it under."""

    layer: Layer | None
    history: str
    cached: bool = False
    key: str = ""


def store(inputs: Inputs, items: Iterable[Item]) -> Layer:
    """Make a layer of entries; none may hold a secret."""
    items = inputs.secrets.checked(items, "this step")
    return write_layer(write(items), inputs.worker.store, inputs.worker.codec)


def record(inputs: Inputs, key: str, layer: Layer | None, history: str, *, steady: bool = True) -> Made:
    """Remember what a step made, unless its files changed while they were read: then the key is not of what was made.

    `steady` says that they did not.
    """
    if steady:
        inputs.worker.cache.record(key, Result(layer))
    else:
        inputs.worker.witness.opaque()
    return Made(layer, history, key=key)
