"""Plain names: the local store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.errors import ImagetoolError, NotFound
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.reference import Reference
from imagetool.transports.base import OpenDestination, OpenSource, Surroundings

_SHORTEST: Final = 4  # digits of the beginning of a digest
_WHOLE: Final = 64


def local_name(text: str) -> str:
    """Return the form in which the local store keeps a name: familiar, with a tag."""
    return Reference.parse(text).with_default_tag().familiar


def is_identity(text: str) -> bool:
    """Say whether a text can only be an image's ID or digest, or its beginning; never the name of one to pull."""
    algorithm, _, digits = text.partition(":")
    return (algorithm == "sha256" and _is_hex(digits)) or (len(text) == _WHOLE and _is_hex(text))


def resolve(store: LayoutStore, text: str) -> Descriptor:
    """Find an image by name, digest, image ID, or the beginning of these (4 digits or more). Raises NotFound."""
    return matching(store, text)[0]


def matching(store: LayoutStore, text: str) -> list[Descriptor]:
    """Return the root of that name, or all that have that digest or image ID: one for each name of the image.

    NAME@DIGEST is what has that digest, whatever it is called here: the same bytes are the same image.
    Raises NotFound when there is none, or when the beginning of a digest fits several images.
    """
    if not is_identity(text):
        name = local_name(text)
        try:
            return [store.resolve(name)]
        except NotFound:
            _, at, digest = name.partition("@")
            for root in store.index().manifests if at else ():
                if str(root.digest) == digest:
                    return [root]
    digits = text.removeprefix("sha256:")
    found: dict[str, list[Descriptor]] = {}
    if _is_hex(digits):
        roots = sorted(store.index().manifests, key=lambda root: REF_NAME not in root.annotations)
        for root in roots:
            for identity in {root.digest.hex, _image_id(store, root)}:
                if identity.startswith(digits):
                    found.setdefault(identity, []).append(root)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        names = ", ".join(sorted(identity[:12] for identity in found)[:8])
        raise NotFound(f"several images have IDs or digests that begin with {text!r}: {names}")
    names = ", ".join(list(store.names())[:8])
    raise NotFound(f"no image {text!r} in the local store; it has: {names or 'none'}")


def _is_hex(digits: str) -> bool:
    return len(digits) >= _SHORTEST and not set(digits) - set("0123456789abcdef")


def _image_id(store: LayoutStore, root: Descriptor) -> str:
    """Return the digits of the ID that `images` shows for a root; those of its digest when it is no image."""
    from imagetool.image.image import load

    try:
        return load(store, root).config.descriptor.digest.hex
    except ImagetoolError:  # another platform's, an artifact: it is known by its digest
        return root.digest.hex


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
