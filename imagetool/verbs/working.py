"""Building by hand, one command at a time: `from`, `copy`, `add` and `config` over working containers.

The steps are those of a Dockerfile, done by the same code, so that the same steps give the same image.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool import limits
from imagetool.build import steps
from imagetool.build.contexts import Opened
from imagetool.build.files import FolderSource, Trees
from imagetool.build.settings import Settings, changes, pairs_of, without
from imagetool.build.state import apply, scratch_state
from imagetool.build.steps import Inputs
from imagetool.build.worker import Unwatched
from imagetool.build.working import Held, WorkingContainer, new_identity
from imagetool.content.staging import open_stored
from imagetool.dockerfile import Add, Copy, IgnoreRules, Instruction, Workdir, is_remote
from imagetool.errors import NotFound, StorageError, UsageError
from imagetool.image.image import Image, Layer, load
from imagetool.oci.platform import Platform
from imagetool.oci.reference import Reference
from imagetool.progress import Note
from imagetool.streams.codecs import Codec
from imagetool.transports import find
from imagetool.transports.docker import Docker
from imagetool.transports.local import Local, local_name
from imagetool.values import dataclass, field, replace
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.buildworker import OnDemand, become_root, worker_of
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.build.worker import Worker

_SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a working container begins; see `imagetool from --help`. epoch: None for what a build here would take."""

    name: str = ""
    platform: Platform | None = None
    pull: str = "missing"
    epoch: int | None = None
    preserve_times: bool = False
    compression: str = "gzip"


def begin(reference: str, beginning: Beginning, place: Workplace) -> tuple[str, str]:
    """Make a working container of an image, pulled when it is not here, or of `scratch`; return its name and identity.

    Raises UsageError when its name is taken or cannot be one.
    """
    Codec.parse(beginning.compression)
    options = BuildOptions(platform=beginning.platform, pull=beginning.pull, epoch=beginning.epoch)
    here = Opened(Path.cwd())
    platform = beginning.platform or Platform.parse(f"linux/{os.uname().machine}")
    store = place.store
    with store.session(), OnDemand(options, place, namespaced=False) as made:
        worker = worker_of(here, options, place, store, Unwatched(), made)
        name, digest = _SCRATCH, ""
        state = scratch_state(platform)
        if reference != _SCRATCH:
            image = _image(reference, platform, worker, place)
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
        )
        stem = "working-container" if name == _SCRATCH else f"{_stem(name)}-working-container"
        return place.containers.make(record, name=beginning.name, stem=stem), record.identity


def now() -> str:
    """Return the moment, as records have it."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"


def _image(reference: str, platform: Platform, worker: Worker, place: Workplace) -> Image:
    """Return an image in the local store, whatever place it is named at."""
    from imagetool.transfer import copy

    transport, rest = find(reference)
    if isinstance(transport, Local | Docker):
        return worker.base(rest, platform)
    with transport.source(rest, place.surroundings) as source:
        copy(source.store, place.store, source.root, platform=platform, tags=(), observer=place.observer)
        return load(place.store, source.root, platform=platform)


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
        return _image(name, self.held.record.state.platform, self.worker, self.place).layers


@contextmanager
def at_bench(
    name: str, place: Workplace, options: BuildOptions, *, root: bool = False, remounts: bool = True
) -> Iterator[Bench]:
    """Hold a container and open what its step needs; `root` for steps that run programs or mount.

    An ordinary user becomes root of a user namespace then, for which this process must have one thread.
    What was changed below the container's mount is a layer of it from here on. The mount is away meanwhile; in
    the end it is there again, with what the step changed, unless not `remounts`.
    """
    from imagetool.verbs import mounting

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
        mounted = mounting.settle(bench)
        try:
            yield bench
        finally:
            if mounted and remounts:
                mounting.attach(bench)


@dataclass(frozen=True, slots=True)
class Copying:
    """What to copy into a container and how; see `imagetool copy --help`.

    sources: paths of the host, or below `context` where that is given; URLs. dest: "" for the working directory.
    add: whether local archives are unpacked.
    """

    sources: Sequence[str]
    dest: str = ""
    add: bool = False
    from_: str | None = None
    chown: str | None = None
    chmod: str | None = None
    exclude: Sequence[str] = ()
    parents: bool = False
    link: bool = False
    checksum: str | None = None
    keep_git_dir: bool = False
    unpack: bool | None = None
    context: str | None = None
    ignorefile: str | None = None


def copy_into(name: str, copying: Copying, place: Workplace) -> str:
    """Copy files into a container, as COPY and ADD do; return the new layer's digest, "" when it made none."""
    context, ignore = _context(copying)
    written = _instruction(copying, copying.sources)
    sources = copying.sources
    if copying.from_ is None and copying.context is None:
        sources = [source if is_remote(source) else _absolute(source) for source in sources]
    with at_bench(name, place, BuildOptions()) as bench, place.store.session():
        inputs = bench.inputs(context=context, ignore=ignore, use_cache=True)
        before = len(inputs.state.layers)
        state, _ = steps.carry_out(inputs, _instruction(copying, sources), "")
        # History says what was written, not where on this machine that was.
        line = steps.copy_history("ADD" if copying.add else "COPY", written)
        last = replace(state.history[-1], created_by=line)
        bench.held.save(state=replace(state, history=(*state.history[:-1], last)))
        return str(state.layers[-1].descriptor.digest) if len(state.layers) > before else ""


