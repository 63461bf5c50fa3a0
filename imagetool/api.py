"""The verbs as plain functions: what the command line calls, and what CI scripts import.

The large ones live in `imagetool.verbs`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from imagetool.config.environment import source_date_epoch
from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.errors import NotFound, UsageError
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.platform import Platform
from imagetool.progress import Note, phase
from imagetool.transports.local import local_name, matching, resolve
from imagetool.verbs.workplace import Workplace, opened

if TYPE_CHECKING:
    from imagetool.build.finish import Finish
    from imagetool.build.settings import Settings
    from imagetool.image.difference import ImageDifference
    from imagetool.image.image import Image
    from imagetool.image.verify import Check
    from imagetool.layer.entry import Entry
    from imagetool.runtime.imageprocess import Wishes
    from imagetool.snapshot.bundle import Bundle
    from imagetool.streams.codecs import Codec
    from imagetool.verbs.build import build, build_index
    from imagetool.verbs.buildoptions import BuildOptions
    from imagetool.verbs.byhand import HandMounts, HandRun, run_in
    from imagetool.verbs.check import check
    from imagetool.verbs.committing import Committing, commit
    from imagetool.verbs.copy import convert, copy, export, pull, push
    from imagetool.verbs.copyinto import Copying, copy_into
    from imagetool.verbs.graph import graph
    from imagetool.verbs.load import load
    from imagetool.verbs.mounting import mount, mounted, umount
    from imagetool.verbs.registry import delete, tags
    from imagetool.verbs.rootfs import Repacked
    from imagetool.verbs.run import RunOptions
    from imagetool.verbs.working import Beginning, Configuration, begin, configure, containers, remove_containers

#: What has modules of its own, loaded when it is asked for: nobody else waits for what they import.
_MODULES: Final = {
    "verbs.build": ("build", "build_index"),
    "verbs.buildoptions": ("BuildOptions",),
    "verbs.check": ("check",),
    "verbs.copy": ("convert", "copy", "export", "pull", "push"),
    "verbs.graph": ("graph",),
    "verbs.load": ("load",),
    "verbs.registry": ("delete", "tags"),
    # Building by hand (docs/reference/by-hand.md), and the options of its verbs.
    "verbs.working": ("begin", "configure", "containers", "remove_containers", "Beginning", "Configuration"),
    "verbs.copyinto": ("copy_into", "Copying"),
    "verbs.byhand": ("run_in", "HandMounts", "HandRun"),
    "verbs.mounting": ("mount", "mounted", "umount"),
    "verbs.committing": ("commit", "Committing"),
    "verbs.run": ("RunOptions",),
    "runtime.imageprocess": ("Wishes",),
    "build.settings": ("Settings",),
    "build.finish": ("Finish",),
}


def __getattr__(name: str) -> Any:
    """Return what another module has (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"imagetool.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def login(registry: str, username: str, password: str, place: Workplace) -> str:
    """Ask a registry whether it takes a user name and password; keep them, and return where.

    Raises AuthError when it does not take them; then nothing is kept.
    """
    from imagetool.config import credentials
    from imagetool.config.certificates import tls_for
    from imagetool.distribution.auth import Credentials
    from imagetool.oci.reference import check_registry
    from imagetool.remote.registry import Registry

    check_registry(registry)
    given = Credentials(username, password)
    realms = credentials.trusted_realms()
    tls = tls_for(registry, verify=place.tls_verify)
    with Registry(registry, credentials=lambda _, __: given, tls=tls, trusted_realms=realms) as asked:
        asked.login()
    return credentials.login(registry, given, authfile=place.authfile)


def verify(reference: str, place: Workplace) -> Iterator[Check]:
    """Recompute every digest, size and diff ID of an image; yield a check for each."""
    from imagetool.image.verify import Watched
    from imagetool.image.verify import verify as checks

    with opened(reference, place) as (store, root):
        yield from checks(Watched(store, place.observer), root, sparse=isinstance(store, LayoutStore))


def tag(source: str, name: str, place: Workplace) -> str:
    """Give a local image one more name; return it in full."""
    store = place.store
    full = local_name(name)
    with store.session():  # an image that loses its last name meanwhile keeps its blobs for this one
        store.tag(resolve(store, source), full)
    return full


def remove(names: Sequence[str], place: Workplace, *, force: bool = False) -> tuple[list[str], int, int]:
    """Remove names from the local store, and blobs that nothing needs any more; return names, blobs and bytes.

    force: what is not there is no error, and an ID stands for all names of its image, of which there may be several.
    """
    store = place.store
    gone: list[str] = []
    for name in names:
        try:
            roots = matching(store, name)
        except NotFound:
            if force:
                continue
            raise
        if len(roots) > 1 and not force:
            known = ", ".join(root.annotations.get(REF_NAME, str(root.digest)) for root in roots)
            raise UsageError(f"{name!r} is the ID of an image with several names: {known}; --force removes all")
        for root in roots:
            removed = store.untag(root.annotations.get(REF_NAME, str(root.digest)))
            gone.append(removed.annotations.get(REF_NAME, str(removed.digest)))
    count, freed = store.collect(keep=place.needed())
    return gone, count, freed


def base(what: str, name: str | None, place: Workplace) -> tuple[str, Image]:
    """Make a base image without a registry and name it; see `imagetool base --help`."""
    from imagetool.build.base import make_base
    from imagetool.build.worker import DEFAULT_EPOCH, Times
    from imagetool.streams.codecs import Codec

    store = place.store
    epoch = source_date_epoch()
    full = local_name(name or (what if what.startswith(("busybox", "debian")) else Path(what).stem.lower()))

    def warn(text: str) -> None:
        place.observer(Note(text, "warning"))

    with store.session(), phase(place.observer, f"making {what}"):
        image = make_base(
            what,
            store,
            platform=Platform.parse(f"linux/{os.uname().machine}"),
            times=Times(DEFAULT_EPOCH if epoch is None else epoch),
            codec=Codec(),
            warn=warn,
        )
        store.tag(image.descriptor, full)
    return full, image


def unpack(
    reference: str,
    folder: Path | str,
    place: Workplace,
    *,
    rootless: bool = False,
    uid_map: Sequence[str] = (),
    gid_map: Sequence[str] = (),
    sync: bool = True,
    platform: Platform | None = None,
) -> Bundle:
    """Unpack an image to FOLDER/rootfs, to be edited and repacked; see `rootfs.unpack`.

    Args:
        uid_map, gid_map: as the options of the command line, "CONTAINER:HOST:SIZE".
    """
    from imagetool.layer.idmap import OwnerMap
    from imagetool.verbs.rootfs import unpack

    return unpack(
        reference,
        Path(folder),
        place.surroundings,
        platform=platform,
        rootless=rootless,
        owners=OwnerMap.parse(uid_map, gid_map),
        sync=sync,
        observer=place.observer,
    )


def repack(
    folder: Path | str,
    destination: str,
    place: Workplace,
    *,
    codec: Codec | None = None,
    comment: str = "",
    refresh: bool = False,
    clamp_times: bool = False,
) -> Repacked:
    """Add what was edited in an unpacked image to it, as a layer; see `rootfs.repack`."""
    from imagetool.streams.codecs import Codec
    from imagetool.verbs.rootfs import repack

    around = place.surroundings
    return repack(
        Path(folder),
        destination,
        around,
        codec=codec or Codec(),
        comment=comment,
        refresh=refresh,
        clamp=around.epoch * 10**9 if clamp_times else None,
        observer=place.observer,
    )


def squash(
    source: str,
    destination: str,
    place: Workplace,
    *,
    codec: Codec | None = None,
    first: str | None = None,
    last: str | None = None,
    base: str | None = None,
) -> Descriptor:
    """Make an image with the same root filesystem of which all layers, or some, are one.

    Args:
        first, last: which: numbers, 1 for the base, or beginnings of digests.
        base: an image whose layers stay as they are, instead of `first`.
    """
    from imagetool.streams.codecs import Codec
    from imagetool.verbs.rootfs import Span, squash

    around, span = place.surroundings, Span(first, last, base)
    return squash(source, destination, around, codec=codec or Codec(), span=span, observer=place.observer)


def diff(left: str, right: str, place: Workplace, *, platform: Platform | None = None) -> ImageDifference:
    """Compare the root filesystems of two images, layer by layer and in total."""
    from imagetool.verbs.rootfs import compare

    return compare(left, right, place.surroundings, platform=platform)


def entries(
    reference: str, place: Workplace, *, layer: str | None = None, platform: Platform | None = None
) -> Iterator[Entry]:
    """Yield what is in an image, or in one of its layers; see `rootfs.entries`."""
    from imagetool.verbs.rootfs import entries

    return entries(reference, place.surroundings, layer=layer, platform=platform)


__all__ = [
    "Beginning",
    "BuildOptions",
    "Committing",
    "Configuration",
    "Copying",
    "Finish",
    "HandMounts",
    "HandRun",
    "RunOptions",
    "Settings",
    "Wishes",
    "Workplace",
    "base",
    "begin",
    "build",
    "build_index",
    "check",
    "commit",
    "configure",
    "containers",
    "convert",
    "copy",
    "copy_into",
    "delete",
    "diff",
    "entries",
    "export",
    "graph",
    "load",
    "login",
    "mount",
    "mounted",
    "opened",
    "pull",
    "push",
    "remove",
    "remove_containers",
    "repack",
    "run_in",
    "squash",
    "tag",
    "tags",
    "umount",
    "unpack",
    "verify",
]
