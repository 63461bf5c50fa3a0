"""The build cache in other places: what a build made, and cache mounts, as OCI artifacts.

A cache is a manifest whose config lists records: the key of a step, and the layer it made. Its
layers are those of the records. Any place of `transports` can hold one, as a registry or a layout.
What comes from there is believed no more than its digests show: a layer is fetched when a step
asks for it, and its blob and its diff ID are verified.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from imagetool.build.cache import BuildCache, Result
from imagetool.content.layout import LayoutStore
from imagetool.content.staging import locked, storage_errors
from imagetool.content.store import Fetcher, fetch_bytes
from imagetool.errors import ImagetoolError, InvalidDocument, NotFound, UsageError, VerificationError
from imagetool.image.image import Layer, opener
from imagetool.image.write import write_layer
from imagetool.oci import document
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest, parse
from imagetool.progress import Note, Observer
from imagetool.streams.codecs import Codec
from imagetool.transports import Surroundings, find
from imagetool.values import dataclass, field

CONFIG_TYPE: Final = "application/vnd.imagetool.buildcache.v1+json"
MOUNTS_TYPE: Final = "application/vnd.imagetool.cachemounts.v1+json"
_TAG: Final = "cache"
_KEY: Final = re.compile(r"[0-9a-f]{64}\Z")
_EXPLAINED: Final = "explained-"


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where a cache is, as a place of `transports`; `whole`: with the steps of all stages, not only the image's."""

    place: str
    whole: bool = False

    @classmethod
    def parse(cls, text: str, option: str) -> CachePlace:
        """Read `type=local,src|dest=DIR`, `type=registry,ref=NAME`, either with `,mode=min|max`, or a bare NAME.

        Raises UsageError for anything else.
        """
        if "=" not in text:
            return cls(f"docker://{text}")
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        kind, mode = fields.pop("type", ""), fields.pop("mode", "min")
        where = fields.pop({"local": "dest" if option == "--cache-to" else "src", "registry": "ref"}.get(kind, ""), "")
        if kind not in ("local", "registry"):
            raise UsageError(f"{option} {text!r}: there are type=local and type=registry, but no {kind!r}")
        if fields or not where or mode not in ("min", "max"):
            raise UsageError(
                f"{option} {text!r}: write type=local,{'dest' if option == '--cache-to' else 'src'}=DIR"
                " or type=registry,ref=NAME, and mode=min or mode=max"
            )
        return cls(f"oci:{where}:{_TAG}" if kind == "local" else f"docker://{where}", mode == "max")


class SharedCache:
    """A build cache that asks others when it lacks something, and notes what a build used; a `BuildCache`.

    Args:
        own: the cache of this machine; what others have is recorded there when it is used.
        store: where layers go.
    """

    def __init__(self, own: BuildCache, store: LayoutStore, observer: Observer) -> None:
        self._own = own
        self._store = store
        self._observer = observer
        self._lock = threading.Lock()
        self._others: list[tuple[Fetcher, dict[str, Layer], dict[str, Any]]] = []
        self.used: dict[str, Layer] = {}
        self.used_facts: dict[str, Mapping[str, Any]] = {}

    def add(self, source: Fetcher, root: Descriptor) -> None:
        """Ask this cache, too. Raises InvalidDocument for what is none."""
        records, facts = _read(source, root)
        self._others.append((source, records, facts))

    def lookup(self, key: str) -> Result | None:
        """Return a record; see `BuildCache`. A layer that only others have is fetched."""
        found = self._own.lookup(key)
        if found is None or (found.layer is not None and not self._store.exists(found.layer.descriptor)):
            found = self._elsewhere(key) or found
        self._note(key, found)
        return found

    def _elsewhere(self, key: str) -> Result | None:
        for source, records, _ in self._others:
            layer = records.get(key)
            if layer is None:
                continue
            try:
                with source.fetch(layer.descriptor) as chunks:
                    self._store.push(layer.descriptor, chunks)
                with opener(self._store, layer)() as tar:
                    for _ in tar:  # its diff ID is verified at the end
                        pass
            except ImagetoolError as error:
                self._observer(Note(f"a layer of the cache cannot be taken: {error}", "warning"))
                continue
            self._own.record(key, Result(layer))
            return Result(layer)
        return None

    def record(self, key: str, result: Result) -> None:
        """Remember what a step made; see `BuildCache`."""
        self._own.record(key, result)
        self._note(key, result)

    def _note(self, key: str, result: Result | None) -> None:
        if result is not None and result.layer is not None:
            with self._lock:
                self.used[key] = result.layer

    def facts(self, key: str) -> Mapping[str, Any] | None:
        """Return facts; see `BuildCache`."""
        found = self._own.facts(key)
        if found is None:
            found = next((facts[key] for _, _, facts in self._others if key in facts), None)
            if found is not None:
                self._own.record_facts(key, found)
        if found is not None and not key.startswith(_EXPLAINED):
            with self._lock:
                self.used_facts[key] = found
        return found

    def record_facts(self, key: str, facts: Mapping[str, Any]) -> None:
        """Remember facts; see `BuildCache`."""
        self._own.record_facts(key, facts)
        if not key.startswith(_EXPLAINED):
            with self._lock:
                self.used_facts[key] = facts


