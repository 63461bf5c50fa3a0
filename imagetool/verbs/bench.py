"""A working container that is held, and what a step in it works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool.build.containers import Held
from imagetool.build.contexts import Opened
from imagetool.build.files import FolderSource, Trees
from imagetool.build.inputs import Inputs
from imagetool.build.worker import Unwatched
from imagetool.dockerfile import IgnoreRules, Instruction
from imagetool.image.image import Image, Layer, load
from imagetool.oci.platform import Platform
from imagetool.progress import Note
from imagetool.streams.codecs import Codec
from imagetool.transports import find
from imagetool.transports.docker import Docker
from imagetool.transports.local import Local
from imagetool.values import dataclass, replace
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.buildworker import OnDemand, become_root, worker_of
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.build.worker import Worker


@dataclass(frozen=True, slots=True)
class Bench:
    """A container that is held, and what its step works with; `inputs` look at it as it is now."""

    held: Held
    place: Workplace
    worker: Worker
    trees: Trees

    def inputs(self, **others: Any) -> Inputs:
        """Return the inputs of a step: no context, nothing from the cache, unless `others` say so."""
        given: dict[str, Any] = {
            "worker": self.worker,
            "state": self.held.record.state,
            "number": 1,
            "context": Path("/"),
            "ignore": IgnoreRules(),
            "build_args": {},
            "use_cache": False,
            "network": "default",
            "source": self.source,
            "trees": self.trees,
            "observer": self.place.observer,
        }
        return Inputs(**{**given, **others})

    def source(self, name: str, _at: Instruction) -> tuple[Layer, ...] | FolderSource:
        """Return what `--from=NAME` means: a working container first, else an image."""
        known = self.place.containers
        found = known.find(name)
        if found is not None:
            return known.read(found).state.layers
        return image_of(name, self.held.record.state.platform, self.worker, self.place).layers


@contextmanager
def at_bench(
    name: str, place: Workplace, options: BuildOptions, *, root: bool = False, remounts: bool = True
) -> Iterator[Bench]:
    """Hold a container and open what its step needs; `root` for steps that run programs or mount.

    An ordinary user becomes root of a user namespace then, for which this process must have one thread.
    What was changed below the container's mount is a layer of it from here on. The mount is away meanwhile; in
    the end it is there again, with what the step changed, unless not `remounts`.
    """
    from imagetool.verbs.mountpoint import attach, settle

    known = place.containers
    edited = bool(known.read(known.named(name)).edit)
    namespaced = become_root(place.observer, needed=root or edited) != "root"
    with ExitStack() as stack:
        held = stack.enter_context(known.held(name, waiting=lambda text: place.observer(Note(text))))
        record = held.record
        options = replace(
            options,
            codec=Codec.parse(record.compression),
            epoch=record.epoch,
            preserve_times=record.preserve,
            platform=record.state.platform,
        )
        made = stack.enter_context(OnDemand(options, place, namespaced=namespaced))
        store = place.store
        worker = worker_of(Opened(Path("/")), options, place, store, Unwatched(), made)
        bench = Bench(held, place, worker, Trees(store))
        mounted = settle(held, worker, place)
        try:
            yield bench
        finally:
            if mounted and remounts and held.folder.exists():  # commit --rm removes it
                attach(held, worker)


def image_of(reference: str, platform: Platform, worker: Worker, place: Workplace) -> Image:
    """Return an image in the local store, whatever place it is named at."""
    from imagetool.transfer import copy

    transport, rest = find(reference)
    if isinstance(transport, Local | Docker):
        return worker.base(rest, platform)
    with transport.source(rest, place.surroundings) as source:
        copy(source.store, place.store, source.root, platform=platform, tags=(), observer=place.observer)
        return load(place.store, source.root, platform=platform)
