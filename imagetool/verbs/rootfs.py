"""Root filesystems of images: unpacked and edited, squashed, listed and compared.

An image may be in any place that `transports` knows; `imagetool.api` gives these verbs to
programs, `imagetool.cli.rootfs` to the command line.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagetool.content.store import Fetcher
from imagetool.errors import HostError, UsageError
from imagetool.image.image import Image, Layer, load
from imagetool.oci.config import History, ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform
from imagetool.progress import Note, Observer
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.values import dataclass, replace

if TYPE_CHECKING:
    from imagetool.build.files import Trees
    from imagetool.image.difference import ImageDifference
    from imagetool.layer.entry import Entry, Item
    from imagetool.layer.idmap import OwnerMap
    from imagetool.snapshot.bundle import Bundle
    from imagetool.streams.codecs import Codec

_MAPPED: Final = (
    "unpacking without root: other owners are subordinate ids of this user; --rootless records them instead"
)
_RECORDED: Final = "unpacking without root and subordinate ids: owners are recorded in user.rootlesscontainers"


@contextmanager
def _opened(reference: str, around: Surroundings, platform: Platform | None = None) -> Iterator[Image]:
    transport, rest = find(reference)
    with transport.source(rest, around) as source:
        yield load(source.store, source.root, platform=platform)


def unpack(
    reference: str,
    folder: Path,
    around: Surroundings,
    *,
    platform: Platform | None,
    rootless: bool,
    owners: OwnerMap | None = None,
    sync: bool,
    observer: Observer,
) -> Bundle:
    """Unpack an image to FOLDER/rootfs, with a scan beside it that `repack` compares with.

    A user other than root who has subordinate ids becomes root of a user namespace, in which they
    are the owners; this process stays there, and must still have one thread only. One without
    them is `rootless`.

    Args:
        folder: empty, or made.
        rootless: record owners in attributes instead of setting them.
        owners: which ids on this host the ids of the image become.
        sync: wait until all of it is on the disk.
    """
    from imagetool.runtime.namespaces import own_ids
    from imagetool.snapshot.bundle import unpack_bundle

    if rootless and owners is not None:
        raise UsageError("--rootless sets no owners, and --uid-map and --gid-map say which: give one or the other")
    is_mapped = False
    if not rootless and os.geteuid() != 0:
        is_mapped = _become_root_of_range()
        if owners is None:
            rootless = not is_mapped
            observer(Note(_RECORDED if rootless else _MAPPED))
    with _opened(reference, around, platform) as image:
        return unpack_bundle(
            image,
            folder,
            source=reference,
            rootless=rootless,
            lenient=is_mapped,
            ids=own_ids(),
            owners=owners,
            sync=sync,
            warn=_warning(observer),
        )


def _become_root_of_range() -> bool:
    """Become root of a user namespace with this user's subordinate ids; say whether there are any that may be used."""
    from imagetool.runtime.namespaces import enter_user_namespace, has_range, own_ids

    if not has_range():
        return False
    outside = own_ids()
    try:
        enter_user_namespace()
    except HostError as error:
        if own_ids() == outside:  # no namespace was made
            return False
        error.add_note("--rootless unpacks without subordinate ids and records owners in attributes")
        raise
    return True


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
    _become_owner(bundle)
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


def _become_owner(bundle: Bundle) -> None:
    """Become one for whom ids are those that they were for whom unpacked a bundle; raises UsageError."""
    from imagetool.runtime.namespaces import own_ids

    if bundle.ids in ("", own_ids()):
        return
    if os.geteuid() != 0:
        _become_root_of_range()
    if bundle.ids != own_ids():
        raise UsageError(
            f"{bundle.folder} was unpacked where users had other ids ({bundle.ids}); repack it as the user who "
            "unpacked it"
        )


def _created(around: Surroundings) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(around.epoch))


def _copy(image: Image, lower: Fetcher, destination: str, around: Surroundings, observer: Observer) -> None:
    """Copy an image whose new parts are in the local store and whose old ones are in another."""
    from imagetool.image.append import Stacked
    from imagetool.transfer import copy

    writer, rest = find(destination)
    with writer.destination(rest, around) as target:
        copy(Stacked(around.store, lower), target.store, image.descriptor, tags=target.tags, observer=observer)


