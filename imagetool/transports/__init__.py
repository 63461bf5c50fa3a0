"""The places images come from and go to, by the prefix that names them, as in skopeo.

A plain name is the local store. A new transport is a module with a class that offers
`base.Transport`, and a function and a line in TRANSPORTS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from imagetool.errors import UsageError
from imagetool.transports.base import Transport


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
