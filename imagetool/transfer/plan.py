"""What a copy consists of: documents in the order they must arrive, and the blobs they name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, runtime_checkable

from imagetool import limits
from imagetool.content.store import Fetcher, Mounter, Resolver, fetch_document
from imagetool.errors import LimitExceeded, NotFound
from imagetool.image.image import select
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Document, Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.values import dataclass

Outcome = Literal["done", "exists", "mounted"]


@runtime_checkable
class RegistryStore(Resolver, Mounter, Protocol):
    """A store behind a network that refuses a document whose blobs it lacks.

    A tag there vouches for all that it reaches, and each question costs a request.
    Blobs can be mounted between repositories of one registry: `place` tells which ones are.
    """

    @property
    def place(self) -> tuple[str, str]:
        """Its registry and its repository there."""
        ...

    def push_tagged(self, descriptor: Descriptor, chunks: Iterable[bytes], reference: str) -> None:
        """Store a document and point a tag at it in one request."""
        ...


@dataclass(frozen=True, slots=True)
class Leaf:
    """A config or layer; `what` is its place for people ("layer 3 of 5")."""

    descriptor: Descriptor
    what: str


@dataclass(frozen=True, slots=True)
class Graph:
    """All that a root reaches, every digest once: documents children first, and leaves by manifest.

    `images` holds for each manifest its config and its layers; a leaf that an earlier manifest
    has too is not repeated.
    """

    documents: tuple[tuple[Descriptor, Document], ...]
    images: tuple[tuple[Leaf | None, tuple[Leaf, ...]], ...]
    others: tuple[Leaf, ...]

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Configs, layers and others in the order of the documents."""
        found: list[Leaf] = []
        for config, layers in self.images:
            found += [config, *layers] if config else layers
        return (*found, *self.others)


@dataclass(frozen=True, slots=True)
class BlobReport:
    """What became of one blob: moved now ("done"), found ("exists") or mounted at the destination."""

    descriptor: Descriptor
    what: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did. `root` is what the tags point at: the chosen image when a platform was asked for.

    `blobs` are the configs and layers; none when the destination had the root already.
    """

    root: Descriptor
    blobs: tuple[BlobReport, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def moved(self) -> int:
        """The bytes of configs and layers that were streamed."""
        return sum(blob.descriptor.size for blob in self.blobs if blob.outcome == "done")


def choose(
    source: Fetcher, root: Descriptor, platform: Platform | None
) -> tuple[Descriptor, list[tuple[Descriptor, Document]]]:
    """Return the image of an index that is for `platform`, and the indexes that lead to it, the root first.

    It is the root itself, and there are no indexes, when there is nothing to choose.
    Raises NotFound when the index has no image for it, LimitExceeded for indexes too deep.
    """
    indexes: list[tuple[Descriptor, Document]] = []
    for _ in range(limits.INDEX_DEPTH + 1):
        if platform is None or root.media_type not in mediatype.INDEXES:
            return root, indexes
        document = fetch_document(source, root)
        if not isinstance(document, Index):
            return root, indexes
        indexes.append((root, document))
        root = select(document, platform, where=f"index {root.digest}")
    raise LimitExceeded(f"index {root.digest}: indexes nested deeper than {limits.named('INDEX_DEPTH')}")


def read_graph(source: Fetcher, root: Descriptor) -> Graph:
    """Fetch every document below a root, each once.

    Raises LimitExceeded for too many, too large together or nested too deep.
    """
    documents: dict[Digest, tuple[Descriptor, Document]] = {}
    others: dict[Digest, Descriptor] = {}
    begun: set[Digest] = set()
    held = 0

    def visit(descriptor: Descriptor, depth: int) -> None:
        nonlocal held
        if descriptor.digest in begun:
            return
        begun.add(descriptor.digest)
        if depth > limits.INDEX_DEPTH:
            raise LimitExceeded(f"index {root.digest}: indexes nested deeper than {limits.named('INDEX_DEPTH')}")
        document = _fetch(source, descriptor, root)
        held += len(document.raw)
        if len(begun) > limits.GRAPH_DOCUMENTS:
            raise LimitExceeded(f"index {root.digest}: more documents than {limits.named('GRAPH_DOCUMENTS')}")
        if held > limits.GRAPH_BYTES:
            raise LimitExceeded(f"index {root.digest}: its documents are larger than {limits.named('GRAPH_BYTES')}")
        for child in document.manifests if isinstance(document, Index) else ():
            if child.media_type in mediatype.DOCUMENTS:
                visit(child, depth + 1)
            else:
                others.setdefault(child.digest, child)
        documents[descriptor.digest] = (descriptor, document)

    visit(root, 0)
    return _with_leaves(tuple(documents.values()), others)


def _fetch(source: Fetcher, descriptor: Descriptor, root: Descriptor) -> Document:
    try:
        return fetch_document(source, descriptor)
    except NotFound as error:
        if descriptor is not root:
            error.add_note(f"index {root.digest} names it; to copy a single image of the index, give its platform")
        raise


def _with_leaves(documents: tuple[tuple[Descriptor, Document], ...], others: dict[Digest, Descriptor]) -> Graph:
    manifests = [(descriptor, found) for descriptor, found in documents if isinstance(found, Manifest)]
    seen: set[Digest] = set()
    images = []
    for descriptor, manifest in manifests:
        of = f" of {descriptor.platform or descriptor.digest.short}" if len(manifests) > 1 else ""
        total = len(manifest.layers)
        config = Leaf(manifest.config, f"config{of}")
        layers = [Leaf(layer, f"layer {number} of {total}{of}") for number, layer in enumerate(manifest.layers, 1)]
        fresh = [leaf for leaf in (config, *layers) if _is_first(leaf.descriptor.digest, seen)]
        images.append((config if config in fresh else None, tuple(leaf for leaf in fresh if leaf is not config)))
    rest = [Leaf(child, "blob") for child in others.values() if _is_first(child.digest, seen)]
    return Graph(documents, tuple(images), tuple(rest))


def _is_first(digest: Digest, seen: set[Digest]) -> bool:
    if digest in seen:
        return False
    seen.add(digest)
    return True
