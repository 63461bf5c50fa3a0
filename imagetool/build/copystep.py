"""COPY: a layer made in one pass from the source's bytes into the store, unless the cache has it.

Which paths are taken, and what they are called, is in `copying`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from imagetool.build.chmod import Chmod
from imagetool.build.copying import CopyPlan, CopyRequest, copy_items, plan_copy
from imagetool.build.files import Files, FolderSource
from imagetool.build.filestates import Fingerprint
from imagetool.build.folderfiles import FolderFiles
from imagetool.build.inputs import Inputs, Made, record, store
from imagetool.build.root import Root
from imagetool.dockerfile import Add, Copy, IgnoreRules
from imagetool.image.write import tar_digest
from imagetool.layer.entry import Item
from imagetool.layer.tarcodec import write
from imagetool.oci.digest import Digest


def copy(inputs: Inputs, instruction: Copy) -> Made:
    """COPY from the build context, from heredocs, or from another stage or image."""
    history = copy_history("COPY", instruction)
    if instruction.from_ is None:
        return copy_from_context(inputs, instruction, history)
    layers = inputs.source(instruction.from_, instruction)
    if isinstance(layers, FolderSource):
        return copy_from_context(inputs.over(layers), instruction, history)
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


def copy_from_context(inputs: Inputs, instruction: Copy, history: str) -> Made:
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


def content_digest(request: CopyRequest, files: Files) -> Digest:
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
