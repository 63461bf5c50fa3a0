"""`commit`: the image that a working container has become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from imagetool.build.finish import Finish, finished_image
from imagetool.build.state import ConfigInstruction, StageState, apply
from imagetool.build.working import WorkingContainer
from imagetool.dockerfile import parse_trigger
from imagetool.errors import DockerfileError, StorageError, UsageError
from imagetool.image.image import Image, Layer
from imagetool.transports.local import local_name
from imagetool.values import dataclass, field, replace
from imagetool.verbs.bench import at_bench
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.build.worker import Worker


def _nothing(image: Image) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Committing:
    """What becomes of a container's image; see `imagetool commit --help`. epoch: None for the container's own.

    changes: instructions that change configuration, as written in a Dockerfile.
    """

    name: str = ""
    finish: Finish = field(default_factory=Finish)
    epoch: int | None = None
    changes: Sequence[str] = ()
    omit_history: bool = False
    remove: bool = False


def commit(name: str, wanted: Committing, place: Workplace, *, after: Callable[[Image], None] = _nothing) -> Image:
    """Make an image of a container and name it in the local store; after `after`, remove the container if asked to."""
    full = local_name(wanted.name) if wanted.name else ""
    with at_bench(name, place, BuildOptions()) as bench:
        record, store = bench.held.record, place.store
        with store.session():
            state = _changed(record.state, wanted.changes, bench.worker.times.created)
            finish = replace(wanted.finish, annotations={**record.annotations, **wanted.finish.annotations})
            worker = bench.worker
            if wanted.epoch is not None and wanted.epoch != record.epoch:
                worker = replace(worker, times=replace(worker.times, epoch=wanted.epoch))
                state = _redated(state, record, worker)
            for layer in state.layers:
                if not store.exists(layer.descriptor):
                    raise StorageError(f"layer {layer.descriptor.digest} of the container {name} is gone from {store}")
            image = finished_image(_signed(state, record, wanted), finish, bench.trees, worker)
            store.tag(image.descriptor, full)
        after(image)
        if wanted.remove:
            place.containers.remove(bench.held)
    return image


def _changed(state: StageState, texts: Sequence[str], created: str) -> StageState:
    """Carry out the instructions of --change."""
    for text in texts:
        try:
            instruction = parse_trigger(text, file="--change")
        except DockerfileError as error:
            raise UsageError(f"--change {text[:80]!r}: {error.message}") from None
        if not isinstance(instruction, ConfigInstruction):
            raise UsageError(f"--change {text[:80]!r}: it can only be an instruction that changes configuration")
        state = apply(state, instruction).with_history(created, text.strip())
    return state


def _redated(state: StageState, record: WorkingContainer, worker: Worker) -> StageState:
    """Give what the container added another moment: its history, and those of its files that are later."""
    from imagetool.image.image import open_tar
    from imagetool.image.write import write_layer
    from imagetool.layer.tarcodec import write
    from imagetool.layer.tarreader import read

    def redated(layer: Layer) -> Layer:
        where = f"layer {layer.descriptor.digest}"
        with open_tar(worker.store, layer) as tar:
            found = read(tar, where=where)
            items = ((one._replace(mtime=worker.times.of_layer(one.mtime)), content) for one, content in found)
            return write_layer(write(items), worker.store, worker.codec)

    kept = state.layers[: state.base_layers]
    layers = state.layers[state.base_layers :]
    if worker.times.epoch < record.epoch:
        layers = tuple(map(redated, layers))
    history = [replace(entry, created=worker.times.created) for entry in state.history[record.base_history :]]
    return replace(state, layers=(*kept, *layers), history=(*state.history[: record.base_history], *history))


def _signed(state: StageState, record: WorkingContainer, wanted: Committing) -> StageState:
    """Put what --created-by and --history-comment say into the last line of history that is the container's own."""
    history = list(state.history)
    if len(history) > record.base_history:
        last = history[-1]
        comment = record.comment or last.comment
        history[-1] = replace(last, created_by=record.created_by or last.created_by, comment=comment)
    return replace(state, history=() if wanted.omit_history else tuple(history))
