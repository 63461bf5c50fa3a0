"""Where the verbs work: the local store, the cache and scratch space below one directory, and the way to registries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool.config.environment import source_date_epoch
from imagetool.content.layout import LayoutStore
from imagetool.errors import NotFound
from imagetool.oci.descriptor import Descriptor
from imagetool.progress import Observer, silent
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.transports.local import is_identity, local_name
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.build.cache import FolderCache
    from imagetool.build.containers import Containers
    from imagetool.distribution.auth import Credentials
    from imagetool.oci.digest import Digest
    from imagetool.oci.platform import Platform
    from imagetool.transfer import CopyReport, Origins


@dataclass(frozen=True, slots=True)
class Workplace:
    """The local store and how to reach registries; everything below one directory.

    root: made when missing. tls_verify: whether registries must prove who they are.
    authfile: the only file that credentials are taken from; None for the usual ones.
    """

    root: Path
    tls_verify: bool = True
    observer: Observer = silent
    authfile: Path | None = None

    @property
    def store(self) -> LayoutStore:
        """The local store, an OCI layout."""
        return LayoutStore.create(self.root / "layout")

    @property
    def cache(self) -> FolderCache:
        """The build cache."""
        from imagetool.build.cache import FolderCache

        return FolderCache(self.root / "cache")

    @property
    def containers(self) -> Containers:
        """The working containers."""
        from imagetool.build.containers import Containers

        return Containers(self.root / "containers")

    def needed(self) -> Iterator[Digest]:
        """Yield the digests of layers that no image may name and that are needed all the same."""
        yield from self.cache.layers()
        for _, record in self.containers.records():
            yield from (layer.descriptor.digest for layer in record.layers)

    @property
    def origins(self) -> Origins:
        """Which registries' repositories have which blobs."""
        from imagetool.transfer.origins import FolderOrigins

        return FolderOrigins(self.root / "origins")

    @property
    def surroundings(self) -> Surroundings:
        """What transports need."""
        epoch = source_date_epoch()
        return Surroundings(
            self.store,
            self.root / "scratch",
            self.repository,
            315_532_800 if epoch is None else epoch,
            self.observer,
        )

    def repository(self, registry: str, repository: str) -> Any:
        """Open a repository of a registry, a `remote.repository.Repository`."""
        from imagetool.config.certificates import tls_for
        from imagetool.config.credentials import trusted_realms
        from imagetool.remote.repository import open_repository

        return open_repository(
            registry,
            repository,
            credentials=self._credentials,
            tls=tls_for(registry, verify=self.tls_verify),
            trusted_realms=trusted_realms(),
        )

    def _credentials(self, registry: str, repository: str) -> Credentials | None:
        from imagetool.config.credentials import find as find_credentials

        found = find_credentials(registry, repository, authfile=self.authfile)
        return found.credentials if found else None


@contextmanager
def opened(reference: str, place: Workplace) -> Iterator[tuple[Any, Descriptor]]:
    """Open an image of any transport to read: its store and root."""
    transport, rest = find(reference)
    with transport.source(rest, place.surroundings) as source:
        yield source.store, source.root


def pull_into(name: str, place: Workplace, store: LayoutStore, platform: Platform | None) -> CopyReport:
    """Copy an image from its registry to a store, under the same name; the store's session is the caller's.

    platform: the only image of an index to copy; the name means the index all the same. None for all of them.
    """
    if is_identity(name):
        raise NotFound(f"no image {name!r} in the local store; registries are asked for names only")
    from imagetool.transfer import copy as transfer
    from imagetool.transports.docker import Docker

    with Docker().source(name, place.surroundings) as source:
        tags = (local_name(name),)
        options: dict[str, Any] = {"tags": tags, "observer": place.observer, "origins": place.origins}
        return transfer(source.store, store, source.root, platform=platform, keep_index=platform is not None, **options)
