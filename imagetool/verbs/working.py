"""Building by hand, one command at a time: `from`, `config`, `containers` and `rm` over working containers.

The steps are those of a Dockerfile, done by the same code, so that the same steps give the same image.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool.build import steps
from imagetool.build.contexts import Opened
from imagetool.build.settings import Settings, changes, pairs_of, without
from imagetool.build.state import apply, scratch_state
from imagetool.build.worker import Unwatched
from imagetool.build.working import WorkingContainer, new_identity
from imagetool.dockerfile import Workdir
from imagetool.image.image import this_platform
from imagetool.oci.platform import Platform
from imagetool.oci.reference import Reference
from imagetool.progress import Note
from imagetool.streams.codecs import Codec
from imagetool.transports import find
from imagetool.transports.docker import Docker
from imagetool.transports.local import Local, local_name
from imagetool.values import dataclass, field, replace
from imagetool.verbs.bench import at_bench, image_of
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.buildworker import OnDemand, become_root, worker_of
from imagetool.verbs.run import RunOptions
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    pass

_SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a working container begins; see `imagetool from --help`.

    epoch: None for what a build here would take. runs: see `WorkingContainer`.
    """

    name: str = ""
    platform: Platform | None = None
    pull: str = "missing"
    epoch: int | None = None
    preserve_times: bool = False
    compression: str = "gzip"
    runs: Mapping[str, Any] = field(default_factory=dict)


def begin(reference: str, beginning: Beginning, place: Workplace) -> tuple[str, str]:
    """Make a working container of an image, pulled when it is not here, or of `scratch`; return its name and identity.

    Raises UsageError when its name is taken or cannot be one.
    """
    Codec.parse(beginning.compression)
    options = BuildOptions(platform=beginning.platform, pull=beginning.pull, epoch=beginning.epoch)
    here = Opened(Path.cwd())
    platform = beginning.platform or this_platform()
    store = place.store
    with store.session(), OnDemand(options, place, namespaced=False) as made:
        worker = worker_of(here, options, place, store, Unwatched(), made)
        name, digest = _SCRATCH, ""
        state = scratch_state(platform)
        if reference != _SCRATCH:
            image = image_of(reference, platform, worker, place)
            if not platform.runs(image.config.platform):
                text = f"{reference} is an image for {image.config.platform}, not for {platform}"
                place.observer(Note(text, "warning"))
            if image.config.run.on_build:
                place.observer(Note(f"{reference} has ONBUILD triggers, which only builds carry out", "warning"))
            name, digest, state = _shown(reference), str(image.descriptor.digest), steps.base_state(image)
        record = WorkingContainer(
            identity=new_identity(),
            image=name,
            digest=digest,
            state=state,
            created=now(),
            epoch=worker.times.epoch,
            preserve=beginning.preserve_times,
            compression=beginning.compression,
            base_history=len(state.history),
            runs=beginning.runs,
        )
        stem = "working-container" if name == _SCRATCH else f"{_stem(name)}-working-container"
        return place.containers.make(record, name=beginning.name, stem=stem), record.identity


def now() -> str:
    """Return the moment, as records have it."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"


def _shown(reference: str) -> str:
    """Return what lists call an image: its familiar name, or what the user wrote."""
    transport, rest = find(reference)
    if not isinstance(transport, Local | Docker) or set(rest) <= set("sha256:0123456789abcdef"):
        return reference
    return local_name(rest)


def _stem(name: str) -> str:
    transport, rest = find(name)
    if isinstance(transport, Local | Docker) and not rest.startswith("sha256:"):
        rest = Reference.parse(rest).repository
    return rest.rstrip("/").rpartition("/")[2].partition(":")[0]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `config` sets: `settings` of the image's configuration, and what only working containers have.

    hostname: of what is run in the container, "" for the usual one; images have none.
    """

    settings: Settings = field(default_factory=Settings)
    workdir: str | None = None
    annotations: Sequence[str] = ()
    created_by: str | None = None
    comment: str | None = None
    hostname: str | None = None


def configure(name: str, wanted: Configuration, place: Workplace) -> None:
    """Set what the image of a container will say of itself."""
    with at_bench(name, place, BuildOptions()) as bench, place.store.session():
        record = bench.held.record
        state, created = record.state, bench.worker.times.created
        if wanted.workdir == "":
            state = replace(state, run=replace(state.run, working_dir=""))
        elif wanted.workdir is not None:
            state, _ = steps.carry_out(bench.inputs(use_cache=True), Workdir(path=wanted.workdir), "")
        for change, text in changes(wanted.settings, state):
            state = change(state) if callable(change) else apply(state, change)
            state = state.with_history(created, text) if text else state
        annotations = dict(record.annotations)
        for key, value in pairs_of(wanted.annotations, "--annotation"):
            annotations = without(annotations, key) if value is None else {**annotations, key: value}
        bench.held.save(
            state=state,
            annotations=annotations,
            created_by=record.created_by if wanted.created_by is None else wanted.created_by,
            comment=record.comment if wanted.comment is None else wanted.comment,
            runs=record.runs if wanted.hostname is None else _named_host(record.runs, wanted.hostname),
        )


def _named_host(runs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what is said of commands with another host name, which must be one. Raises UsageError."""
    RunOptions(hostname=name)
    rest = {option: value for option, value in runs.items() if option != "hostname"}
    return {**rest, "hostname": name} if name else rest


def containers(place: Workplace) -> list[dict[str, Any]]:
    """Return what there is to tell of each working container, oldest first; the first five keys are buildah's."""
    from imagetool.verbs.mountpoint import mountpoint

    return [
        {
            "id": record.identity,
            "builder": True,
            "imageid": record.digest.removeprefix("sha256:"),
            "imagename": record.image,
            "containername": name,
            "created": record.created,
            "layers": len(record.state.layers) - record.state.base_layers,
            "mountpoint": str(path) if (path := mountpoint(place.containers.folder(name))) else "",
            "failed": record.failed.text if record.failed else "",
        }
        for name, record in place.containers.records()
    ]


def described(name: str, place: Workplace) -> dict[str, Any]:
    """Return what there is to tell of one container: that of `containers`, its image so far, the step that left it."""
    record = place.containers.read(name)
    (found,) = [one for one in containers(place) if one["containername"] == name]
    step = record.failed
    return found | {
        "config": record.image_config(),
        "layers": [{**layer.descriptor.tree(), "diffID": str(layer.diff_id)} for layer in record.state.layers],
        "annotations": dict(record.annotations),
        "failed": {"step": step.text, "place": step.place, "command": list(step.argv), "status": step.status}
        if step
        else None,
    }


def remove_containers(names: Sequence[str], place: Workplace) -> Iterator[str]:
    """Remove containers, all for no names; yield the identity of each that is gone.

    All names are looked up first: with a wrong one among them nothing is removed.
    """
    from imagetool.verbs.mountpoint import detach

    known = place.containers
    wanted = [known.named(name) for name in names] or known.names()
    # What was changed below a mount may belong to any user of the namespace that it was mounted in.
    become_root(place.observer, needed=any(known.read(name).edit for name in wanted))
    for name in dict.fromkeys(wanted):
        with known.held(name, waiting=lambda text: place.observer(Note(text))) as held:
            detach(held.folder)
            known.remove(held)
        yield held.record.identity
