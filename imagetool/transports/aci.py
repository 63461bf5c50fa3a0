"""`aci:FILE`: an appc image.

As a source it is the OCI image it converts to; what is written is one root filesystem, flattened.

Source: appc spec v0.8.11 aci.md, "Image Archives".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from imagetool import limits
from imagetool.appc.manifest import ImageManifest
from imagetool.content.layout import LayoutStore
from imagetool.content.staging import new_file
from imagetool.content.store import Fetcher, Ingester, Pusher
from imagetool.convert.appc import from_aci, owning_paths, to_aci
from imagetool.errors import InvalidArchive
from imagetool.image.image import Image, Layer, load, opener
from imagetool.image.write import write_image, write_layer
from imagetool.layer.entry import Entry, Item, display
from imagetool.layer.merge import flatten, merge
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.layer.whiteout import is_reserved
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest, new_hasher
from imagetool.progress import Note, Observer, phase
from imagetool.streams.codecs import Codec, decompress
from imagetool.streams.verify import read_all
from imagetool.transports.archivefile import opened_archive
from imagetool.transports.base import OpenDestination, OpenSource, Surroundings
from imagetool.transports.scratch import scratch_folder


class Aci:
    """An ACI as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open an ACI as the OCI image it converts to; see `Transport`."""
        with scratch_folder(around) as folder:
            store = LayoutStore.create(folder / "layout")
            root = import_aci(Path(rest), store, epoch=around.epoch, observer=around.observer)
            yield OpenSource(store, root, f"aci:{rest}")

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Collect an image and write it as an ACI, named after the file; see `Transport`."""
        path = Path(rest)
        with scratch_folder(around) as folder:
            store = LayoutStore.create(folder / "layout")
            yield OpenDestination(store, ("image",), f"aci:{rest}")
            root = store.resolve("image")
            export_aci(load(store, root), path, path.stem, epoch=around.epoch, observer=around.observer)


class ImageStore(Fetcher, Ingester, Pusher, Protocol):
    """Where an image can be made."""


def import_aci(path: Path, store: ImageStore, *, epoch: int, observer: Observer) -> Descriptor:
    """Put the OCI image that an ACI converts to into a store; return its manifest's descriptor.

    `epoch` is `created` of an image whose ACI has none. What cannot be carried is a warning to `observer`.
    """
    with phase(observer, f"reading {path.name}"):
        manifest, _, layer = read_aci(path, store)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    owners = _owners(owning_paths(manifest), layer, store)
    config, lost = from_aci(manifest, diff_id=layer.diff_id, created=created, owners=owners)
    _warn(lost, observer)
    return write_image(store, config, [layer]).descriptor


def _owners(paths: set[str], layer: Layer, store: Fetcher) -> dict[str, tuple[int, int]]:
    """Return the owners of files of a root filesystem; what is not there is left out."""
    if not paths:
        return {}
    tree = merge([(opener(store, layer), f"layer {layer.descriptor.digest}")])
    found = {path: tree.lookup(path.encode())[1] for path in paths}
    return {path: (entry.uid, entry.gid) for path, entry in found.items() if entry is not None}


def export_aci(image: Image, path: Path, reference: str, *, epoch: int, observer: Observer) -> Digest:
    """Write an image as an ACI; return its image ID.

    The ACI's name and version are those of `reference`. What appc cannot say is a warning to `observer`.
    """
    folder, slash, last = reference.removeprefix("docker://").partition("@")[0].rpartition("/")
    base, _, version = last.partition(":")
    manifest, lost = to_aci(image.config, name=f"{folder}{slash}{base}", version=version or "latest")
    _warn(lost, observer)
    with phase(observer, f"writing {path.name}"):
        return write_aci(path, manifest, flatten(image.openers()), time=epoch * 10**9)


def _warn(lost: list[str], observer: Observer) -> None:
    for line in lost:
        observer(Note(f"not carried: {line}", "warning"))


