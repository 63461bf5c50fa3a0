"""What the runtime-spec says of the platform sections of config.json, told a second time and in another way.

One line per field: path, kind, and what it may be. Unlike the published JSON schema, a path that is not listed is
an error. Source: runtime-spec config-freebsd.md, config-solaris.md, config-vm.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_FIELDS = """\
freebsd.devices[].path string
freebsd.devices[].mode 0..511
freebsd.jail.parent string
freebsd.jail.host new|inherit
freebsd.jail.ip4 new|inherit|disable
freebsd.jail.ip4Addr[] string
freebsd.jail.ip6 new|inherit|disable
freebsd.jail.ip6Addr[] string
freebsd.jail.vnet new|inherit
freebsd.jail.interface string
freebsd.jail.vnetInterfaces[] string
freebsd.jail.sysvmsg new|inherit|disable
freebsd.jail.sysvsem new|inherit|disable
freebsd.jail.sysvshm new|inherit|disable
freebsd.jail.enforceStatfs 0..2
freebsd.jail.allow.setHostname boolean
freebsd.jail.allow.rawSockets boolean
freebsd.jail.allow.chflags boolean
freebsd.jail.allow.mount[] string
freebsd.jail.allow.quotas boolean
freebsd.jail.allow.socketAf boolean
freebsd.jail.allow.mlock boolean
freebsd.jail.allow.reservedPorts boolean
freebsd.jail.allow.suser boolean
solaris.milestone string
solaris.limitpriv string
solaris.maxShmMemory string
solaris.cappedCPU.ncpus string
solaris.cappedMemory.physical string
solaris.cappedMemory.swap string
solaris.anet[].linkname string
solaris.anet[].lowerLink string
solaris.anet[].allowedAddress string
solaris.anet[].configureAllowedAddress string
solaris.anet[].defrouter string
solaris.anet[].macAddress string
solaris.anet[].linkProtection string
vm.hypervisor.path string
vm.hypervisor.parameters[] string
vm.kernel.path string
vm.kernel.parameters[] string
vm.kernel.initrd string
vm.image.path string
vm.image.format raw|qcow2|vdi|vmdk|vhd
vm.hwConfig.vcpus 0..4294967295
vm.hwConfig.memory 0..18446744073709551615
"""
FIELDS = dict(line.split(" ") for line in _FIELDS.splitlines())


def problems(section: str, tree: Any) -> list[str]:
    """Return a line for every leaf of a section that the specification does not have, or has otherwise."""
    return [line for path, value in _leaves(section, tree) if (line := _problem(path, value))]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(f"{path}[]", inner)
    else:
        yield path, value


def _problem(path: str, value: Any) -> str:
    kind = FIELDS.get(path)
    if kind is None:
        return f"{path} is not there"
    if kind == "string":
        good = isinstance(value, str)
    elif kind == "boolean":
        good = isinstance(value, bool)
    elif span := re.fullmatch(r"(\d+)\.\.(\d+)", kind):
        good = type(value) is int and int(span[1]) <= value <= int(span[2])
    else:
        good = value in kind.split("|")
    return "" if good else f"{path} is {value!r}, not {kind}"