def _read(source: Fetcher, root: Descriptor) -> tuple[dict[str, Layer], dict[str, Any]]:
    what = "build cache"
    manifest = _manifest(source, root, CONFIG_TYPE, what)
    tree = document.decode(fetch_bytes(source, manifest.config), what=what)
    records: dict[str, Layer] = {}
    for key, entry in document.get(tree, "records", dict, None, path="$", what=what).items():
        if not _KEY.match(key) or not isinstance(entry, dict):
            raise InvalidDocument(f"{what}: $.records.{key[:80]} is no record")
        descriptor = Descriptor.read(entry.get("layer"), path=f"$.records.{key}.layer", what=what)
        diff_id = Digest.parse(document.get(entry, "diff_id", str, None, path=f"$.records.{key}", what=what))
        records[key] = Layer(descriptor, diff_id)
    facts = document.get(tree, "facts", dict, None, path="$", what=what)
    if any(not _KEY.match(key) or not isinstance(value, dict) for key, value in facts.items()):
        raise InvalidDocument(f"{what}: $.facts holds what are no facts")
    return records, facts


def _manifest(source: Fetcher, root: Descriptor, wanted: str, what: str) -> Manifest:
    found = parse(fetch_bytes(source, root), media_type=root.media_type, what=what)
    if not isinstance(found, Manifest) or found.config.media_type != wanted:
        raise InvalidDocument(f"{root.digest} is no {what} of ours: its config is not {wanted}")
    return found


@contextmanager
def shared(
    own: BuildCache, store: LayoutStore, places: Sequence[CachePlace], around: Surroundings, observer: Observer
) -> Iterator[SharedCache]:
    """Open caches elsewhere to build from; one that cannot be read is told of and left out."""
    cache = SharedCache(own, store, observer)
    with ExitStack() as stack:
        for one in places:
            transport, rest = find(one.place)
            try:
                opened = stack.enter_context(transport.source(rest, around))
                cache.add(opened.store, opened.root)
            except ImagetoolError as error:
                observer(Note(f"--cache-from {one.place} is left out: {error}", "warning"))
        yield cache


def export_cache(
    cache: SharedCache,
    layers: Sequence[Layer],
    place: CachePlace,
    store: LayoutStore,
    around: Surroundings,
    observer: Observer,
) -> None:
    """Write what a build used to another place; `layers` are those of its image."""
    kept = {layer.descriptor.digest for layer in layers}
    records = {
        key: layer for key, layer in sorted(cache.used.items()) if place.whole or layer.descriptor.digest in kept
    }
    tree = {
        "records": {
            key: {"layer": layer.descriptor.tree(), "diff_id": str(layer.diff_id)} for key, layer in records.items()
        },
        "facts": dict(sorted(cache.used_facts.items())),
    }
    blobs = {layer.descriptor.digest: layer.descriptor for layer in records.values()}
    _write(CONFIG_TYPE, tree, list(blobs.values()), place.place, store, around, observer)


def _write(
    kind: str,
    tree: dict[str, Any],
    blobs: Sequence[Descriptor],
    place: str,
    store: LayoutStore,
    around: Surroundings,
    observer: Observer,
) -> None:
    from imagetool.transfer import copy as transfer

    raw = document.encode(tree)
    config = Descriptor(kind, Digest.of(raw), len(raw))
    manifest = Manifest.make(config, blobs)
    store.push(config, [raw])
    store.push(manifest.descriptor, [manifest.raw])
    writer, rest = find(place)
    with writer.destination(rest, around) as target:
        transfer(store, target.store, manifest.descriptor, tags=target.tags, observer=observer)


# Cache mounts


@dataclass(frozen=True, slots=True)
class CacheMount:
    """A directory of RUN --mount=type=cache: its id ("" when it is not known), its name on disk, its bytes."""

    id: str
    name: str
    size: int
    folder: Path = field(compare=False)


def mounts(folder: Path) -> list[CacheMount]:
    """Return the cache mounts below a directory, by id."""
    found = []
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if _KEY.match(name):
            about = folder / f"{name}.id"
            id = about.read_text(errors="replace") if about.is_file() else ""
            found.append(CacheMount(id, name, _size(folder / name), folder / name))
    return sorted(found, key=lambda mount: (mount.id, mount.name))


def _size(folder: Path) -> int:
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, files in os.walk(folder) for name in files)