def _absolute(source: str) -> str:
    """Return a path of the host in full; what a trailing slash says is kept."""
    path = os.path.abspath(source)
    return f"{path}/" if source.endswith("/") and path != "/" else path


def _context(copying: Copying) -> tuple[Path, IgnoreRules]:
    if copying.context is None:
        if copying.ignorefile is not None:
            raise UsageError("--ignorefile: its rules are about a directory; name that with --contextdir")
        return Path("/"), IgnoreRules()
    context = Path(copying.context).absolute()
    if not context.is_dir():
        raise NotFound(f"--contextdir {copying.context}: there is no such directory")
    return context, _rules(context, copying.ignorefile)


def _rules(context: Path, ignorefile: str | None) -> IgnoreRules:
    from imagetool.build.contexts import folder_ignore

    if ignorefile is None:
        return folder_ignore(context)
    try:
        with open_stored(Path(ignorefile)) as file:
            raw = file.read(limits.DOCKERFILE_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"--ignorefile {ignorefile}: there is no such file") from None
    except OSError as error:
        raise StorageError(f"cannot read {ignorefile}: {error.strerror}") from error
    return IgnoreRules.parse(raw, file=ignorefile)


def _instruction(copying: Copying, sources: Sequence[str]) -> Copy | Add:
    dest = copying.dest or "./"
    how: dict[str, Any] = {"chown": copying.chown, "chmod": copying.chmod, "exclude": tuple(copying.exclude)}
    remote = any(is_remote(source) for source in sources)
    if copying.from_ is None and (copying.add or remote):
        return Add(
            sources=tuple(sources),
            dest=dest,
            link=copying.link,
            checksum=copying.checksum,
            keep_git_dir=copying.keep_git_dir or None,
            unpack=copying.unpack if copying.add else False,
            **how,
        )
    return Copy(
        sources=tuple(sources), dest=dest, from_=copying.from_, link=copying.link, parents=copying.parents, **how
    )


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `config` sets: `settings` of the image's configuration, and what only working containers have."""

    settings: Settings = field(default_factory=Settings)
    workdir: str | None = None
    annotations: Sequence[str] = ()
    created_by: str | None = None
    comment: str | None = None


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
        )


def listed(place: Workplace) -> list[dict[str, Any]]:
    """Return what there is to tell of each working container, oldest first; the first five keys are buildah's."""
    from imagetool.verbs import mounting

    return [
        {
            "id": record.identity,
            "builder": True,
            "imageid": record.digest.removeprefix("sha256:"),
            "imagename": record.image,
            "containername": name,
            "created": record.created,
            "layers": len(record.state.layers) - record.state.base_layers,
            "mountpoint": str(path) if (path := mounting.mountpoint(place.containers.folder(name))) else "",
            "failed": record.failed.text if record.failed else "",
        }
        for name, record in place.containers.records()
    ]


def remove(names: Sequence[str], place: Workplace) -> Iterator[str]:
    """Remove containers, all for no names; yield the identity of each that is gone.

    All names are looked up first: with a wrong one among them nothing is removed.
    """
    from imagetool.verbs import mounting

    known = place.containers
    wanted = [known.named(name) for name in names] or known.names()
    # What was changed below a mount may belong to any user of the namespace that it was mounted in.
    become_root(place.observer, needed=any(known.read(name).edit for name in wanted))
    for name in dict.fromkeys(wanted):
        with known.held(name, waiting=lambda text: place.observer(Note(text))) as held:
            mounting.detach(held.folder)
            known.remove(held)
        yield held.record.identity
