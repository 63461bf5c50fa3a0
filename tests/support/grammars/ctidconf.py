"""A reader of OpenVZ's CTID.conf, written from ctid.conf(5): shell assignments, limits, units."""

from __future__ import annotations

import re

_LINE = re.compile(r'([A-Z][A-Z0-9_]*)="([^"`\\]*)"')
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 12}
UBC = {
    "KMEMSIZE", "LOCKEDPAGES", "PRIVVMPAGES", "SHMPAGES", "NUMPROC", "PHYSPAGES", "VMGUARPAGES", "OOMGUARPAGES",
    "NUMTCPSOCK", "NUMFLOCK", "NUMPTY", "NUMSIGINFO", "TCPSNDBUF", "TCPRCVBUF", "OTHERSOCKBUF", "DGRAMRCVBUF",
    "NUMOTHERSOCK", "DCACHESIZE", "NUMFILE", "NUMIPTENT", "SWAPPAGES", "DISKSPACE", "DISKINODES",
}  # fmt: skip
OTHERS = {
    "ONBOOT", "VE_ROOT", "VE_PRIVATE", "VE_LAYOUT", "OSTEMPLATE", "ORIGIN_SAMPLE", "HOSTNAME", "CPUUNITS", "CPULIMIT",
    "CPUS", "IP_ADDRESS", "NAMESERVER", "SEARCHDOMAIN", "CAPABILITY", "FEATURES", "LOCAL_UID", "LOCAL_GID", "NAME",
    "QUOTATIME", "NETIF", "IOPRIO", "DESCRIPTION",
}  # fmt: skip


class CtidConfError(Exception):
    pass


def parse(text: str) -> dict[str, str]:
    """Return the parameters; raises CtidConfError for what vzctl or vzcfgvalidate would refuse."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise CtidConfError(f"not an assignment: {line!r}")
        key, value = match.groups()
        if key not in UBC | OTHERS or key in found:
            raise CtidConfError(f"unknown or repeated: {key}")
        if key in UBC:
            barrier, limit = (_amount(part) for part in (value if ":" in value else f"{value}:{value}").split(":"))
            if barrier > limit:
                raise CtidConfError(f"{key}: barrier above limit")
        if key == "ONBOOT" and value not in ("yes", "no"):
            raise CtidConfError(f"ONBOOT: {value}")
        found[key] = value
    if missing := {"VE_ROOT", "VE_PRIVATE", "OSTEMPLATE"} - found.keys():
        raise CtidConfError(f"missing: {sorted(missing)}")
    return found


def _amount(text: str) -> float:
    if text == "unlimited":
        return float("inf")
    match = re.fullmatch(r"(\d+)([KMGTP]?)", text)
    if match is None:
        raise CtidConfError(f"not an amount: {text!r}")
    return int(match[1]) * _UNITS[match[2]]