def prune_mounts(folder: Path, ids: Sequence[str]) -> tuple[int, int]:
    """Remove cache mounts, all or those of these ids; return how many, and their bytes."""
    chosen = _chosen(folder, ids)
    for mount in chosen:
        with storage_errors(f"cannot remove the cache mount {mount.id or mount.name}"), locked(mount.folder):
            shutil.rmtree(mount.folder)
            (folder / f"{mount.name}.id").unlink(missing_ok=True)
    return len(chosen), sum(mount.size for mount in chosen)


def _chosen(folder: Path, ids: Sequence[str]) -> list[CacheMount]:
    known = mounts(folder)
    chosen = [mount for mount in known if not ids or mount.id in ids]
    if missing := set(ids) - {mount.id for mount in chosen}:
        raise NotFound(f"no cache mount {sorted(missing)[0]!r}; there are: {', '.join(m.id for m in known) or 'none'}")
    return chosen


def export_mounts(
    folder: Path, ids: Sequence[str], place: str, store: LayoutStore, around: Surroundings, observer: Observer
) -> list[CacheMount]:
    """Write cache mounts, all or those of these ids, to another place; return which."""
    from imagetool.layer.scan import scan_upper
    from imagetool.layer.tarcodec import write

    chosen = _chosen(folder, ids)
    if not chosen:
        raise NotFound("there are no cache mounts")
    entries, blobs = [], []
    for mount in chosen:
        about = os.stat(mount.folder)
        with locked(mount.folder, shared=True):
            items = scan_upper(mount.folder, clamp=None, warn=lambda text: observer(Note(text, "warning")))
            layer = write_layer(write(items), store, Codec())
        blobs.append(layer.descriptor)
        entries.append(
            {
                "id": mount.id,
                "name": mount.name,
                "mode": about.st_mode & 0o7777,
                "uid": about.st_uid,
                "gid": about.st_gid,
                "layer": layer.descriptor.tree(),
                "diff_id": str(layer.diff_id),
            }
        )
    unique = {blob.digest: blob for blob in blobs}
    _write(MOUNTS_TYPE, {"mounts": entries}, list(unique.values()), place, store, around, observer)
    return chosen


def import_mounts(folder: Path, place: str, around: Surroundings, observer: Observer) -> list[str]:
    """Take cache mounts from another place; those that exist here are replaced. Return their ids."""
    from imagetool.layer.tarreader import read
    from imagetool.layer.unpack import Ownership, unpack
    from imagetool.snapshot.folders import new_folder

    transport, rest = find(place)
    taken = []
    with transport.source(rest, around) as source:
        manifest = _manifest(source.store, source.root, MOUNTS_TYPE, "cache of mounts")
        tree = document.decode(fetch_bytes(source.store, manifest.config), what="cache of mounts")
        folder.mkdir(parents=True, exist_ok=True)
        for id, name, entry, layer in _mount_entries(tree):
            with new_folder(folder) as staged:
                target = staged / "files"
                target.mkdir()
                with opener(source.store, layer)() as tar:
                    unpack(
                        read(tar, where=f"cache mount {id}"),
                        target,
                        where=f"cache mount {id}",
                        ownership=Ownership(owners=os.geteuid() == 0, lenient=True),
                        warn=lambda text: observer(Note(text, "warning")),
                    )
                os.chmod(target, entry.get("mode", 0o755) & 0o7777)
                if os.geteuid() == 0:
                    os.chown(target, entry.get("uid", 0), entry.get("gid", 0))
                with storage_errors(f"cannot put the cache mount {id} in place"):
                    (staged / "id").write_text(id)
                    if (folder / name).is_dir():
                        os.rename(folder / name, staged / "old")
                    os.rename(target, folder / name)
                    os.rename(staged / "id", folder / f"{name}.id")
            taken.append(id)
    return taken


def _mount_entries(tree: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], Layer]]:
    what = "cache of mounts"
    for number, entry in enumerate(document.get(tree, "mounts", list, None, path="$", what=what)):
        path = f"$.mounts[{number}]"
        entry = document.expect(entry, dict, path, what)
        id = document.get(entry, "id", str, None, path=path, what=what)
        name = document.get(entry, "name", str, None, path=path, what=what)
        if not _KEY.match(name) or any(not isinstance(entry.get(part, 0), int) for part in ("mode", "uid", "gid")):
            raise VerificationError(f"{what}: {path} is no cache mount")
        diff_id = Digest.parse(document.get(entry, "diff_id", str, None, path=path, what=what))
        yield id, name, entry, Layer(Descriptor.read(entry.get("layer"), path=f"{path}.layer", what=what), diff_id)


def listing(folder: Path) -> str:
    """Return the cache mounts as JSON."""
    rows = [{"id": mount.id, "name": mount.name, "size": mount.size} for mount in mounts(folder)]
    return json.dumps(rows, indent=2)
