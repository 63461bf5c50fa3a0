"""An OS template and a container's configuration for OpenVZ.

Source: ctid.conf(5), vzctl(8) of vzctl 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from imagetool.errors import InvalidDocument
from imagetool.layer.merge import merge
from imagetool.runtime.bundles import shape
from imagetool.runtime.bundles.keyed import Pairs, checked
from imagetool.runtime.bundles.parts import BundleSource, require_os, write_text
from imagetool.runtime.bundles.tarball import write_tarball

_MACHINES: Final = {"amd64": "x86_64", "386": "x86", "arm64": "aarch64"}
_YES_NO: Final = shape.one_of("yes", "no")
_LIMIT: Final = shape.matching(r"(\d+[KMGTP]?|unlimited)(:(\d+[KMGTP]?|unlimited))?", "BARRIER:LIMIT")
_KNOWN: Final[dict[str, shape.Shape]] = {
    "ONBOOT": _YES_NO,
    "VE_ROOT": shape.absolute,
    "VE_PRIVATE": shape.absolute,
    "VE_LAYOUT": shape.one_of("simfs", "ploop"),
    "OSTEMPLATE": shape.matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a template's name"),
    "ORIGIN_SAMPLE": shape.matching(r"[A-Za-z0-9._-]+", "a sample's name"),
    "HOSTNAME": shape.matching("[a-z][a-z0-9-]{0,62}", "a host name"),
    "CPUUNITS": shape.matching(r"\d+", "a number"),
    "LOCAL_UID": shape.matching(r"\d+", "a number"),
    "LOCAL_GID": shape.matching(r"\d+", "a number"),
    **dict.fromkeys(
        ("PHYSPAGES", "SWAPPAGES", "PRIVVMPAGES", "KMEMSIZE", "NUMPROC", "DISKSPACE", "DISKINODES", "NUMFILE"), _LIMIT
    ),
}
_LIMITS: Final = (
    ("PHYSPAGES", "0:512M"),
    ("SWAPPAGES", "0:512M"),
    ("KMEMSIZE", "unlimited"),
    ("PRIVVMPAGES", "unlimited"),
    ("NUMPROC", "1024:1024"),
    ("NUMFILE", "16384:16384"),
    ("DISKSPACE", "2G:2G"),
    ("DISKINODES", "200000:220000"),
    ("CPUUNITS", "1000"),
)


def write_openvz(source: BundleSource, folder: Path, *, ctid: int = 101) -> None:
    """Write template/cache/NAME.tar.gz and conf/CTID.conf, to be put below /vz and /etc/vz.

    OpenVZ starts a container by its /sbin/init; an image without one gets a warning.
    """
    require_os(source, "linux", target="OpenVZ")
    version = source.name.rpartition("/")[2].partition(":")[2].partition("@")[0] or "latest"
    architecture = source.image.config.platform.architecture
    template = f"{source.label}-{version}-{_MACHINES.get(architecture, architecture)}"
    write_tarball(source, folder / "template" / "cache" / f"{template}.tar.gz")
    if merge(source.image.openers()).lookup(b"sbin/init")[1] is None:
        source.warn("the image has no /sbin/init, which is what vzctl start runs")
    pairs = [
        ("ONBOOT", "no"),
        ("VE_ROOT", "/vz/root/$VEID"),
        ("VE_PRIVATE", "/vz/private/$VEID"),
        ("VE_LAYOUT", "simfs"),
        ("OSTEMPLATE", template),
        ("HOSTNAME", source.label),
        *_LIMITS,
    ]
    write_text(folder / "conf" / f"{ctid}.conf", ctid_conf(pairs))


def ctid_conf(pairs: Pairs) -> str:
    """Return a container's configuration, which vzctl reads as shell assignments.

    Raises InvalidDocument for a parameter it does not know, one given twice, or a limit below its barrier.
    """
    found = checked(pairs, _KNOWN, what="CTID.conf")
    if len({key for key, _ in found}) != len(found):
        raise InvalidDocument("CTID.conf: a parameter is given twice")
    for key, value in found:
        barrier, colon, limit = value.partition(":")
        if _KNOWN[key] is _LIMIT and colon and _amount(barrier) > _amount(limit):
            raise InvalidDocument(f"CTID.conf: {key} has a barrier above its limit: {value}")
        if set(value) & set("\"'`\\ "):
            raise InvalidDocument(f"CTID.conf: {key} cannot be {value[:60]!r}")
    return "".join(f'{key}="{value}"\n' for key, value in found)


def _amount(text: str) -> float:
    if text == "unlimited":
        return float("inf")
    number = text.rstrip("KMGTP")
    return float(int(number) << (10 * " KMGTP".index(text[len(number) :] or " ")))
