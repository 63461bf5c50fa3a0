"""Instructions carried out one by one; here are those that make layers: COPY, ADD and WORKDIR. RUN is in `run`.

Each looks its result up in the cache, and otherwise makes the layer in one pass from the
source's bytes into the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from imagetool.build.cache import Result, key_of
from imagetool.build.chmod import Chmod
from imagetool.build.copying import CopyPlan, CopyRequest, copy_items, plan_copy
from imagetool.build.entitlements import Entitlements
from imagetool.build.files import Files, FolderSource, Trees
from imagetool.build.filestates import FileStates, Fingerprint
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.root import Root
from imagetool.build.secrets import Secrets
from imagetool.build.state import ConfigInstruction, StageState, apply, with_defaults
from imagetool.build.worker import Unwatched, Worker
from imagetool.dockerfile import Add, Copy, IgnoreRules, Instruction, Run, Workdir, is_remote
from imagetool.errors import BuildError
from imagetool.image.image import Image, Layer
from imagetool.image.write import tar_digest, write_layer
from imagetool.layer.entry import Entry, Item
from imagetool.layer.tarcodec import write
from imagetool.oci.config import History, ImageConfig
from imagetool.oci.digest import Digest
from imagetool.progress import Note, Observer
from imagetool.values import dataclass, field, replace

#: Instructions that `carry_out` does; ARG and FROM say what others see and begin from, which the caller knows.
Step = Run | Copy | Add | Workdir | ConfigInstruction


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


def carry_out(inputs: Inputs, instruction: Step, text: str) -> tuple[StageState, Made | None]:
    """Do one instruction; return the state after it, and what was made, None by one that only changes configuration.

    Args:
        instruction: its variables are expanded already.
        text: the line of history of one that only changes configuration.
    """
    state, created = inputs.state, inputs.worker.times.created
    match instruction:
        case Run():
            made = run(inputs, instruction)
        case Copy():
            made = copy(inputs, instruction)
        case Add():
            made = add(inputs, instruction)
        case Workdir():
            made = workdir(inputs, instruction)
            state = replace(state, run=replace(state.run, working_dir=state.path(instruction.path).rstrip("/") or "/"))
        case _:
            return apply(state, instruction).with_history(created, text), None
    return state.with_history(created, made.history, layer=made.layer), made


def copy(inputs: Inputs, instruction: Copy) -> Made:
    """COPY from the build context, from heredocs, or from another stage or image."""
    history = copy_history("COPY", instruction)
    if instruction.from_ is None:
        return _from_context(inputs, instruction, history)
    layers = inputs.source(instruction.from_, instruction)
    if isinstance(layers, FolderSource):
        return _from_context(inputs.over(layers), instruction, history)
    base = Root(inputs.trees, () if instruction.link else inputs.state.layers)
    chain = [str(layer.diff_id) for layer in layers]
    key = inputs.key(step="copy", source=chain, **copy_inputs(inputs, instruction))
    cached = inputs.lookup(key)
    if cached is not None:
        return Made(cached.layer, history, cached=True, key=key)
    files = inputs.trees.files(layers)
    request = copy_request(inputs, instruction, base)
    times = inputs.worker.times
    items = _retimed(copy_items(request, files, base), times.of_layer)
    return record(inputs, key, store(inputs, items), history)


def add(inputs: Inputs, instruction: Add) -> Made:
    """ADD: like COPY from the context, but archives are unpacked and URLs fetched."""
    from imagetool.build import adding

    history = copy_history("ADD", instruction)
    remote = [source for source in instruction.sources if is_remote(source)]
    local = [source for source in instruction.sources if not is_remote(source)]
    if not remote and not adding.archives(inputs, local, instruction.unpack):
        plain = Copy(
            sources=instruction.sources,
            dest=instruction.dest,
            chown=instruction.chown,
            chmod=instruction.chmod,
            link=instruction.link,
            exclude=instruction.exclude,
            heredocs=instruction.heredocs,
            source=instruction.source,
        )
        return _from_context(inputs, plain, history)
    return adding.add(inputs, instruction, history)


def workdir(inputs: Inputs, instruction: Workdir) -> Made:
    """WORKDIR: make the directory when it is missing, owned by the current user."""
    path = inputs.state.path(instruction.path).rstrip("/") or "/"
    history = f"WORKDIR {path}"
    if path == "/":
        return Made(None, history)
    key = inputs.key(step="workdir", path=path, user=inputs.state.run.user)
    cached = inputs.lookup(key)
    if cached is not None:
        return Made(cached.layer, history, cached=True, key=key)
    root = Root(inputs.trees, inputs.state.layers)
    name, kind = root.kind(path.encode(errors="surrogateescape"), follow=True)
    if kind == "dir":
        return record(inputs, key, None, history)
    if kind is not None:
        raise BuildError(f"WORKDIR {path}: a {kind} is there", about=instruction.path)
    uid, gid = (0, 0)
    if inputs.state.run.user not in ("", "0", "root", "0:0", "root:root"):
        uid, gid = root.owner(inputs.state.run.user)  # a bare number is its own group, as with --chown
    made = inputs.worker.times.made
    parts = name.split(b"/")
    folders = [b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    items = [
        (Entry(folder, "dir", 0o755, uid, gid, 0, made), ())
        for folder in folders
        if root.kind(folder, follow=False)[1] is None
    ]
    return record(inputs, key, store(inputs, items), history)


def run(inputs: Inputs, instruction: Run) -> Made:
    """RUN; see `imagetool.build.run`."""
    from imagetool.build.run import run_step

    return run_step(inputs, instruction)


def _from_context(inputs: Inputs, instruction: Copy, history: str) -> Made:
    """Make a layer of files of the build context, whose content is part of the key.

    The content is told by the digest of the layer's tar. What it was for files in certain states is
    remembered, so that they need not be read again. When some have changed, and what was read of
    those is new, the layer is made at once; otherwise all are read to look for it.
    """
    skeleton = inputs.key(step="copy-context", **copy_inputs(inputs, instruction))
    facts = inputs.worker.cache.facts(skeleton) if inputs.use_cache else None
    layers = () if instruction.link else inputs.state.layers
    base = Root(inputs.trees, layers, facts)
    with ExitStack() as stack:
        files = stack.enter_context(inputs.context_files())
        request = copy_request(inputs, instruction, base)
        plan = plan_copy(request, files, base)
        key = partial(inputs.key, skeleton=skeleton, link=instruction.link)
        if facts is not None:
            same = _known_content(plan, files)
            if same is None and (inputs.worker.asks_others or not files.has_news()):
                same = _read_content(plan, files)
            if same is not None:
                found = key(content=str(same))
                cached = inputs.lookup(found)
                if cached is not None:
                    return Made(cached.layer, history, cached=True, key=found)
        # What is recorded is the tar that was stored: files may have changed since they were looked up.
        seen = Fingerprint()
        layer = store(inputs, plan.seen_items(files, seen))
        if files.known:
            files.known.note_content(seen, layer.diff_id)
            if facts is not None:
                inputs.asked["changed"] = files.known.difference(plan.sources())
        inputs.worker.cache.record_facts(skeleton, base.facts)
        return record(inputs, key(content=str(layer.diff_id)), layer, history)


def content(request: CopyRequest, files: Files) -> Digest:
    """Return the digest of files that are copied to an empty root."""
    if isinstance(files, FolderFiles):
        plan = plan_copy(request, files, Root.empty())
        return _known_content(plan, files) or _read_content(plan, files)
    return tar_digest(write(copy_items(request, files, Root.empty())))


def _known_content(plan: CopyPlan, files: FolderFiles) -> Digest | None:
    """Return the digest of the tar that a copy makes when `stat` tells; otherwise None."""
    return files.known.content(plan.fingerprint(files)) if files.known else None


def _read_content(plan: CopyPlan, files: FolderFiles) -> Digest:
    """Return the digest of the tar that a copy makes; every file is read."""
    seen = Fingerprint()
    made = tar_digest(write(plan.seen_items(files, seen)))
    if files.known:
        files.known.note_content(seen, made)
    return made


def copy_inputs(inputs: Inputs, instruction: Copy | Add) -> dict[str, Any]:
    """Return what of a COPY, apart from the files, its result depends on."""
    return {
        "sources": instruction.sources,
        "dest": inputs.state.path(instruction.dest),
        "chown": instruction.chown,
        "chmod": instruction.chmod,
        "link": instruction.link,
        "parents": isinstance(instruction, Copy) and instruction.parents,
        "exclude": instruction.exclude,
        "texts": [(heredoc.name, Digest.of(heredoc.body.encode()).hex) for heredoc in instruction.heredocs],
    }


def copy_request(inputs: Inputs, instruction: Copy | Add, base: Root) -> CopyRequest:
    """Return the request for the files of a COPY or ADD."""
    return CopyRequest(
        sources=instruction.sources,
        dest=inputs.state.path(instruction.dest),
        owner=base.owner(instruction.chown) if instruction.chown else None,
        chmod=Chmod.parse(instruction.chmod) if instruction.chmod else None,
        parents=isinstance(instruction, Copy) and instruction.parents,
        exclude=IgnoreRules.of(instruction.exclude),
        time=inputs.worker.times.made,
        texts=tuple((heredoc.name, heredoc.body.encode()) for heredoc in instruction.heredocs),
    )


def copy_history(name: str, instruction: Copy | Add) -> str:
    """Return the line of history of a COPY or ADD."""
    flags = [
        f"--{flag}={value} "
        for flag, value in (
            ("from", getattr(instruction, "from_", None)),
            ("chown", instruction.chown),
            ("chmod", instruction.chmod),
        )
        if value
    ]
    names = [*instruction.sources, *(heredoc.name for heredoc in instruction.heredocs)]
    return f"{name} {''.join(flags)}{' '.join(names)} {instruction.dest}"


def _retimed(items: Iterable[Item], times: Callable[[int], int]) -> Iterator[Item]:
    for entry, content in items:
        yield entry._replace(mtime=times(entry.mtime)), content


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


def base_state(image: Image) -> StageState:
    """Return the state after the FROM of an image."""
    run = with_defaults(image.config.run)
    return StageState(
        platform=image.config.platform,
        run=run,
        layers=image.layers,
        base_layers=len(image.layers),
        history=complete_history(image.config),
        author=image.config.author,
        variables=run.environment,
    )


def complete_history(config: ImageConfig) -> tuple[History, ...]:
    """Return a base image's history; one without any gets an entry for each layer, so that counts still match."""
    if config.history or not config.diff_ids:
        return config.history
    return tuple(History(config.created, comment="layer of the base image") for _ in config.diff_ids)
