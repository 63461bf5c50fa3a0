"""A zone for Solaris and illumos: zonecfg commands, the zone's XML, a tarball to install from, config.json.

A Linux image becomes a zone of brand lx, in which illumos runs Linux programs.

Source: runtime-spec v1.2 config-solaris.md; zonecfg(8), brands(7), lx(7) of illumos; zonecfg.dtd.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import quoteattr

from imagetool.errors import InvalidDocument
from imagetool.runtime.bundles import shape
from imagetool.runtime.bundles.oci import plain_config, write_config
from imagetool.runtime.bundles.parts import BundleSource, require_os, write_rootfs, write_text
from imagetool.runtime.bundles.tarball import write_tarball
from imagetool.runtime.imageprocess import ImageProcess, annotations_of

_LINUX_VERSION: Final = "4.4"  # what programs of an lx zone see as their kernel
_BRANDS: Final = {"linux": "lx", "solaris": "solaris", "illumos": "ipkg"}
_NAME: Final = shape.matching("[a-z][a-z0-9-]{0,62}", "a zone's name")
_PROPERTIES: Final[dict[str, shape.Shape]] = {
    "zonepath": shape.absolute,
    "brand": shape.one_of(*_BRANDS.values()),
    "autoboot": shape.one_of("true", "false"),
    "ip-type": shape.one_of("exclusive", "shared"),
    "limitpriv": shape.matching("[a-z_,!]+", "a list of privileges"),
}
_RESOURCES: Final[dict[str, dict[str, shape.Shape]]] = {
    "attr": {
        "name": shape.matching("[a-z][a-z-]*", "an attribute's name"),
        "type": shape.one_of("string", "boolean", "int", "uint"),
        "value": shape.matching(r"[A-Za-z0-9._/-]+", "a plain word"),
    },
    "capped-memory": {"physical": shape.matching("[0-9]+[mg]", "a size"), "swap": shape.matching("[0-9]+[mg]", "")},
    "net": {"physical": shape.matching("[a-z][a-z0-9]*", "an interface")},
}
Resource = tuple[str, Mapping[str, str]]


def write_zone(source: BundleSource, folder: Path) -> None:
    """Write NAME.zonecfg, NAME.xml, NAME.tar.gz, and a runtime-spec bundle with a `solaris` section."""
    require_os(source, *_BRANDS, target="Solaris or illumos")
    name = source.label
    write_rootfs(source, folder / "rootfs")
    process = source.process(folder / "rootfs")
    brand = _BRANDS[source.image.config.platform.os or "linux"]
    properties = {
        "zonepath": f"/zones/{name}",
        "brand": brand,
        "autoboot": "false",
        "ip-type": "exclusive",
        "limitpriv": "default",
    }
    kernel = {"name": "kernel-version", "type": "string", "value": _LINUX_VERSION}
    resources: list[Resource] = [("attr", kernel)] if brand == "lx" else []
    write_text(folder / f"{name}.zonecfg", zonecfg(properties, resources))
    write_text(folder / f"{name}.xml", zone_xml(name, properties, resources))
    write_tarball(source, folder / f"{name}.tar.gz")
    write_config(folder, _config(source, process))
    write_text(
        folder / "README",
        f"zonecfg -z {name} -f {name}.zonecfg\n"
        + (f"zoneadm -z {name} install -t {source.place}/{name}.tar.gz\n" if brand == "lx" else "")
        + f"zoneadm -z {name} boot\n",
    )


def _config(source: BundleSource, process: ImageProcess) -> dict[str, Any]:
    return {
        **plain_config(source, process, version="1.0.2"),
        "annotations": annotations_of(source.image.config),
        "solaris": {"milestone": "svc:/milestone/container:default", "limitpriv": "default"},
    }


def zonecfg(properties: Mapping[str, str], resources: Sequence[Resource]) -> str:
    """Return the commands that configure a zone; raises InvalidDocument for what zonecfg does not know."""
    _check(properties, resources)
    lines = ["create -b", *(f"set {key}={value}" for key, value in properties.items())]
    for kind, fields in resources:
        lines += [f"add {kind}", *(f"set {key}={value}" for key, value in fields.items()), "end"]
    return "\n".join([*lines, "verify", "commit", "exit", ""])


def zone_xml(name: str, properties: Mapping[str, str], resources: Sequence[Resource]) -> str:
    """Return what zonecfg keeps in /etc/zones/NAME.xml; raises InvalidDocument as `zonecfg` does."""
    _check(properties, resources)
    _NAME(name, "zone name")
    attributes = "".join(f" {key}={quoteattr(value)}" for key, value in {"name": name, **properties}.items())
    doctype = (
        '<!DOCTYPE zone PUBLIC "-//Sun Microsystems Inc//DTD Zones//EN" "file:///usr/share/lib/xml/dtd/zonecfg.dtd.1">'
    )
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', doctype, f"<zone{attributes}>"]
    lines += [f"  {element}" for element in _elements(resources)]
    return "\n".join([*lines, "</zone>", ""])


def _elements(resources: Sequence[Resource]) -> Iterator[str]:
    for kind, fields in resources:
        if kind == "capped-memory":
            yield f'<mcap physcap="{_bytes(fields["physical"])}"/>'
        else:
            element = "network" if kind == "net" else kind
            yield f"<{element}{''.join(f' {key}={quoteattr(value)}' for key, value in fields.items())}/>"


def _bytes(size: str) -> int:
    return int(size[:-1]) << {"m": 20, "g": 30}[size[-1]]


def _check(properties: Mapping[str, str], resources: Sequence[Resource]) -> None:
    for key, value in properties.items():
        if key not in _PROPERTIES:
            raise InvalidDocument(f"zonecfg: {key} is not a property of a zone")
        _PROPERTIES[key](value, f"zonecfg: {key}")
    if "zonepath" not in properties:
        raise InvalidDocument("zonecfg: zonepath is missing")
    for kind, fields in resources:
        known = _RESOURCES.get(kind)
        if known is None:
            raise InvalidDocument(f"zonecfg: {kind} is not a resource of a zone")
        shape.record({}, known)(dict(fields), f"zonecfg: {kind}")
