"""`bundle` and `save`: an image as the directory or file that another system runs or loads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from imagetool.errors import UsageError
from imagetool.oci.platform import Platform
from imagetool.progress import Note, Observer, silent
from imagetool.runtime.bundles import cri, jail, lxc, nspawn, oci, openvz, plain, zone
from imagetool.runtime.bundles.parts import BundleSource, staged
from imagetool.runtime.imageprocess import Wishes
from imagetool.transfer import copy
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from imagetool.values import dataclass, field
from imagetool.verbs.images import found_image


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """How to make a bundle; see `imagetool bundle --help`.

    rootless: for an ordinary user, who then owns all files; None when the caller is one.
    ctid: the number of an OpenVZ container.
    """

    wishes: Wishes = field(default_factory=Wishes)
    platform: Platform | None = None
    rootless: bool | None = None
    ctid: int = 101


@dataclass(frozen=True, slots=True)
class _Request:
    source: BundleSource
    around: Surroundings
    options: BundleOptions
    observer: Observer


@dataclass(frozen=True, slots=True)
class System:
    """One kind of bundle: what it is, and what writes it. A system whose bundle is one file takes it at DEST itself."""

    what: str
    write: Callable[[_Request, Path], None]
    one_file: bool = False


def _folder(write: Callable[[BundleSource, Path], None]) -> Callable[[_Request, Path], None]:
    return lambda request, folder: write(request.source, folder)


def _archive(request: _Request, path: Path) -> None:
    """Write the archive that docker, podman, containerd and skopeo all load."""
    _transfer(request, "docker-archive:", path, request.source.name)


def _aci(request: _Request, path: Path) -> None:
    from imagetool.transports.aci import export_aci

    source = request.source
    export_aci(source.image, path, source.name, epoch=source.epoch, observer=request.observer)


def _crio(request: _Request, folder: Path) -> None:
    """Write an OCI layout under the name that containers-storage keeps, and what crictl is given."""
    cri.write_cri(request.source, folder)
    _transfer(request, "oci:", folder / "layout", cri.storage_name(request.source.name))


def _openvz(request: _Request, folder: Path) -> None:
    openvz.write_openvz(request.source, folder, ctid=request.options.ctid)


def _transfer(request: _Request, transport: str, path: Path, name: str) -> None:
    if ":" in str(path):
        raise UsageError(f"{path}: the path of an archive or layout cannot hold a colon")
    writer, rest = find(f"{transport}{path}" + ("" if name.startswith("sha256:") else f":{name}"))
    image = request.source.image
    with writer.destination(rest, request.around) as target:
        copy(image.content, target.store, image.descriptor, tags=target.tags, observer=request.observer)


#: Every system a bundle can be made for. A new one is a writer and a line here.
SYSTEMS: Final[dict[str, System]] = {
    "oci": System("runtime bundle: config.json and rootfs for runc, crun, youki, containerd", _folder(oci.write_oci)),
    "nspawn": System("directory and .nspawn settings for systemd-nspawn -D", _folder(nspawn.write_nspawn)),
    "nspawn-oci": System("runtime bundle for systemd-nspawn --oci-bundle", _folder(oci.write_nspawn_oci)),
    "lxc": System("config and rootfs for lxc-execute and lxc-start", _folder(lxc.write_lxc)),
    "chroot": System("rootfs, and a script that starts the image's command in it", _folder(plain.write_chroot)),
    "docker": System("archive for docker load", _archive, one_file=True),
    "podman": System("archive for podman load (the same)", _archive, one_file=True),
    "containerd": System("archive for ctr images import (the same)", _archive, one_file=True),
    "crio": System("OCI layout for containers-storage, pod.json and container.json for crictl", _crio),
    "rkt": System("ACI for rkt fetch and run", _aci, one_file=True),
    "freebsd-jail": System(
        "runtime bundle with a freebsd section and annotations, jail.conf", _folder(jail.write_jail)
    ),
    "solaris-zone": System(
        "zonecfg commands, zone XML, tarball, bundle with a solaris section", _folder(zone.write_zone)
    ),
    "openvz": System("OS template and CTID.conf", _openvz),
    "kata": System("runtime bundle with a vm section, RuntimeClass", _folder(oci.write_kata)),
}


def bundle(
    reference: str,
    destination: Path,
    system: str,
    around: Surroundings,
    options: BundleOptions = BundleOptions(),  # noqa: B008 - a frozen value
    *,
    observer: Observer = silent,
) -> None:
    """Write an image as what `system`, a key of SYSTEMS, runs or loads.

    The destination appears when it is complete, and must not be there before (an empty directory may;
    an archive is replaced). Raises Unsupported for an image made for another operating system.
    """
    kind = SYSTEMS.get(system)
    if kind is None:
        raise UsageError(f"--for {system}: there are {', '.join(SYSTEMS)}")
    if kind.one_file and options.wishes != Wishes():
        raise UsageError(
            f"--for {system} writes the image as it is: --cmd, --entrypoint, --env, --user and --workdir have no place "
            "in it; give them to what runs it"
        )
    place = Path(os.path.abspath(destination))
    rootless = os.geteuid() != 0 if options.rootless is None else options.rootless
    with found_image(reference, around, platform=options.platform, observer=observer) as (image, name):
        source = BundleSource(
            image,
            name,
            place,
            around.epoch,
            wishes=options.wishes,
            rootless=rootless,
            warn=lambda text: observer(Note(text, "warning")),
        )
        request = _Request(source, around, options, observer)
        if kind.one_file:
            kind.write(request, place)
            return
        with staged(place) as folder:
            kind.write(request, folder)


def save(
    references: Sequence[str], path: Path, around: Surroundings, *, format: str = "docker", observer: Observer
) -> None:
    """Write images as one file: "docker" and "oci" are the same archive, "aci" is for appc and holds one image.

    That archive is an OCI layout and a docker archive at once.
    """
    systems = {"docker": "docker", "oci": "docker", "aci": "rkt"}
    if format not in systems:
        raise UsageError(f"--format {format}: there are docker, oci and aci")
    if len(references) == 1:
        bundle(references[0], path, systems[format], around, observer=observer)
        return
    if format == "aci":
        raise UsageError(f"--format aci: an ACI is one image, not {len(references)}")
    from imagetool.transports.archive import packed

    with packed(Path(os.path.abspath(path)), around) as store:
        for reference in references:
            with found_image(reference, around, observer=observer) as (image, name):
                tag = "" if name.startswith("sha256:") else name
                copy(image.content, store, image.descriptor, tags=(tag,), observer=observer)
