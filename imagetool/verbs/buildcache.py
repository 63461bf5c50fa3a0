"""The build cache in other places: what a build made, as OCI artifacts. Cache mounts are in `cachemounts`.

A cache is a manifest whose config lists records: the key of a step, and the layer it made. Its
layers are those of the records. Any place of `transports` can hold one, as a registry or a layout.
What comes from there is believed no more than its digests show: a layer is fetched when a step
asks for it, and its blob and its diff ID are verified.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from imagetool.build.cache import BuildCache, Result
from imagetool.content.layout import LayoutStore
from imagetool.content.store import Fetcher, fetch_bytes
from imagetool.errors import ImagetoolError, InvalidDocument, UsageError
from imagetool.image.image import Layer, opener
from imagetool.oci import document
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest, parse
from imagetool.progress import Note, Observer
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.values import dataclass
from imagetool.verbs.inlinecache import checked_facts, read_inline_cache

CONFIG_TYPE: Final = "application/vnd.imagetool.buildcache.v1+json"
_TAG: Final = "cache"
_KEY: Final = re.compile(r"[0-9a-f]{64}\Z")
#: Entries of an index that are looked into.
_PLATFORMS: Final = 64
_EXPLAINED: Final = "explained-"


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where a cache is, as a place of `transports`.

    place: "" for the image that is built itself.
    whole: with the steps of all stages, not only the image's.
    """

    place: str
    whole: bool = False

    @classmethod
    def parse(cls, text: str, option: str) -> CachePlace:
        """Read `type=local,src|dest=DIR`, `type=registry,ref=NAME`, either with `,mode=min|max`, or a bare NAME.

        To write to there is `type=inline`, too. Raises UsageError for anything else.
        """
        if "=" not in text:
            return cls(f"docker://{text}")
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        kind, mode = fields.pop("type", ""), fields.pop("mode", "min")
        if kind == "inline":
            return cls._parse_inline(text, option, mode, fields)
        where = fields.pop({"local": "dest" if option == "--cache-to" else "src", "registry": "ref"}.get(kind, ""), "")
        if kind not in ("local", "registry"):
            types = "type=local, type=registry and type=inline" if option == "--cache-to" else "type=local and registry"
            raise UsageError(f"{option} {text!r}: there are {types}, but no {kind!r}")
        if fields or not where or mode not in ("min", "max"):
            raise UsageError(
                f"{option} {text!r}: write type=local,{'dest' if option == '--cache-to' else 'src'}=DIR"
                " or type=registry,ref=NAME, and mode=min or mode=max"
            )
        return cls(f"oci:{where}:{_TAG}" if kind == "local" else f"docker://{where}", mode == "max")

    @classmethod
    def _parse_inline(cls, text: str, option: str, mode: str, fields: Mapping[str, str]) -> CachePlace:
        if option != "--cache-to":
            raise UsageError(f"{option} {text!r}: an image with an inline cache is named as type=registry,ref=NAME")
        if fields or mode != "min":
            raise UsageError(f"{option} {text!r}: an inline cache has the image's own steps only, mode=min")
        return cls("")


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
        """Ask this cache, too: one by itself, or what an image, or those of an index, hold inline.

        Raises InvalidDocument for what is none.
        """
        for records, facts in _found(source, root):
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


_Records = tuple[dict[str, Layer], dict[str, Any]]


def _found(source: Fetcher, root: Descriptor) -> list[_Records]:
    """Return the caches of a root; those of an index that can be read, or the error of its last one."""
    document_found = parse(fetch_bytes(source, root), media_type=root.media_type, what="build cache")
    if isinstance(document_found, Manifest):
        return [_read(source, document_found)]
    found: list[_Records] = []
    problem = InvalidDocument(f"{root.digest} is an index without an image that has a build cache")
    for entry in document_found.manifests[:_PLATFORMS]:
        try:
            found += _found(source, entry)
        except InvalidDocument as error:
            problem = error
    if not found:
        raise problem
    return found


def _read(source: Fetcher, manifest: Manifest) -> _Records:
    what = "build cache"
    if manifest.config.media_type != CONFIG_TYPE:
        return read_inline_cache(source, manifest)
    tree = document.decode(fetch_bytes(source, manifest.config), what=what)
    records: dict[str, Layer] = {}
    for key, entry in document.get(tree, "records", dict, None, path="$", what=what).items():
        if not _KEY.match(key) or not isinstance(entry, dict):
            raise InvalidDocument(f"{what}: $.records.{key[:80]} is no record")
        descriptor = Descriptor.read(entry.get("layer"), path=f"$.records.{key}.layer", what=what)
        diff_id = Digest.parse(document.get(entry, "diff_id", str, None, path=f"$.records.{key}", what=what))
        records[key] = Layer(descriptor, diff_id)
    return records, checked_facts(tree, "$", what)


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
    write_artifact(CONFIG_TYPE, tree, list(blobs.values()), place.place, store, around, observer)


def write_artifact(
    kind: str,
    tree: dict[str, Any],
    blobs: Sequence[Descriptor],
    place: str,
    store: LayoutStore,
    around: Surroundings,
    observer: Observer,
) -> None:
    """Write an artifact to another place: a config of the type `kind`, and blobs that the store has."""
    from imagetool.transfer import copy as transfer

    raw = document.encode(tree)
    config = Descriptor(kind, Digest.of(raw), len(raw))
    manifest = Manifest.make(config, blobs)
    store.push(config, [raw])
    store.push(manifest.descriptor, [manifest.raw])
    writer, rest = find(place)
    with writer.destination(rest, around) as target:
        transfer(store, target.store, manifest.descriptor, tags=target.tags, observer=observer)
