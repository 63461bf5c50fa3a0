"""`push`, `pull`, `copy` and `convert`: one copy between two places, and what a built image is exported to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool.content.layout import LayoutStore
from imagetool.content.store import fetch_document
from imagetool.errors import NotFound, UsageError
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.mediatype import INDEXES
from imagetool.oci.platform import Platform
from imagetool.progress import Note
from imagetool.transports import find
from imagetool.transports.base import OpenSource
from imagetool.transports.docker import Docker
from imagetool.transports.local import Local
from imagetool.values import replace
from imagetool.verbs.workplace import Workplace, opened, pull_into

if TYPE_CHECKING:
    from imagetool.image.image import Image
    from imagetool.streams.codecs import Codec
    from imagetool.transfer import CopyReport


def pull(name: str, place: Workplace, *, platform: Platform | None = None, all_platforms: bool = False) -> CopyReport:
    """Copy an image from its registry to the local store, under the same name.

    Of an index comes the image for `platform` (default: this machine's), unless all are wanted. Its name and its
    digest are the index's all the same. Raises UsageError for what is no registry's.
    """
    from imagetool.image.image import this_platform

    transport, _ = find(name)
    if not isinstance(transport, Local | Docker):
        raise UsageError(f"{name!r} is no registry's: `imagetool copy` takes it from there, `load` all of an archive")
    store = place.store
    with store.session():
        wanted = None if all_platforms else platform or this_platform()
        return pull_into(name.removeprefix("docker://"), place, store, wanted)


def push(source: str, destination: str | None, place: Workplace, *, codec: Codec | None = None) -> CopyReport:
    """Copy a local image, or one of any transport, to a registry (or any transport)."""
    target = destination or source
    if "://" not in target and not target.startswith(("oci:", "oci-archive:", "docker-archive:", "dir:", "aci:")):
        target = f"docker://{target}"
    return copy(source, target, place, codec=codec)


def copy(
    source: str,
    destination: str,
    place: Workplace,
    *,
    platform: Platform | None = None,
    codec: Codec | None = None,
) -> CopyReport:
    """Copy an image between any two places, byte for byte; with a codec, its layers get another compression."""
    from imagetool.transfer import copy as transfer

    around = place.surroundings
    reader, from_rest = find(source)
    writer, to_rest = find(destination)
    with reader.source(from_rest, around) as opened, writer.destination(to_rest, around) as target:
        options: dict[str, Any] = {"tags": target.tags, "observer": place.observer, "origins": place.origins}
        if platform is None:
            opened = replace(opened, root=what_is_here(opened, place))
        if codec is None:
            return transfer(opened.store, target.store, opened.root, platform=platform, **options)
        with _recompressed(opened, target.store, codec, place, platform) as image:
            return transfer(image.content, target.store, image.root, **options)


def what_is_here(source: OpenSource, place: Workplace) -> Descriptor:
    """Return the root to copy: of an index that was pulled for one platform only, the image that is here, saying so.

    Raises NotFound when several of its images are here, but not all.
    """
    store, root = source.store, source.root
    while isinstance(store, LayoutStore) and root.media_type in INDEXES:
        children = fetch_document(store, root).children
        here = [child for child in children if store.exists(child)]
        if len(here) == len(children):
            return root
        if len(here) != 1:
            lacking = ", ".join(str(child.platform or child.digest) for child in children if child not in here)
            error = NotFound(f"{source.name} is an index, not all of which is here: it lacks {lacking[:400]}")
            error.add_note("--platform takes one of its images; `imagetool pull --all-platforms` brings all")
            raise error
        root = here[0]
        place.observer(Note(f"of the index {source.name}, only the image for {root.platform} is here; it alone goes"))
    return root


@contextmanager
def _recompressed(
    source: Any, destination: Any, codec: Codec, place: Workplace, platform: Platform | None
) -> Iterator[Any]:
    """Compress an image's layers anew, right at the destination when that is a layout; say what changed."""
    from imagetool.transfer.recompress import recompress
    from imagetool.transports.scratch import scratch_folder

    around = place.surroundings
    with ExitStack() as stack:
        scratch = destination
        if not isinstance(destination, LayoutStore):
            scratch = LayoutStore.create(stack.enter_context(scratch_folder(around)) / "layout")
        image = recompress(source.store, source.root, scratch, codec, platform=platform, observer=place.observer)
        for before, after in image.layers:
            sizes = f"{before.size} → {after.size} bytes"
            place.observer(Note(f"layer {before.digest.short} → {after.digest.short} ({codec.format}, {sizes})"))
        if image.root.digest != source.root.digest:
            place.observer(Note(f"image {source.root.digest} → {image.root.digest}"))
        yield image


def convert(source: str, destination: str, place: Workplace) -> str:
    """Convert an image to `aci:FILE`, an ACI to any other place, or copy between places of one format.

    Returns the ACI's image ID, or the digest of the OCI image; what cannot be carried is told the observer.
    """
    if not destination.startswith("aci:"):
        return str(copy(source, destination, place).root.digest)
    from imagetool.image.image import load
    from imagetool.transports.aci import export_aci

    around = place.surroundings
    path = Path(destination.removeprefix("aci:"))
    name = source if isinstance(find(source)[0], Local | Docker) else path.stem  # a path is no name
    with opened(source, place) as (store, root):
        identity = export_aci(load(store, root), path, name, epoch=around.epoch, observer=around.observer)
    return f"{identity.algorithm}-{identity.hex}"


def export(
    image: Image, kind: str, destination: str, place: Workplace, *, name: str = "", archive: bool = False
) -> None:
    """Write a built image elsewhere.

    Args:
        kind: oci (a layout, or an archive), docker (an archive), local (a directory with the root
            filesystem), tar (a tarball of it).
    """
    from imagetool.transports import rootfs

    if kind == "tar":
        rootfs.write_tar(image, Path(destination), place.observer)
    elif kind == "local":
        rootfs.write_folder(image, Path(destination), place.observer)
    elif kind in ("oci", "docker"):
        from imagetool.transfer import copy as transfer

        packed = archive or destination.endswith(".tar")
        prefix = "docker-archive:" if kind == "docker" else "oci-archive:" if packed else "oci:"
        writer, rest = find(prefix + destination + (f":{name}" if name else ""))
        with writer.destination(rest, place.surroundings) as target:
            transfer(image.content, target.store, image.descriptor, tags=target.tags, observer=place.observer)
    elif kind == "registry":
        push(str(image.descriptor.digest), f"docker://{destination.removeprefix('docker://')}", place)
    else:
        raise UsageError(f"--output type={kind!r}: there are oci, docker, local, tar and registry")
