"""What a transport is, and what it works with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from imagetool.content.layout import LayoutStore
from imagetool.content.store import Destination, Source
from imagetool.errors import UsageError
from imagetool.oci.descriptor import Descriptor
from imagetool.progress import Observer, silent
from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What transports need from outside: the local store, scratch space, how to reach registries.

    epoch: the time, in seconds, of what has none. observer: is told what a format cannot carry.
    """

    store: LayoutStore
    scratch: Path
    registry: RegistryAccess
    epoch: int
    observer: Observer = silent


class RegistryAccess(Protocol):
    """How registries are reached: with which credentials and certificates is not the transports' matter."""

    def __call__(self, registry: str, repository: str) -> AbstractContextManager[RegistryRepository]:
        """Open a repository."""
        ...


class RegistryRepository(Source, Destination, Protocol):
    """A repository of a registry as a store."""

    def fetch_root(self, reference: str) -> Descriptor:
        """Resolve a tag or digest by fetching the document itself, which the copy then need not ask for again."""
        ...


@dataclass(frozen=True, slots=True)
class OpenSource:
    """An image to read: where, and its root there. `name` is for messages."""

    store: Source
    root: Descriptor
    name: str


@dataclass(frozen=True, slots=True)
class OpenDestination:
    """Where an image goes, and the tags it gets there."""

    store: Destination
    tags: tuple[str, ...]
    name: str


class Transport(Protocol):
    """A kind of place for images; `rest` is what follows its prefix on the command line, as the user wrote it."""

    def source(self, rest: str, around: Surroundings) -> AbstractContextManager[OpenSource]:
        """Open an image to read; what it holds is not trusted. Raises NotFound, UsageError for a malformed `rest`."""
        ...

    def destination(self, rest: str, around: Surroundings) -> AbstractContextManager[OpenDestination]:
        """Open a place to write to; what was written appears when the context ends without an error."""
        ...


def path_and_name(rest: str) -> tuple[Path, str]:
    """Split `PATH[:NAME]` at its first colon, as skopeo does. Raises UsageError when there is no path."""
    path, _, name = rest.partition(":")
    if not path:
        raise UsageError(f"{rest!r}: no path is named before the colon")
    return Path(path), name
