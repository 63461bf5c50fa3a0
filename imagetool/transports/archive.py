"""`oci-archive:FILE[:TAG]` and `docker-archive:FILE[:NAME]`: an image in one tar file.

What is written is both at once: an OCI layout, and Docker's `manifest.json` that points into it,
so docker, podman, containerd and skopeo all load the same file.

Source: image-spec v1.1 image-layout.md; Docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imagetool import limits
from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.content.staging import new_file, storage_errors
from imagetool.content.store import fetch_bytes, fetch_document, push_bytes
from imagetool.errors import InvalidArchive, InvalidReference, NotFound
from imagetool.image.image import Layer
from imagetool.image.write import tar_digest, write_layer
from imagetool.layer.entry import Entry, Item, display
from imagetool.layer.scan import file_content
from imagetool.layer.tarcodec import write
from imagetool.oci import document, mediatype
from imagetool.oci.config import ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.reference import Reference
from imagetool.streams.codecs import Codec, decompress, sniff
from imagetool.streams.pump import read_chunks
from imagetool.transports import OpenDestination, OpenSource, Surroundings, path_and_name
from imagetool.transports.archivefile import image_archive, opened_archive
from imagetool.transports.local import local_name
from imagetool.transports.scratch import scratch_folder

_LINKS: Final = 40  # links that lead to links, as in the kernel


class OciArchive:
    """An OCI layout in a tar file as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open an image of an archive; see `Transport`."""
        path, tag = path_and_name(rest)
        with _unpacked(path, around) as folder:
            if not (folder / "oci-layout").exists():
                raise InvalidArchive(f"{path} is not an OCI archive: it has no oci-layout")
            store = LayoutStore.open(folder)
            yield OpenSource(store, store.resolve(tag), f"oci-archive:{rest}")

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Write an archive; see `Transport`."""
        path, tag = path_and_name(rest)
        with _packed(path, tag, around) as store:
            yield OpenDestination(store, (tag,), f"oci-archive:{rest}")


class DockerArchive:
    """What `docker save` writes and `docker load` reads, as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open an image of an archive; see `Transport`. Its layers keep their diff IDs; the manifest is made anew."""
        path, name = path_and_name(rest)
        with _unpacked(path, around) as folder, scratch_folder(around) as place:
            store = LayoutStore.create(place / "layout")  # not beside what the archive's maker chose the names of
            yield OpenSource(store, _imported(folder, name, store, str(path)), f"docker-archive:{rest}")

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Write an archive; see `Transport`."""
        path, name = path_and_name(rest)
        tag = local_name(name) if name else ""
        with _packed(path, tag, around) as store:
            yield OpenDestination(store, (tag,), f"docker-archive:{rest}")


@contextmanager
def _unpacked(path: Path, around: Surroundings) -> Iterator[Path]:
    """Unpack an archive's regular files into a scratch directory. Links are followed inside the archive only."""
    with scratch_folder(around) as folder:
        links: dict[bytes, Entry] = {}
        with opened_archive(path) as chunks:
            for entry, content in image_archive(chunks, where=str(path)):
                if entry.kind == "file":
                    _write(folder, entry.name, content)
                elif entry.kind in ("symlink", "link"):
                    links[entry.name] = entry
        for link in links.values():
            _follow(folder, link, links, str(path))
        yield folder


def _write(folder: Path, name: bytes, content: Iterable[bytes]) -> None:
    target = folder / os.fsdecode(name)
    with storage_errors(f"cannot unpack {display(name)}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            for chunk in content:
                file.write(chunk)


def _follow(folder: Path, link: Entry, links: Mapping[bytes, Entry], where: str) -> None:
    """Older archives say "the same layer as that one" with a link to `../ID/layer.tar`, perhaps a link itself."""
    place = folder / os.fsdecode(link.name)
    at = link
    for _ in range(_LINKS):
        above = os.path.dirname(at.name) if at.kind == "symlink" else b""
        target = os.path.normpath(os.path.join(above, at.linkname))
        if target == b".." or target.startswith((b"/", b"../")):
            raise InvalidArchive(f"{where}: {display(at.name)} links to {display(at.linkname)}, outside the archive")
        if target not in links:
            break
        at = links[target]
    else:
        raise InvalidArchive(f"{where}: {display(link.name)}: too many links to links")
    source = folder / os.fsdecode(target)
    if os.path.isfile(source) and not os.path.exists(place):
        with storage_errors(f"cannot unpack {display(link.name)} of {where}"):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, place)


def _imported(folder: Path, name: str, store: LayoutStore, where: str) -> Descriptor:
    """Put an image that docker saved into a layout, and return its manifest."""
    entry = _docker_entry(folder, name, where)
    config_name = document.get(entry, "Config", str, None, path="$", what=where)
    layer_names = document.get_strings(entry, "Layers", path="$", what=where)
    config_raw = _read_document(_member(folder, config_name, where))
    config = ImageConfig.parse(config_raw, what=f"{where}: {config_name}")
    if len(layer_names) != len(config.diff_ids):
        raise InvalidArchive(f"{where}: {len(layer_names)} layers, but the config has {len(config.diff_ids)} diff IDs")
    layers = []
    for layer_name, diff_id in zip(layer_names, config.diff_ids, strict=True):
        layers.append(_import_layer(_member(folder, layer_name, where), diff_id, store, where))
    store.push(config.descriptor, [config.raw])
    manifest = Manifest.make(config.descriptor, [layer.descriptor for layer in layers])
    return push_bytes(store, manifest.raw, manifest.media_type)


