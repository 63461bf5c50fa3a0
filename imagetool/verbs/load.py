"""`load`: the images of an archive into the local store."""

from __future__ import annotations

from pathlib import Path

from imagetool.transports.archive import opened_images
from imagetool.verbs.copy import what_is_here
from imagetool.verbs.workplace import Workplace


def load(path: Path | str, place: Workplace) -> list[str]:
    """Take every image of an OCI or docker archive into the local store, compressed or not.

    Returns the names they have there, or the digests of those that have none. Raises NotFound, InvalidArchive.
    """
    from imagetool.transfer import copy

    loaded: list[str] = []
    store = place.store
    with store.session(), opened_images(Path(path), place.surroundings) as images:
        for source, names in images:
            root = what_is_here(source, place)
            copy(source.store, store, root, tags=names or ("",), observer=place.observer)
            loaded += names or [str(root.digest)]
    return loaded
