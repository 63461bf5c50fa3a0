"""Root filesystems of images: unpacked and edited, squashed, listed and compared.

An image may be in any place that `transports` knows; `imagetool.api` gives these verbs to
programs, `imagetool.cli.rootfs` to the command line.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from imagetool.content.store import Fetcher
from imagetool.errors import UsageError
from imagetool.image.image import Image, load
from imagetool.oci.config import History, ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform
from imagetool.progress import Note, Observer
from imagetool.transports import Surroundings, find
from imagetool.values import dataclass, replace

if TYPE_CHECKING:
    from imagetool.image.contents import ImageDifference
    from imagetool.layer.entry import Entry
    from imagetool.snapshot.bundle import Bundle
    from imagetool.streams.codecs import Codec


@contextmanager
def _opened(reference: str, around: Surroundings, platform: Platform | None = None) -> Iterator[Image]:
    transport, rest = find(reference)
    with transport.source(rest, around) as source:
        yield load(source.store, source.root, platform=platform)


def unpack(
    reference: str, folder: Path, around: Surroundings, *, platform: Platform | None, rootless: bool, observer: Observer
) -> Bundle:
    """Unpack an image to FOLDER/rootfs, with a scan beside it that `repack` compares with.

    Args:
        folder: empty, or made.
        rootless: record owners in attributes instead of setting them, as users other than root must.
    """
    from imagetool.snapshot.bundle import unpack_bundle

    with _opened(reference, around, platform) as image:
        return unpack_bundle(image, folder, source=reference, rootless=rootless, warn=_warning(observer))


def _warning(observer: Observer) -> Callable[[str], None]:
    return lambda text: observer(Note(text, "warning"))


@dataclass(frozen=True, slots=True)
class Repacked:
    """The image that now has the edits; `layer` is None when there were none and the image is as it was."""

    image: Descriptor
    layer: Descriptor | None


def repack(
    folder: Path,
    destination: str,
    around: Surroundings,
    *,
    codec: Codec,
    comment: str = "",
    refresh: bool = False,
    clamp: int | None = None,
    observer: Observer,
) -> Repacked:
    """Add what was edited in FOLDER/rootfs since it was unpacked to its image, as one layer.

    The image is written to `destination`; the one it was unpacked from must still be where it was.

    Args:
        refresh: go on from the new image: the next difference is to what is there now.
        clamp: the latest time, in nanoseconds, that a file may have in the layer.
    """
    from imagetool.image.append import append_layer
    from imagetool.image.write import write_layer
    from imagetool.layer.tarcodec import write
    from imagetool.snapshot.bundle import open_bundle

    bundle = open_bundle(folder)
    after = bundle.scan()
    transport, rest = find(bundle.source)
    with transport.source(rest, around) as source, around.store.session():
        image, layer = load(source.store, bundle.image), None
        changes = iter(bundle.changes(after, image, clamp=clamp, warn=_warning(observer)))
        first = next(changes, None)
        if first is not None:
            layer = write_layer(write(itertools.chain([first], changes)), around.store, codec)
            step = History(created=_created(around), created_by="imagetool repack", comment=comment)
            image = append_layer(image, layer, step, around.store)
        _copy(image, source.store, destination, around, observer)
    if refresh:
        replace(bundle, source=destination, image=image.descriptor, before=after).save()
    return Repacked(image.descriptor, None if layer is None else layer.descriptor)


def _created(around: Surroundings) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(around.epoch))


def _copy(image: Image, lower: Fetcher, destination: str, around: Surroundings, observer: Observer) -> None:
    """Copy an image whose new parts are in the local store and whose old ones are in another."""
    from imagetool.image.append import Stacked
    from imagetool.transfer import copy

    writer, rest = find(destination)
    with writer.destination(rest, around) as target:
        copy(Stacked(around.store, lower), target.store, image.descriptor, tags=target.tags, observer=observer)


def squash(reference: str, destination: str, around: Surroundings, *, codec: Codec, observer: Observer) -> Descriptor:
    """Make an image of one layer that has the same root filesystem; return its manifest.

    The layers are merged as streams: nothing is unpacked. History keeps its steps; the layers
    they made are in the last one.
    """
    from imagetool.image.write import write_image, write_layer
    from imagetool.layer.merge import flatten
    from imagetool.layer.tarcodec import write
    from imagetool.oci.document import decode, encode

    with _opened(reference, around) as image, around.store.session():
        layer = write_layer(write(flatten(image.openers())), around.store, codec)
        tree = decode(image.config.raw, what="config")
        tree["rootfs"] = {"type": "layers", "diff_ids": [str(layer.diff_id)]}
        steps = [replace(step, empty_layer=True).tree() for step in image.config.history]
        made = History(created=image.config.created or _created(around), created_by="imagetool squash")
        tree["history"] = [*steps, made.tree()]
        written = write_image(around.store, ImageConfig.parse(encode(tree)), [layer])
        squashed = Image(written, ImageConfig.parse(encode(tree)), (layer,), around.store)
        _copy(squashed, image.content, destination, around, observer)
    return written.descriptor


def compare(left: str, right: str, around: Surroundings, *, platform: Platform | None = None) -> ImageDifference:
    """Compare the root filesystems of two images; see `image.contents.diff_images`."""
    from imagetool.image.contents import diff_images

    with _opened(left, around, platform) as one, _opened(right, around, platform) as other:
        return diff_images(one, other)


def entries(
    reference: str, around: Surroundings, *, layer: str | None = None, platform: Platform | None = None
) -> Iterator[Entry]:
    """Yield what is in an image, or in one layer of it; see `image.contents.entries`.

    Args:
        layer: its number, 1 for the base, or the beginning of its digest or diff ID.
    """
    from imagetool.image.contents import entries as listed

    with _opened(reference, around, platform) as image:
        yield from listed(image, layer=None if layer is None else _number(image, layer))


def _number(image: Image, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 5 and 0 < int(text) <= len(image.layers):
        return int(text) - 1
    wanted = text.removeprefix("sha256:")
    found = [
        number
        for number, layer in enumerate(image.layers)
        if len(wanted) >= 4 and any(_starts(digest, wanted) for digest in (layer.descriptor.digest, layer.diff_id))
    ]
    if len(found) != 1:
        raise UsageError(f"--layer {text[:80]!r}: give a number from 1 to {len(image.layers)}, or a digest's beginning")
    return found[0]


def _starts(digest: Digest, beginning: str) -> bool:
    return digest.hex.startswith(beginning)