def _docker_entry(folder: Path, name: str, where: str) -> dict[str, object]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InvalidArchive(f"{where} is not a docker archive: it has no manifest.json")
    tree = document.decode(b'{"images":' + _read_document(path) + b"}", what=f"{where}: manifest.json")
    entries = document.get(tree, "images", list, None, path="$", what=where)
    wanted = local_name(name) if name else ""
    have: list[str] = []
    for number, item in enumerate(entries):
        entry: dict[str, object] = document.expect(item, dict, f"$[{number}]", where)
        tags = document.get_strings(entry, "RepoTags", path=f"$[{number}]", what=where)
        names = [known for known in map(_name, tags) if known]
        if (not name and len(entries) == 1) or wanted in names:
            return entry
        have += names
    what = f"none is {name!r}; it has" if name else "one must be named"
    raise NotFound(f"{where} holds {len(entries)} images, {what}: {', '.join(have[:8]) or 'none has a name'}")


def _name(tag: str) -> str:
    """Return a tag as the local store would keep it; "" for what is none, such as Docker's <none>:<none>."""
    try:
        return local_name(tag)
    except InvalidReference:
        return ""


def _read_document(path: Path) -> bytes:
    """Return a document, of one that is too big no more than shows that it is."""
    with open(path, "rb") as file:
        return file.read(limits.DOCUMENT_BYTES + 1)


def _member(folder: Path, name: str, where: str) -> Path:
    path = os.path.normpath(name)
    if path.startswith(("/", "..")) or not os.path.isfile(folder / path):
        raise InvalidArchive(f"{where}: {name[:120]!r} is not in the archive")
    return folder / path


def _import_layer(path: Path, diff_id: Digest, store: LayoutStore, where: str) -> Layer:
    with open(path, "rb") as file:
        kind = sniff(file.read(6))
        file.seek(0)
        got = tar_digest(decompress(read_chunks(file), where=where))
        if got != diff_id:
            raise InvalidArchive(f"{where}: {path.name} has diff ID {got}, its config says {diff_id}")
        file.seek(0)
        if kind not in mediatype.OCI_LAYER_OF:  # bzip2, xz: no media type says that
            return write_layer(decompress(read_chunks(file), where=where), store, Codec())
        with store.ingest() as blob:
            for chunk in read_chunks(file):
                blob.write(chunk)
            digest, size = blob.commit()
    return Layer(Descriptor(mediatype.OCI_LAYER_OF[kind], digest, size), diff_id)


@contextmanager
def _packed(path: Path, tag: str, around: Surroundings) -> Iterator[LayoutStore]:
    """Collect an image in a scratch layout, and write it as one archive in the end."""
    with scratch_folder(around) as folder:
        store = LayoutStore.create(folder / "layout")
        yield store
        with new_file(path) as file:
            for chunk in write(_archive_items(store, tag, around.epoch * 10**9)):
                file.write(chunk)


def _archive_items(store: LayoutStore, tag: str, time: int) -> Iterator[Item]:
    index = store.index()
    roots = []
    for root in index.manifests:
        annotations = dict(root.annotations)
        if tag:
            annotations = {REF_NAME: tag.rpartition(":")[2] if "/" in tag or ":" in tag else tag}
            annotations["io.containerd.image.name"] = str(Reference.parse(tag)) if ":" in tag else tag
        roots.append(Descriptor(root.media_type, root.digest, root.size, annotations, root.platform))
    yield _file(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}', time)
    yield _file(b"index.json", Index.make(roots if tag else list(index.manifests)).raw, time)
    yield _file(b"manifest.json", _docker_manifest(store, tag), time)
    for folder in sorted((store.folder / "blobs").iterdir()):
        yield Entry(f"blobs/{folder.name}".encode(), "dir", 0o755, mtime=time), ()
        for path in sorted(folder.iterdir()):
            size = path.stat().st_size
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            name = f"blobs/{folder.name}/{path.name}".encode()
            yield Entry(name, "file", 0o644, size=size, mtime=time), file_content(fd, size)


def _file(name: bytes, data: bytes, time: int) -> Item:
    if len(data) > limits.DOCUMENT_BYTES:
        raise InvalidArchive(f"{display(name)} would be too big")
    return Entry(name, "file", 0o644, size=len(data), mtime=time), (data,)


def _docker_manifest(store: LayoutStore, tag: str) -> bytes:
    entries = []
    for root in store.index().manifests:
        found = fetch_document(store, root)
        if isinstance(found, Index):
            continue
        fetch_bytes(store, found.config)
        config, *layers = [f"blobs/{child.digest.algorithm}/{child.digest.hex}" for child in found.children]
        entries.append({"Config": config, "RepoTags": [tag] if tag else None, "Layers": layers})
    return json.dumps(entries, separators=(",", ":")).encode()