@dataclass(frozen=True, slots=True)
class Span:
    """Which layers to merge; all that is not said means as many as there are.

    first, last: numbers, 1 for the base, or beginnings of digests, as `entries` takes them.
    base: an image whose layers stay as they are, those below `first`.
    """

    first: str | None = None
    last: str | None = None
    base: str | None = None


def squash(
    reference: str,
    destination: str,
    around: Surroundings,
    *,
    codec: Codec,
    span: Span | None = None,
    observer: Observer,
) -> Descriptor:
    """Make an image with the same root filesystem, of whose layers some, or all, are one; return its manifest.

    The layers are merged as streams: nothing is unpacked. The others stay, byte for byte. History
    keeps its steps; the layers they made are in one that says so.
    """
    from imagetool.build.files import Trees
    from imagetool.image.write import write_image, write_layer
    from imagetool.layer.tarcodec import write
    from imagetool.oci.document import decode, encode

    with _opened(reference, around) as image, around.store.session():
        low, high = _spanned(image, reference, span or Span(), around)
        items = _merged(Trees(image.content), image.layers[:high], low, around.epoch * 10**9)
        layer = write_layer(write(items), around.store, codec)
        layers = (*image.layers[:low], layer, *image.layers[high:])
        tree = decode(image.config.raw, what="config")
        tree["rootfs"] = {"type": "layers", "diff_ids": [str(one.diff_id) for one in layers]}
        made = History(created=image.config.created or _created(around), created_by="imagetool squash")
        tree["history"] = [step.tree() for step in _retold(image.config.history, low, high, made)]
        config = ImageConfig.parse(encode(tree))
        written = write_image(around.store, config, layers)
        _copy(Image(written, config, layers, around.store), image.content, destination, around, observer)
    return written.descriptor


def _spanned(image: Image, reference: str, span: Span, around: Surroundings) -> tuple[int, int]:
    """Return the layers of a span: from, counted from 0, and up to."""
    low = 0 if span.first is None else _number(image, span.first, "--from")
    high = len(image.layers) if span.last is None else _number(image, span.last, "--to") + 1
    if span.base is not None:
        if span.first is not None:
            raise UsageError("--keep-base says where to begin, and so does --from: give one of them")
        with _opened(span.base, around, image.config.platform) as base:
            kept = [layer.diff_id for layer in base.layers]
        if [layer.diff_id for layer in image.layers[: len(kept)]] != kept:
            raise UsageError(f"{span.base} is no base of {reference}: its layers are not the first of that")
        low = len(kept)
    if low >= high:
        raise UsageError(f"{reference} has {len(image.layers)} layers, of which none is left to be merged")
    return low, high


def _merged(trees: Trees, layers: Sequence[Layer], low: int, time: int) -> Iterator[Item]:
    """Yield one layer that does what those from `low` on do to those below."""
    from imagetool.build.squash import squashed
    from imagetool.layer.merge import flatten

    files = trees.files(layers)
    if low == 0:
        return flatten(files.layers, files.tree)
    return squashed(files, trees.files(layers[:low]).tree, time=time)


def _retold(history: Sequence[History], low: int, high: int, made: History) -> Iterator[History]:
    """Yield the steps; those of the merged layers have none any more, and `made` follows the last of them."""
    seen, told = 0, False
    for step in history:
        if not step.empty_layer:
            if seen == high and not told:
                yield made
                told = True
            seen += 1
            step = replace(step, empty_layer=True) if low < seen <= high else step
        yield step
    if not told:
        yield made


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
        yield from listed(image, layer=None if layer is None else _number(image, layer, "--layer"))


def _number(image: Image, text: str, option: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 5 and 0 < int(text) <= len(image.layers):
        return int(text) - 1
    wanted = text.removeprefix("sha256:")
    found = [
        number
        for number, layer in enumerate(image.layers)
        if len(wanted) >= 4 and any(_starts(digest, wanted) for digest in (layer.descriptor.digest, layer.diff_id))
    ]
    if len(found) != 1:
        raise UsageError(
            f"{option} {text[:80]!r}: give a number from 1 to {len(image.layers)}, or a digest's beginning"
        )
    return found[0]


def _starts(digest: Digest, beginning: str) -> bool:
    return digest.hex.startswith(beginning)
