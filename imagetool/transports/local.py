"""Plain names: the local store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagetool.content.layout import LayoutStore
from imagetool.errors import NotFound
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.reference import Reference
from imagetool.transports import OpenDestination, OpenSource, Surroundings


def local_name(text: str) -> str:
    """Return the form in which the local store keeps a name: familiar, with a tag."""
    return Reference.parse(text).with_default_tag().familiar


def resolve(store: LayoutStore, text: str) -> Descriptor:
    """Find an image by name, digest, or the beginning of a digest (4 digits or more). Raises NotFound."""
    wanted = text.removeprefix("sha256:")
    if len(wanted) >= 4 and not set(wanted) - set("0123456789abcdef"):
        found = {root.digest: root for root in store.index().manifests if root.digest.hex.startswith(wanted)}
        if len(found) == 1:
            return next(iter(found.values()))
    try:
        return store.resolve(local_name(text))
    except NotFound:
        names = ", ".join(list(store.names())[:8])
        raise NotFound(f"no image {text!r} in the local store; it has: {names or 'none'}") from None


class Local:
    """The local store as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open a local image; see `Transport`."""
        yield OpenSource(around.store, resolve(around.store, rest), rest)

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Write to the local store; see `Transport`."""
        name = local_name(rest)
        with around.store.session():
            yield OpenDestination(around.store, (name,), name)
