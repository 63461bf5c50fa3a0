"""Find the image that a command line names: in the local store, in its registry, or at any transport; list images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.content.store import fetch_document
from imagetool.errors import ImagetoolError, InvalidReference, NotFound
from imagetool.image.image import Image, load, this_platform
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index
from imagetool.oci.mediatype import MANIFESTS
from imagetool.oci.platform import Platform
from imagetool.oci.reference import Reference
from imagetool.progress import Note, Observer
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.transports.local import Local, is_identity, local_name

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@contextmanager
def found_image(
    text: str, around: Surroundings, *, platform: Platform | None = None, observer: Observer
) -> Iterator[tuple[Image, str]]:
    """Yield an image and its familiar name, or its digest when it has none.

    A plain name that the local store does not have is pulled first. Raises NotFound and the like.
    """
    transport, rest = find(text)
    if isinstance(transport, Local):
        here = None
        try:
            with transport.source(rest, around) as here:
                load(here.store, here.root, platform=platform)
        except NotFound as missing:
            if not _is_name(rest) or is_identity(rest):
                raise
            observer(Note(f"pulling {rest}"))
            try:
                _pull(rest, around, observer, platform or this_platform())
            except ImagetoolError as error:
                if here:  # under that name, but for other platforms
                    error.add_note(f"hint: in the local store, {missing}")
                raise
    with transport.source(rest, around) as opened:
        image = load(opened.store, opened.root, platform=platform)
        candidates = [opened.root.annotations.get(key, "") for key in _NAMES]
        if text.startswith("docker://"):
            candidates.insert(0, rest)
        name = next((local_name(candidate) for candidate in candidates if _is_name(candidate)), "")
        yield image, name or str(image.descriptor.digest)


def _pull(name: str, around: Surroundings, observer: Observer, platform: Platform) -> None:
    from imagetool.transfer import copy
    from imagetool.transports.docker import Docker

    with around.store.session(), Docker().source(name, around) as source:
        tags = (local_name(name),)
        copy(source.store, around.store, source.root, tags=tags, platform=platform, keep_index=True, observer=observer)


def _is_name(text: str) -> bool:
    try:
        Reference.parse(text)
    except InvalidReference:
        return False
    return bool(text)


def listed(store: LayoutStore, name: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield what lists tell of each root of the local store, in the order of its index, all with the same fields.

    Of an index it is about this machine's image, or the first other one that is here. What is no image is known by
    its digest, without a moment it was made at.

    Args:
        name: only this repository, or this name of an image; None for all. Raises InvalidReference.
    """
    wanted = {local_name(name), Reference.parse(name).familiar} if name else set()
    for root in store.index().manifests:
        known = root.annotations.get(REF_NAME, "")
        if name and not (known and {known, known.rpartition(":")[0]} & wanted):
            continue
        entry: dict[str, Any] = {"name": known or "<none>", "digest": str(root.digest)}
        yield entry | _described(store, root)


def _described(store: LayoutStore, root: Descriptor) -> dict[str, Any]:
    try:
        image = _any_image(store, root)
    except ImagetoolError:
        return {"id": str(root.digest), "created": "", "size": _blobs_size(store, root)}
    size = sum(layer.descriptor.size for layer in image.layers)
    return {"id": str(image.config.descriptor.digest), "created": image.config.created, "size": size}


def _any_image(store: LayoutStore, root: Descriptor) -> Image:
    """Read this machine's image of an index, or the first other one that is here."""
    try:
        return load(store, root)
    except NotFound:
        document = fetch_document(store, root)
        for child in document.manifests if isinstance(document, Index) else ():
            if child.platform is not None and child.media_type in MANIFESTS and store.exists(child):
                return load(store, child)
        raise


def _blobs_size(store: LayoutStore, root: Descriptor) -> int:
    try:
        document = fetch_document(store, root)
    except ImagetoolError:
        return 0
    return 0 if isinstance(document, Index) else sum(child.size for child in document.children)
