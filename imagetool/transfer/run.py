"""Copy an image: ask for every blob, stream what is missing in parallel, then documents, then tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

from imagetool.content.layout import LayoutStore
from imagetool.content.store import Destination, Fetcher, fetch_bytes, keep_bytes
from imagetool.errors import AuthError, ImagetoolError, NotFound, Unsupported, VerificationError
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.platform import Platform
from imagetool.progress import BlobAdvanced, BlobFinished, BlobStarted, Observer, silent
from imagetool.streams.verify import Verified
from imagetool.transfer.crew import Crew
from imagetool.transfer.origins import Origins
from imagetool.transfer.plan import BlobReport, CopyReport, Graph, Leaf, Outcome, RegistryStore, choose, read_graph
from imagetool.values import replace

Action = Literal["push", "pull", "copy"]
_LeafTask = Callable[[Leaf, Crew[Outcome | None]], Outcome | None]


def copy(
    source: Fetcher,
    destination: Destination,
    root: Descriptor,
    *,
    tags: Sequence[str] = (),
    platform: Platform | None = None,
    keep_index: bool = False,
    observer: Observer = silent,
    jobs: int = 4,
    origins: Origins | None = None,
) -> CopyReport:
    """Copy everything that `root` reaches, byte for byte, and point the tags at it.

    A registry whose tag points at the root already is asked nothing more (it refuses documents
    without their blobs); any other destination is asked for each blob. Nothing is tagged, and no
    document written, unless all that it needs has arrived.

    Args:
        platform: takes that image of an index; it becomes the root.
        keep_index: the index stays the root, with that image of it only; for layouts, as no registry takes it so.
        jobs: blobs that are asked for or moved at the same time.
        origins: remembers which repositories of a registry have which blobs. A blob that the
            destination lacks and a sibling has is mounted from there, as it is from a source in
            the same registry.

    Raises the first error of any blob, with a note that says which one it was.
    """
    image, indexes = choose(source, root, platform)
    root = root if keep_index else image
    missing = tuple(tags)
    if isinstance(destination, RegistryStore):
        missing = tuple(tag for tag in tags if not _points_at(destination, tag, root))
        if len(missing) < len(tags) or (not tags and destination.exists(root)):
            if missing:
                _finish(destination, root, fetch_bytes(source, root), missing)
            return CopyReport(root, (), missing)
    graph = read_graph(source, image)
    if keep_index:
        graph = replace(graph, documents=(*graph.documents, *reversed(indexes)))
    blobs = _Blobs(source, destination, observer, jobs, origins).move(graph)
    for descriptor, document in graph.documents[:-1]:
        _push_document(destination, descriptor, document.raw)
    _finish(destination, root, graph.documents[-1][1].raw, missing)
    if origins is not None:
        _record(origins, [store for store in (source, destination) if isinstance(store, RegistryStore)], blobs)
    return CopyReport(root, blobs, missing)


def _record(origins: Origins, stores: Sequence[RegistryStore], blobs: Sequence[BlobReport]) -> None:
    """Remember that the registries have the blobs now."""
    for store in stores:
        for blob in blobs:
            origins.record(*store.place, blob.descriptor.digest)


def _points_at(destination: RegistryStore, tag: str, root: Descriptor) -> bool:
    """Say whether a tag is up to date; one that cannot be read will be written over, or its writing refused."""
    try:
        return destination.resolve(tag).digest == root.digest
    except (NotFound, AuthError, VerificationError, Unsupported):
        return False


def _push_document(destination: Destination, descriptor: Descriptor, raw: bytes) -> None:
    try:
        _write_document(destination, descriptor, raw)
    except ImagetoolError as error:
        error.add_note(f"while writing document {descriptor.digest}")
        raise


def _write_document(destination: Destination, descriptor: Descriptor, raw: bytes) -> None:
    if isinstance(destination, LayoutStore):
        keep_bytes(destination, descriptor, raw)
    else:
        destination.push(descriptor, [raw])


def _finish(destination: Destination, root: Descriptor, raw: bytes, tags: Sequence[str]) -> None:
    """Write the root document and its tags; a registry takes it together with the first one."""
    try:
        if isinstance(destination, RegistryStore) and tags:
            destination.push_tagged(root, [raw], tags[0])
            tags = tags[1:]
        else:
            _write_document(destination, root, raw)
        for tag in tags:
            destination.tag(root, tag)
    except ImagetoolError as error:
        error.add_note(f"while writing and tagging the image {root.digest}")
        raise


class _Blobs:
    """The blobs of one copy."""

    def __init__(
        self, source: Fetcher, destination: Destination, observer: Observer, jobs: int, origins: Origins | None
    ) -> None:
        self.source = source
        self.observer = observer
        self._destination = destination
        self._jobs = jobs
        self._origins = origins
        self._action: Action = "copy"
        if isinstance(source, RegistryStore) != isinstance(destination, RegistryStore):
            self._action = "pull" if isinstance(source, RegistryStore) else "push"

    def move(self, graph: Graph) -> tuple[BlobReport, ...]:
        """Bring every leaf to the destination; report in the order of the graph."""
        outcomes: dict[Leaf, Outcome | None] = {}
        layers = [layer for _, layers in graph.images for layer in layers] + list(graph.others)
        outcomes.update(zip(layers, self._each(self._ask, layers), strict=True))
        configs = [config for config, layers in graph.images if config and self._worth_asking(layers, outcomes)]
        outcomes.update(zip(configs, self._each(self._ask, configs), strict=True))
        absent = [leaf for leaf in graph.leaves if outcomes.get(leaf) is None]
        absent.sort(key=lambda leaf: -leaf.descriptor.size)
        outcomes.update(zip(absent, self._each(self._send, absent), strict=True))
        return tuple(BlobReport(leaf.descriptor, leaf.what, outcomes[leaf] or "done") for leaf in graph.leaves)

    def _worth_asking(self, layers: Sequence[Leaf], outcomes: dict[Leaf, Outcome | None]) -> bool:
        """Say whether a config may be there already: not, at a registry, when layers of its image are new."""
        if not isinstance(self._destination, RegistryStore):
            return True
        return bool(layers) and all(outcomes[layer] for layer in layers)

    def _each(self, do: _LeafTask, leaves: Sequence[Leaf]) -> list[Outcome | None]:
        crew: Crew[Outcome | None] = Crew(self._jobs)
        return crew.run([partial(self._noted, do, leaf, crew) for leaf in leaves])

    def _noted(self, do: _LeafTask, leaf: Leaf, crew: Crew[Outcome | None]) -> Outcome | None:
        doing = {"push": "pushing", "pull": "pulling", "copy": "copying"}[self._action]
        try:
            outcome = do(leaf, crew)
        except ImagetoolError as error:
            error.add_note(f"while {doing} {leaf.what} ({leaf.descriptor.digest})")
            raise
        if outcome is not None:
            self.observer(BlobFinished(str(leaf.descriptor.digest), outcome))
        return outcome

    def _ask(self, leaf: Leaf, _crew: Crew[Outcome | None]) -> Outcome | None:
        """Return how a blob is at the destination already; None when its bytes must move."""
        if self._destination.exists(leaf.descriptor):
            return "exists"
        mounter = self._destination
        if isinstance(mounter, RegistryStore):
            sibling = self._sibling(*mounter.place, leaf)
            if sibling is not None and mounter.mount(leaf.descriptor, sibling):
                return "mounted"
        return None

    def _sibling(self, registry: str, repository: str, leaf: Leaf) -> str | None:
        """Return the repository to mount a blob from. Only one is tried: each costs a request."""
        if isinstance(self.source, RegistryStore) and self.source.place[0] == registry:
            return self.source.place[1]
        known = self._origins.find(registry, leaf.descriptor.digest) if self._origins else ()
        return next((name for name in known if name != repository), None)

    def _send(self, leaf: Leaf, crew: Crew[Outcome | None]) -> Outcome:
        self.observer(
            BlobStarted(str(leaf.descriptor.digest), leaf.descriptor.size, leaf.what.partition(" ")[0], self._action)
        )
        stream = _Stream(self, leaf.descriptor, crew)
        self._destination.push(leaf.descriptor, Verified(leaf.descriptor, stream.chunks))
        return "done"


class _Stream:
    """A blob of the source; each iteration opens it anew, so an upload that broke can begin again."""

    def __init__(self, blobs: _Blobs, descriptor: Descriptor, crew: Crew[Outcome | None]) -> None:
        self._blobs = blobs
        self._descriptor = descriptor
        self._crew = crew
        self._told = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the blob; a second pass tells the observer only of what is new."""
        seen = 0
        self._crew.check()
        with self._blobs.source.fetch(self._descriptor) as chunks:
            for chunk in self._crew.watched(chunks):
                yield chunk
                seen += len(chunk)
                if seen > self._told:
                    self._blobs.observer(BlobAdvanced(str(self._descriptor.digest), seen - self._told))
                    self._told = seen
