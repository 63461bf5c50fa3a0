"""`docker://REFERENCE`: a registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagetool.oci.reference import Reference
from imagetool.transports.base import OpenDestination, OpenSource, Surroundings


class Docker:
    """A registry as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open an image in a registry; see `Transport`."""
        reference = Reference.parse(rest).with_default_tag()
        with around.registry(reference.registry, reference.repository) as repository:
            yield OpenSource(repository, repository.fetch_root(reference.target), str(reference))

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Write to a registry; see `Transport`."""
        reference = Reference.parse(rest).with_default_tag()
        with around.registry(reference.registry, reference.repository) as repository:
            yield OpenDestination(repository, (reference.tag,) if reference.tag else (), str(reference))
