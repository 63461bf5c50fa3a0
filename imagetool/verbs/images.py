"""Find the image that a command line names: in the local store, in its registry, or at any transport."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagetool.errors import InvalidReference, NotFound
from imagetool.image.image import Image, load
from imagetool.oci.platform import Platform
from imagetool.oci.reference import Reference
from imagetool.progress import Note, Observer
from imagetool.transports import Surroundings, find
from imagetool.transports.local import Local, local_name

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
        try:
            with transport.source(rest, around):
                pass
        except NotFound:
            if not _is_name(rest):
                raise
            observer(Note(f"pulling {rest}"))
            _pull(rest, around, observer)
    with transport.source(rest, around) as opened:
        image = load(opened.store, opened.root, platform=platform)
        candidates = [opened.root.annotations.get(key, "") for key in _NAMES]
        if text.startswith("docker://"):
            candidates.insert(0, rest)
        name = next((local_name(candidate) for candidate in candidates if _is_name(candidate)), "")
        yield image, name or str(image.descriptor.digest)


def _pull(name: str, around: Surroundings, observer: Observer) -> None:
    from imagetool.transfer import copy
    from imagetool.transports.docker import Docker

    with around.store.session(), Docker().source(name, around) as source:
        copy(source.store, around.store, source.root, tags=(local_name(name),), observer=observer)


def _is_name(text: str) -> bool:
    try:
        Reference.parse(text)
    except InvalidReference:
        return False
    return bool(text)
