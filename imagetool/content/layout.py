"""An OCI image layout as a store: the local store, and every `oci:` directory.

    DIR/oci-layout   {"imageLayoutVersion":"1.0.0"}
    DIR/index.json   the roots; a name is annotation org.opencontainers.image.ref.name
    DIR/blobs/ALGORITHM/HEX

Several processes may use one layout: `index.json` changes under an exclusive lock on DIR and
is replaced by rename; a writer holds a shared lock on DIR/blobs from its first blob until its
root is in the index (`session`), and `collect` takes that lock exclusively, so it never removes
a blob that is about to be referenced.

Source: image-spec v1.1 image-layout.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imagetool import limits
from imagetool.content.staging import (
    StagedBlob,
    StagedFile,
    locked,
    make_folder,
    open_stored,
    place_blob,
    storage_errors,
    sweep,
)
from imagetool.content.store import fetch_document
from imagetool.errors import NotFound, StorageError, UsageError
from imagetool.limits import CHUNK
from imagetool.oci import document, mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index
from imagetool.streams.pump import read_chunks
from imagetool.streams.verify import verified

REF_NAME: Final = "org.opencontainers.image.ref.name"
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_STAGING: Final = ".staging"


class LayoutStore:
    """Blobs and named roots of one layout directory. Safe to use from several threads and processes.

    Implements Fetcher, Pusher, Ingester, Resolver and Tagger.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs"
        self._staging = folder / _STAGING

    def __str__(self) -> str:
        return f"oci:{self.folder}"

    @classmethod
    def open(cls, folder: Path) -> LayoutStore:
        """Open a layout that exists; raises NotFound when the directory is not one."""
        try:
            with open_stored(folder / "oci-layout") as file:
                raw = file.read(limits.DOCUMENT_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{folder} is not an OCI image layout: it has no oci-layout file") from None
        except OSError as error:
            raise StorageError(f"cannot read {folder}: {error.strerror}") from error
        what = f"{folder}/oci-layout"
        tree = document.decode(raw, what=what)
        version = document.get(tree, "imageLayoutVersion", str, None, path="$", what=what)
        if not version.startswith("1."):
            raise UsageError(f"{what}: layout version {version[:20]!r} is not supported, only 1.x is")
        return cls(folder)

    @classmethod
    def create(cls, folder: Path) -> LayoutStore:
        """Open a layout, making the directory and its files where they are missing.

        Raises UsageError when the directory holds other things and is not a layout.
        """
        store = cls(folder)
        with storage_errors(f"cannot make the OCI layout {folder}"):
            make_folder(folder)
            if (folder / "oci-layout").exists():
                cls.open(folder)
                sweep(store._staging)
                return store
            others = [name for name in os.listdir(folder) if name not in ("blobs", "index.json", _STAGING)]
            if others:
                raise UsageError(f"{folder} is not empty and not an OCI layout (it holds {others[0]!r})")
            make_folder(folder / "blobs" / "sha256")
        with locked(folder):
            if not (folder / "index.json").exists():
                store._write("index.json", Index.make([]).raw)
            if not (folder / "oci-layout").exists():
                store._write("oci-layout", _LAYOUT)
        return store

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keep `collect` of other processes away while blobs are written that no root names yet."""
        with locked(self._blobs, shared=True):
            yield

    def path(self, digest: Digest) -> Path:
        """Return where a blob is or would be."""
        return self._blobs / digest.algorithm / digest.hex

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Open a blob; see `Fetcher`."""
        try:
            file = open_stored(self.path(descriptor.digest))
        except FileNotFoundError:
            raise NotFound(f"blob {descriptor.digest} is not in {self}") from None
        except OSError as error:
            raise StorageError(f"cannot read blob {descriptor.digest} in {self}: {error.strerror}") from error
        with file:
            yield verified(read_chunks(file, CHUNK), descriptor, where=f"{descriptor.digest} in {self}")

    def exists(self, descriptor: Descriptor) -> bool:
        """Say whether the blob is there with the right size; what it holds was verified when it came."""
        try:
            return os.stat(self.path(descriptor.digest)).st_size == descriptor.size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"cannot look at blob {descriptor.digest} in {self}: {error.strerror}") from error

    def push(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; see `Pusher`."""
        with StagedFile(self._staging) as file:
            for chunk in verified(chunks, descriptor, where=f"{descriptor.digest} for {self}"):
                file.write(chunk)
            place_blob(file, self._blobs, descriptor.digest)

    def ingest(self) -> StagedBlob:
        """Open a blob whose digest is not known yet; see `Ingester`."""
        return StagedBlob(self._staging, self._blobs)

    def index(self) -> Index:
        """Return index.json as it is now."""
        path = self.folder / "index.json"
        try:
            with open_stored(path) as file:
                raw = file.read(limits.DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            raise StorageError(f"{path} is missing; the layout is damaged") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        return Index.parse(raw, what=str(path))

    def names(self) -> dict[str, Descriptor]:
        """Return every named root, in the order of the index."""
        roots = self.index().manifests
        return {root.annotations[REF_NAME]: root for root in roots if REF_NAME in root.annotations}

    def resolve(self, reference: str) -> Descriptor:
        """Return a root by name, by digest, or, for an empty reference, the only root there is."""
        roots = self.index().manifests
        if not reference:
            if len(roots) == 1:
                return roots[0]
            raise NotFound(
                f"{self} holds {len(roots)} images; name one: {', '.join(self.names()) or 'none has a name'}"
            )
        for root in roots:
            if reference in (root.annotations.get(REF_NAME), str(root.digest)):
                return root
        raise NotFound(f"no image named {reference!r} in {self}")

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Name a document that is in the store; an empty reference adds it without a name."""
        if not self.exists(descriptor):
            raise NotFound(f"cannot name {descriptor.digest} {reference!r}: it is not in {self}")
        annotations = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
        if reference:
            annotations[REF_NAME] = reference
        root = Descriptor(
            descriptor.media_type,
            descriptor.digest,
            descriptor.size,
            annotations,
            descriptor.platform,
            descriptor.artifact_type,
            descriptor.extra,
        )
        with self._editing() as index:
            kept = [
                other
                for other in index.manifests
                if (other.annotations.get(REF_NAME) != reference if reference else True)
                and not (other.digest == root.digest and REF_NAME not in other.annotations)
            ]
            edited = index.with_manifests([*kept, root]).raw
            if edited != index.raw:  # what is there already was made durable by whoever wrote it
                self._write("index.json", edited)

    def untag(self, reference: str) -> Descriptor:
        """Remove a root by name or digest from the index and return it; its blobs stay until `collect`."""
        with self._editing() as index:
            root = self.resolve(reference)
            kept = [other for other in index.manifests if other is not root and not _same(other, root)]
            self._write("index.json", index.with_manifests(kept).raw)
        return root

    def unnamed(self) -> set[Digest]:
        """Return the digests of roots that have no name."""
        return {root.digest for root in self.index().manifests if REF_NAME not in root.annotations}

    def forget(self, digests: Iterable[Digest]) -> None:
        """Remove roots without a name from the index; what another root reaches stays, as do their names."""
        gone = set(digests)
        with self._editing() as index:
            kept = [root for root in index.manifests if root.digest not in gone or REF_NAME in root.annotations]
            if len(kept) < len(index.manifests):
                self._write("index.json", index.with_manifests(kept).raw)

    def collect(self, *, keep: Iterable[Digest] = ()) -> tuple[int, int]:
        """Remove blobs that no root reaches; return their count and bytes.

        `keep` names blobs that are in use for another reason (a build cache). Waits for the
        sessions of other processes to end.
        """
        with locked(self._blobs), self._editing() as index:
            live = set(keep)
            for root in index.manifests:
                self._mark(root, live)
            names = {str(digest) for digest in live}
            count = freed = 0
            for folder in sorted(self._blobs.iterdir()):
                for path in sorted(folder.iterdir()):
                    if f"{folder.name}:{path.name}" not in names:
                        with storage_errors(f"cannot remove blob {path.name} from {self}"):
                            freed += path.stat().st_size
                            path.unlink()
                        count += 1
            sweep(self._staging)
        return count, freed

    def _mark(self, descriptor: Descriptor, live: set[Digest]) -> None:
        """Add all that a root reaches; a child that is absent (a sparse index) reaches nothing."""
        live.add(descriptor.digest)
        if descriptor.media_type in mediatype.DOCUMENTS and self.exists(descriptor):
            for child in fetch_document(self, descriptor).children:
                if child.digest not in live:
                    self._mark(child, live)

    @contextmanager
    def _editing(self) -> Iterator[Index]:
        with locked(self.folder):
            yield self.index()

    def _write(self, name: str, data: bytes) -> None:
        with StagedFile(self._staging) as file:
            file.write(data)
            file.place(self.folder / name)


def _same(one: Descriptor, other: Descriptor) -> bool:
    return one == other and one.annotations.get(REF_NAME) == other.annotations.get(REF_NAME)
