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
from typing import Any, Final

from imagetool import limits
from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.content.staging import new_file, storage_errors
from imagetool.content.store import fetch_bytes, fetch_document, push_bytes
from imagetool.errors import InvalidArchive, InvalidReference, LimitExceeded, NotFound
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
from imagetool.transports.archivefile import image_archive, opened_archive
from imagetool.transports.base import OpenDestination, OpenSource, Surroundings, path_and_name
from imagetool.transports.local import local_name
from imagetool.transports.scratch import scratch_folder

#: Where docker and containerd write the whole name of an image in an index.
CONTAINERD_NAME: Final = "io.containerd.image.name"
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
        with packed(path, around) as store:
            yield OpenDestination(store, (tag,), f"oci-archive:{rest}")


class DockerArchive:
    """What `docker save` writes and `docker load` reads, as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open an image of an archive; see `Transport`. Its layers keep their diff IDs; the manifest is made anew."""
        path, name = path_and_name(rest)
        with _unpacked(path, around) as folder, scratch_folder(around) as place:
            store = LayoutStore.create(place / "layout")  # not beside what the archive's maker chose the names of
            root = _imported(folder, _docker_entry(folder, name, str(path)), store, str(path))
            yield OpenSource(store, root, f"docker-archive:{rest}")

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Write an archive; see `Transport`."""
        path, name = path_and_name(rest)
        tag = local_name(name) if name else ""
        with packed(path, around) as store:
            yield OpenDestination(store, (tag,), f"docker-archive:{rest}")


@contextmanager
def opened_images(path: Path, around: Surroundings) -> Iterator[list[tuple[OpenSource, tuple[str, ...]]]]:
    """Open every image of an OCI or docker archive, each with the names it has there, as the local store has them.

    An archive that is both is read as an OCI layout, whose manifests keep their digests. Raises InvalidArchive.
    """
    with _unpacked(path, around) as folder:
        if (folder / "oci-layout").is_file() and (folder / "index.json").is_file():
            store = LayoutStore.open(folder)
            named: dict[Descriptor, list[str]] = {}
            for root in store.index().manifests:
                named.setdefault(Descriptor(root.media_type, root.digest, root.size), []).extend(_layout_name(root))
            yield [(OpenSource(store, root, str(path)), tuple(names)) for root, names in named.items()]
            return
        with scratch_folder(around) as place:
            store = LayoutStore.create(place / "layout")
            images = []
            for entry, names in _docker_entries(folder, str(path)):
                root = _imported(folder, entry, store, str(path))
                images.append((OpenSource(store, root, str(path)), tuple(names)))
            yield images


def _layout_name(root: Descriptor) -> list[str]:
    """Return the name of a root of an archive's index, if it has one; a tag alone is none."""
    for key in (CONTAINERD_NAME, REF_NAME):
        text = root.annotations.get(key, "")
        if ("/" in text or ":" in text) and (name := _name(text)):
            return [name]
    return []


@contextmanager
def _unpacked(path: Path, around: Surroundings) -> Iterator[Path]:
    """Unpack an archive's regular files into a scratch directory. Links are followed inside the archive only."""
    with scratch_folder(around) as folder:
        links: dict[bytes, Entry] = {}
        left = limits.ARCHIVE_LINK_BYTES
        with opened_archive(path) as chunks:
            for entry, content in image_archive(chunks, where=str(path)):
                if entry.kind == "file":
                    _write(folder, entry.name, content)
                elif entry.kind in ("symlink", "link"):
                    left -= len(entry.name) + len(entry.linkname)
                    if left < 0:
                        raise LimitExceeded(f"{path}: more links than {limits.named('ARCHIVE_LINK_BYTES')}")
                    links[entry.name] = entry._replace(xattrs={})
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


def _imported(folder: Path, entry: Mapping[str, object], store: LayoutStore, where: str) -> Descriptor:
    """Put an image that docker saved, an entry of manifest.json, into a layout, and return its manifest."""
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


def _docker_entries(folder: Path, where: str) -> list[tuple[dict[str, object], list[str]]]:
    """Return the images of manifest.json, each with those of its names that the local store can keep."""
    path = folder / "manifest.json"
    if not path.is_file():
        old = (folder / "repositories").is_file()
        hint = ", only what docker wrote before 1.10: let a newer docker load and save it" if old else ""
        raise InvalidArchive(f"{where} is not a docker archive: it has no manifest.json{hint}")
    tree = document.decode(b'{"images":' + _read_document(path) + b"}", what=f"{where}: manifest.json")
    entries = []
    for number, item in enumerate(document.get(tree, "images", list, None, path="$", what=where)):
        entry: dict[str, object] = document.expect(item, dict, f"$[{number}]", where)
        tags = document.get_strings(entry, "RepoTags", path=f"$[{number}]", what=where)
        entries.append((entry, [known for known in map(_name, tags) if known]))
    return entries


def _docker_entry(folder: Path, name: str, where: str) -> dict[str, object]:
    entries = _docker_entries(folder, where)
    wanted = local_name(name) if name else ""
    have: list[str] = []
    for entry, names in entries:
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
def packed(path: Path, around: Surroundings) -> Iterator[LayoutStore]:
    """Yield a scratch layout, and write what was put there as one archive in the end, each image under its name."""
    with scratch_folder(around) as folder:
        store = LayoutStore.create(folder / "layout")
        yield store
        with new_file(path) as file:
            for chunk in write(_archive_items(store, around.epoch * 10**9)):
                file.write(chunk)


def _archive_items(store: LayoutStore, time: int) -> Iterator[Item]:
    roots = []
    for root in store.index().manifests:
        annotations = dict(root.annotations)
        if tag := annotations.get(REF_NAME, ""):
            annotations = {REF_NAME: tag.rpartition(":")[2] if "/" in tag or ":" in tag else tag}
            annotations[CONTAINERD_NAME] = str(Reference.parse(tag)) if ":" in tag else tag
        roots.append(Descriptor(root.media_type, root.digest, root.size, annotations, root.platform))
    yield _file(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}', time)
    yield _file(b"index.json", Index.make(roots).raw, time)
    yield _file(b"manifest.json", _docker_manifest(store), time)
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


def _docker_manifest(store: LayoutStore) -> bytes:
    entries: dict[Digest, dict[str, Any]] = {}
    for root in store.index().manifests:
        found = fetch_document(store, root)
        if isinstance(found, Index):
            continue
        fetch_bytes(store, found.config)
        config, *layers = [f"blobs/{child.digest.algorithm}/{child.digest.hex}" for child in found.children]
        entry = entries.setdefault(root.digest, {"Config": config, "RepoTags": None, "Layers": layers})
        if tag := root.annotations.get(REF_NAME, ""):
            entry["RepoTags"] = [*(entry["RepoTags"] or ()), tag]
    return json.dumps(list(entries.values()), separators=(",", ":")).encode()
