"""Cache mounts in other places: directories of RUN --mount=type=cache as OCI artifacts, a layer each."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from imagetool.content.layout import LayoutStore
from imagetool.content.staging import locked, storage_errors
from imagetool.content.store import Fetcher, fetch_bytes
from imagetool.errors import InvalidDocument, NotFound, VerificationError
from imagetool.image.image import Layer, opener
from imagetool.image.write import write_layer
from imagetool.oci import document
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest, parse
from imagetool.progress import Note, Observer
from imagetool.streams.codecs import Codec
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.values import dataclass, field
from imagetool.verbs.buildcache import write_artifact

MOUNTS_TYPE: Final = "application/vnd.imagetool.cachemounts.v1+json"
_KEY: Final = re.compile(r"[0-9a-f]{64}\Z")


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
    write_artifact(MOUNTS_TYPE, {"mounts": entries}, list(unique.values()), place, store, around, observer)
    return chosen


def import_mounts(folder: Path, place: str, around: Surroundings, observer: Observer) -> list[str]:
    """Take cache mounts from another place; those that exist here are replaced. Return their ids."""
    from imagetool.content.folders import new_folder
    from imagetool.layer.tarreader import read
    from imagetool.layer.unpack import Ownership, unpack

    transport, rest = find(place)
    taken = []
    with transport.source(rest, around) as source:
        manifest = _artifact(source.store, source.root, MOUNTS_TYPE, "cache of mounts")
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


def _artifact(source: Fetcher, root: Descriptor, wanted: str, what: str) -> Manifest:
    found = parse(fetch_bytes(source, root), media_type=root.media_type, what=what)
    if not isinstance(found, Manifest) or found.config.media_type != wanted:
        raise InvalidDocument(f"{root.digest} is no {what} of ours: its config is not {wanted}")
    return found