def write_aci(path: Path, manifest: ImageManifest, items: Iterator[Item], *, time: int) -> Digest:
    """Write an ACI, gzipped; return its image ID, the sha512 of the uncompressed tar.

    `items` is a flattened root filesystem, every directory before what is in it.
    """
    hasher = new_hasher("sha512")

    def hashed() -> Iterator[bytes]:
        for chunk in write(_archive(manifest, items, time)):
            hasher.update(chunk)
            yield chunk

    with new_file(path) as file:
        for chunk in Codec(reproducible=True).compress(hashed()):
            file.write(chunk)
    return Digest("sha512", hasher.hexdigest())


def _archive(manifest: ImageManifest, items: Iterator[Item], time: int) -> Iterator[Item]:
    yield Entry(b"manifest", "file", 0o644, size=len(manifest.raw), mtime=time), (manifest.raw,)
    rooted = False
    for entry, content in items:
        if entry.name == b".":
            rooted = True
            yield entry._replace(name=b"rootfs"), ()
            continue
        if not rooted:
            rooted = True
            yield Entry(b"rootfs", "dir", 0o755, mtime=time), ()
        linkname = b"rootfs/" + entry.linkname if entry.kind == "link" else entry.linkname
        yield entry._replace(name=b"rootfs/" + entry.name, linkname=linkname), content
    if not rooted:
        yield Entry(b"rootfs", "dir", 0o755, mtime=time), ()


def read_aci(path: Path, store: Ingester) -> tuple[ImageManifest, Digest, Layer]:
    """Read an ACI in one pass: its manifest, its image ID, and its root filesystem as a layer in the store.

    Raises InvalidArchive for anything but exactly `manifest` and `rootfs`.
    """
    where = str(path)
    hasher = new_hasher("sha512")
    found: dict[str, bytes] = {}

    def hashed(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in decompress(chunks, where=where):
            hasher.update(chunk)
            yield chunk

    with opened_archive(path) as chunks:
        layer = write_layer(write(_rootfs(hashed(chunks), found, where)), store, Codec())
    if "manifest" not in found or "rootfs" not in found:
        raise InvalidArchive(f"{where} is not an ACI: it must hold a manifest and a rootfs directory")
    manifest = ImageManifest.parse(found["manifest"], what=f"{where}: manifest")
    return manifest, Digest("sha512", hasher.hexdigest()), layer


def _rootfs(chunks: Iterator[bytes], found: dict[str, bytes], where: str) -> Iterator[Item]:
    """Yield the entries below rootfs as those of a layer; what stands beside is put into `found`."""
    seen: set[bytes] = set()
    for entry, content in read(chunks, where=where):
        if entry.name in seen:
            raise InvalidArchive(f"{where}: {display(entry.name)} is there twice")
        seen.add(entry.name)
        if entry.name == b"manifest" and entry.kind == "file":
            what = f"{where}: manifest"
            found["manifest"] = read_all(content, limits.DOCUMENT_BYTES, where=what, name="DOCUMENT_BYTES")
        elif entry.name == b"rootfs" and entry.kind == "dir":
            found["rootfs"] = b""
            yield entry._replace(name=b"."), ()
        elif entry.name.startswith(b"rootfs/"):
            yield _below(entry, where), content
        elif entry.name != b".":
            raise InvalidArchive(f"{where}: {display(entry.name)} is neither the manifest nor below rootfs")


def _below(entry: Entry, where: str) -> Entry:
    name = entry.name.removeprefix(b"rootfs/")
    if is_reserved(name):
        raise InvalidArchive(f"{where}: {display(name)}: a layer cannot hold a name that begins with .wh.")
    linkname = entry.linkname
    if entry.kind == "link":
        if not linkname.startswith(b"rootfs/"):
            raise InvalidArchive(f"{where}: {display(name)} is a hard link to {display(linkname)}, outside rootfs")
        linkname = linkname.removeprefix(b"rootfs/")
    return entry._replace(name=name, linkname=linkname)
