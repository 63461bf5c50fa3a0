"""`oci:DIR[:TAG]`: an OCI image layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagetool.content.layout import LayoutStore
from imagetool.transports.base import OpenDestination, OpenSource, Surroundings, path_and_name


class Oci:
    """An OCI layout directory as a transport."""

    @contextmanager
    def source(self, rest: str, around: Surroundings) -> Iterator[OpenSource]:
        """Open an image of a layout; see `Transport`."""
        folder, tag = path_and_name(rest)
        store = LayoutStore.open(folder)
        yield OpenSource(store, store.resolve(tag), f"oci:{rest}")

    @contextmanager
    def destination(self, rest: str, around: Surroundings) -> Iterator[OpenDestination]:
        """Write to a layout, which is made when missing; see `Transport`."""
        folder, tag = path_and_name(rest)
        store = LayoutStore.create(folder)
        with store.session():
            yield OpenDestination(store, (tag,), f"oci:{rest}")
