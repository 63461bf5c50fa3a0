"""`dir:DIR`: a manifest and its blobs as plain files, as skopeo writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imagetool import limits
from imagetool.content.staging import StagedFile, make_folder, open_stored, replace_file, storage_errors, sweep
from imagetool.content.store import walk
from imagetool.errors import NotFound, StorageError, UsageError
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import parse
from imagetool.streams.pump import read_chunks
from imagetool.streams.verify import verified
from imagetool.transports.base import OpenDestination, OpenSource, Surroundings

_STAGING: Final = ".staging"
_VERSION: Final = b"Directory Transport Version: 1.1\n"
_BLOB: Final = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{128})(?:\.manifest\.json)?\Z")


class DirStore:
    """One image in a directory: `manifest.json`, `version`, and blobs named by their hex digits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: set[Path] = set()

    def __str__(self) -> str:
        return f"dir:{self._folder}"

    def _path(self, descriptor: Descriptor) -> Path:
        if descriptor.media_type in mediatype.DOCUMENTS:
            return self._folder / f"{descriptor.digest.hex}.manifest.json"
        return self._folder / descriptor.digest.hex

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Open a blob; see `Fetcher`."""
        path = self._path(descriptor)
        if descriptor == self._root():
            path = self._folder / "manifest.json"
        try:
            file = open_stored(path)
        except FileNotFoundError:
            raise NotFound(f"{descriptor.digest} is not in {self}") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        with file:
            yield verified(read_chunks(file), descriptor, where=f"{descriptor.digest} in {self}")

    def _root(self) -> Descriptor | None:
        try:
            return self.resolve("")
        except NotFound:
            return None

    def resolve(self, reference: str) -> Descriptor:
        """Return the directory's manifest."""
        try:
            with open_stored(self._folder / "manifest.json") as file:
                raw = file.read(limits.DOCUMENT_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{self} has no manifest.json") from None
        except OSError as error:
            raise StorageError(f"cannot read {self}: {error.strerror}") from error
        return parse(raw, what=f"{self}/manifest.json").descriptor

    def exists(self, descriptor: Descriptor) -> bool:
        """Say whether a blob is there with the right size."""
        path = self._path(descriptor)
        return path.is_file() and path.stat().st_size == descriptor.size

    def push(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; see `Pusher`."""
        with StagedFile(self._folder / _STAGING) as file:
            for chunk in verified(chunks, descriptor, where=f"{descriptor.digest} for {self}"):
                file.write(chunk)
            path = self._path(descriptor)
            if not path.exists():
                self._written.add(path)
            file.place(path)

    def abandon(self) -> bool:
        """Remove what was pushed and the visible image does not need; say whether there is an image.

        A copy may fail after its manifest took the place of the last one: then the image is there, whole.
        """
        root = self._root()
        kept = None if root is None else self._used(root)
        for path in self._written:
            if root is None or (kept is not None and path.name not in kept):
                with storage_errors(f"cannot remove {path}"):
                    path.unlink(missing_ok=True)
        return root is not None

    def remove_unused(self) -> None:
        """Remove the blobs of the image that was here before."""
        kept = self._used(self.resolve(""))
        for name in os.listdir(self._folder):
            if kept is not None and _BLOB.match(name) and name not in kept:
                with storage_errors(f"cannot remove {name} from {self}"):
                    (self._folder / name).unlink()

    def _used(self, root: Descriptor) -> set[str] | None:
        """Return the files an image is made of; None for an index without all its images."""
        try:
            documents = list(walk(self, root))
        except NotFound:
            return None
        return {self._path(child).name for _, each in documents for child in each.children}

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Make a document that was pushed the directory's manifest."""
        path = self._path(descriptor)
        with storage_errors(f"cannot tag {descriptor.digest} in {self}"):
            replace_file(self._folder / "manifest.json", path.read_bytes())
            path.unlink()


class Dir:
    """A plain directory as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open the image of a directory; see `Transport`."""
        store = DirStore(Path(rest))
        yield OpenSource(store, store.resolve(""), f"dir:{rest}")

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Write to a directory, which is made when missing; see `Transport`."""
        folder = Path(rest)
        with storage_errors(f"cannot make {folder}"):
            make_folder(folder)
            others = [name for name in os.listdir(folder) if name != _STAGING and not name.startswith(".version.")]
        if others and "version" not in others:
            raise UsageError(f"{folder} is not empty and holds no image (it holds {others[0]!r})")
        sweep(folder / _STAGING)
        replace_file(folder / "version", _VERSION)
        store = DirStore(folder)
        try:
            yield OpenDestination(store, ("",), f"dir:{rest}")
        except BaseException:
            if not store.abandon() and not others:
                (folder / "version").unlink(missing_ok=True)
            raise
        store.remove_unused()
