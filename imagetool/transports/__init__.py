"""The places images come from and go to, by the prefix that names them, as in skopeo.

A plain name is the local store. A new transport is a module with a class that offers
`Transport`, and a function and a line in TRANSPORTS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

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
    def source(self, rest: str, around: Surroundings) -> AbstractContextManager[OpenSource]:
        """Open an image to read. Raises NotFound and the like."""
        ...

    def destination(self, rest: str, around: Surroundings) -> AbstractContextManager[OpenDestination]:
        """Open a place to write to; what was written appears when the context ends without an error."""
        ...


def _docker() -> Transport:
    from imagetool.transports.docker import Docker

    return Docker()


def _oci() -> Transport:
    from imagetool.transports.oci import Oci

    return Oci()


def _oci_archive() -> Transport:
    from imagetool.transports.archive import OciArchive

    return OciArchive()


def _docker_archive() -> Transport:
    from imagetool.transports.archive import DockerArchive

    return DockerArchive()


def _dir() -> Transport:
    from imagetool.transports.dir import Dir

    return Dir()


def _aci() -> Transport:
    from imagetool.transports.aci import Aci

    return Aci()


#: Every transport by its prefix; its module is imported when an image of that kind is named.
TRANSPORTS: Final[Mapping[str, Callable[[], Transport]]] = {
    "docker://": _docker,
    "oci:": _oci,
    "oci-archive:": _oci_archive,
    "docker-archive:": _docker_archive,
    "dir:": _dir,
    "aci:": _aci,
}

#: What to do instead, for the stores of other programs that skopeo knows.
FOREIGN: Final[Mapping[str, str]] = {
    "docker:": "a registry's image is docker://NAME",
    "docker-daemon:": "`docker save NAME | imagetool load` and `imagetool save NAME | docker load` do it",
    "containers-storage:": "`podman save NAME | imagetool load` and `imagetool save NAME | podman load` do it",
    "ostree:": "an image of a store of OSTree cannot be read",
    "sif:": "an image of Singularity cannot be read",
    "tarball:": "`imagetool base FILE` makes an image of a root filesystem's tarball",
}


def find(text: str) -> tuple[Transport, str]:
    """Split `transport:rest`; a plain name is the local store. Raises UsageError for a malformed one."""
    from imagetool.transports.local import Local

    for prefix, transport in TRANSPORTS.items():
        if text.startswith(prefix):
            if not text[len(prefix) :]:
                raise UsageError(f"{text!r}: nothing is named after the transport")
            return transport(), text[len(prefix) :]
    scheme = text.partition(":")[0]
    if text.startswith(("http://", "https://")) or f"{scheme}:" in FOREIGN:
        there = f"there are {', '.join(TRANSPORTS)} and plain names for the local store"
        hint = f"{FOREIGN[f'{scheme}:']}; " if f"{scheme}:" in FOREIGN else ""
        raise UsageError(f"{text!r}: no such transport; {hint}{there}")
    return Local(), text


def path_and_name(rest: str) -> tuple[Path, str]:
    """Split `PATH[:NAME]` at its first colon, as skopeo does. Raises UsageError when there is no path."""
    path, _, name = rest.partition(":")
    if not path:
        raise UsageError(f"{rest!r}: no path is named before the colon")
    return Path(path), name
