"""What is done to the image in the end, after its last instruction: labels, variables, squashing."""

from __future__ import annotations

from collections.abc import Mapping

from imagetool.build.files import Trees
from imagetool.build.state import COMMENT, StageState
from imagetool.build.worker import Times, Worker
from imagetool.image.image import Image
from imagetool.image.write import write_image, write_layer
from imagetool.layer.merge import flatten
from imagetool.layer.tarcodec import write
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.values import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Finish:
    """What the user asks for.

    squash: "new" makes the layers that the build added one, "all" all layers, "" none.
    unset_env, unset_labels: names that the image must not have, whoever set them.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    unset_env: frozenset[str] = frozenset()
    unset_labels: frozenset[str] = frozenset()
    squash: str = ""


def finished_image(state: StageState, finish: Finish, trees: Trees, worker: Worker) -> Image:
    """Write a stage as it is to be as an image into the worker's store, and return it."""
    state = _squashed(replace(state, run=_configured(state.run, finish)), finish, trees, worker)
    config = ImageConfig.make(
        platform=state.platform,
        run=state.run,
        diff_ids=[layer.diff_id for layer in state.layers],
        history=state.history,
        created=_created(state, worker.times),
        author=state.author,
        extra=state.extra,
    )
    manifest = write_image(worker.store, config, state.layers, annotations=finish.annotations)
    return Image(manifest, config, state.layers, worker.store)


def _created(state: StageState, times: Times) -> str:
    """Return when the image was made: by the clock it was when its last step was, as BuildKit has it."""
    by_clock = times.preserve and not times.told and state.history
    return (by_clock and state.history[-1].created) or times.created


def _configured(run: RunConfig, finish: Finish) -> RunConfig:
    labels = {name: value for name, value in run.labels.items() if name not in finish.unset_labels}
    env = tuple(entry for entry in run.env if entry.partition("=")[0] not in finish.unset_env)
    return replace(run, labels={**labels, **finish.labels}, env=env)


def _squashed(state: StageState, finish: Finish, trees: Trees, worker: Worker) -> StageState:
    kept = 0 if finish.squash == "all" else state.base_layers
    if not finish.squash or len(state.layers) - kept < 2:
        return state
    files = trees.files(state.layers)
    if finish.squash == "all":
        layer = write_layer(write(flatten(files.layers, files.tree)), worker.store, worker.codec)
    else:
        from imagetool.build.squash import squashed

        below = trees.files(state.layers[:kept]).tree
        items = squashed(files, below, time=worker.times.made)
        layer = write_layer(write(items), worker.store, worker.codec)
    entry = History(worker.times.created, f"squashed {len(state.layers) - kept} layers", comment=COMMENT)
    return replace(state, layers=(*state.layers[:kept], layer), history=(*_emptied(state, kept), entry))


def _emptied(state: StageState, kept: int) -> tuple[History, ...]:
    """Return the history; entries of layers that are no more, beyond the first `kept`, have none."""
    found, seen = [], 0
    for entry in state.history:
        if not entry.empty_layer:
            seen += 1
            if seen > kept:
                entry = replace(entry, empty_layer=True)
        found.append(entry)
    return tuple(found)
