"""The keys that a runtime-spec config.json may have, for every platform that we write one for.

Source: runtime-spec v1.2 config.md, config-linux.md, config-solaris.md, config-vm.md; v1.3 config-freebsd.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from imagetool.errors import InvalidDocument
from imagetool.runtime.bundles import shape
from imagetool.runtime.bundles.shape import (
    INT64,
    UINT32,
    UINT64,
    absolute,
    array,
    flag,
    mapping,
    matching,
    number,
    one_of,
    record,
    text,
)
from imagetool.runtime.capabilities import NAMES

_STRINGS: Final = array(text)
_CAPABILITIES: Final = array(one_of(*NAMES))
_NAMESPACES: Final = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
_ID_MAPPINGS: Final = array(record({"containerID": UINT32, "hostID": UINT32, "size": number(1, 2**32 - 1)}))
_HOOKS: Final = array(record({"path": absolute}, {"args": _STRINGS, "env": _STRINGS, "timeout": number(1, 2**31)}))
_ENV: Final = array(matching(r"(?s)[^=]+=.*", "NAME=VALUE"))

_PROCESS: Final = record(
    {"cwd": absolute, "args": array(text, least=1)},
    {
        "terminal": flag,
        "user": record(
            {"uid": UINT32, "gid": UINT32},
            {"umask": number(0, 0o777), "additionalGids": array(UINT32)},
        ),
        "env": _ENV,
        "capabilities": record(
            {}, dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), _CAPABILITIES)
        ),
        "rlimits": array(record({"type": matching(r"RLIMIT_[A-Z]+", "an RLIMIT_"), "soft": UINT64, "hard": UINT64})),
        "noNewPrivileges": flag,
        "oomScoreAdj": number(-1000, 1000),
        "apparmorProfile": text,
        "selinuxLabel": text,
    },
)
_MOUNTS: Final = array(
    record({"destination": absolute}, {"type": text, "source": text, "options": _STRINGS}),
)
_DEVICE_RULE: Final = record(
    {"allow": flag},
    {"type": one_of("a", "b", "c"), "major": INT64, "minor": INT64, "access": matching("r?w?m?", "some of r, w, m")},
)
_RESOURCES: Final = record(
    {},
    {
        "devices": array(_DEVICE_RULE),
        "memory": record(
            {},
            {"limit": INT64, "reservation": INT64, "swap": INT64, "swappiness": UINT64, "disableOOMKiller": flag},
        ),
        "cpu": record(
            {},
            {"shares": UINT64, "quota": INT64, "period": UINT64, "cpus": text, "mems": text, "burst": UINT64},
        ),
        "pids": record({"limit": INT64}),
        "unified": mapping(text),
    },
)
_SECCOMP_RULE: Final = record(
    {"names": array(text, least=1), "action": matching("SCMP_ACT_[A-Z_]+", "an action")},
    {
        "errnoRet": UINT32,
        "args": array(
            record(
                {"index": number(0, 5), "value": UINT64, "op": matching("SCMP_CMP_[A-Z_]+", "an operator")},
                {"valueTwo": UINT64},
            )
        ),
    },
)
_LINUX: Final = record(
    {},
    {
        "namespaces": array(record({"type": one_of(*_NAMESPACES)}, {"path": absolute})),
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
        "resources": _RESOURCES,
        "cgroupsPath": text,
        "rootfsPropagation": one_of("private", "shared", "slave", "unbindable"),
        "maskedPaths": array(absolute),
        "readonlyPaths": array(absolute),
        "sysctl": mapping(text),
        "seccomp": record(
            {"defaultAction": matching("SCMP_ACT_[A-Z_]+", "an action")},
            {
                "defaultErrnoRet": UINT32,
                "architectures": array(matching("SCMP_ARCH_[A-Z0-9_]+", "an architecture")),
                "flags": _STRINGS,
                "syscalls": array(_SECCOMP_RULE),
            },
        ),
    },
)
_SHARED: Final = one_of("new", "inherit")
_SHARED_OR_NOT: Final = one_of("new", "inherit", "disable")
_ALLOW: Final = record(
    {},
    {
        "mount": _STRINGS,
        **dict.fromkeys(
            ("setHostname", "rawSockets", "chflags", "quotas", "socketAf", "mlock", "reservedPorts", "suser"), flag
        ),
    },
)
_FREEBSD: Final = record(
    {},
    {
        "devices": array(record({"path": text}, {"mode": number(0, 0o777)})),
        "jail": record(
            {},
            {
                "parent": text,
                "interface": text,
                "host": _SHARED,
                "vnet": _SHARED,
                "vnetInterfaces": _STRINGS,
                "ip4Addr": _STRINGS,
                "ip6Addr": _STRINGS,
                "enforceStatfs": number(0, 2),
                "allow": _ALLOW,
                **dict.fromkeys(("ip4", "ip6", "sysvmsg", "sysvsem", "sysvshm"), _SHARED_OR_NOT),
            },
        ),
    },
)
_SIZE: Final = matching(r"\d+(\.\d+)?[KMGTkmgt]?", "a size such as 512m")
_ANET: Final = ("linkname", "lowerLink", "allowedAddress", "configureAllowedAddress", "defrouter", "macAddress")
_SOLARIS: Final = record(
    {},
    {
        "milestone": matching(r"svc:/\S+", "a service FMRI"),
        "limitpriv": text,
        "maxShmMemory": _SIZE,
        "cappedCPU": record({}, {"ncpus": matching(r"\d*\.?\d+", "a number of CPUs")}),
        "cappedMemory": record({}, {"physical": _SIZE, "swap": _SIZE}),
        "anet": array(record({}, dict.fromkeys((*_ANET, "linkProtection"), text))),
    },
)
_VM: Final = record(
    {"kernel": record({"path": absolute}, {"parameters": _STRINGS, "initrd": absolute})},
    {
        "hypervisor": record({"path": absolute}, {"parameters": _STRINGS}),
        "image": record({"path": absolute, "format": one_of("raw", "qcow2", "vdi", "vmdk", "vhd")}),
        "hwConfig": record({}, {"vcpus": UINT32, "memory": UINT64}),
    },
)
_CONFIG: Final = record(
    {"ociVersion": matching(r"1\.\d+\.\d+(-[0-9a-z.+-]+)?", "a version of the specification")},
    {
        "root": record({"path": text}, {"readonly": flag}),
        "process": _PROCESS,
        "hostname": text,
        "domainname": text,
        "mounts": _MOUNTS,
        "annotations": mapping(text),
        "hooks": record(
            {},
            dict.fromkeys(("createRuntime", "createContainer", "startContainer", "poststart", "poststop"), _HOOKS),
        ),
        "linux": _LINUX,
        "freebsd": _FREEBSD,
        "solaris": _SOLARIS,
        "vm": _VM,
    },
)


def check_config(tree: Mapping[str, Any], *, what: str = "config.json") -> None:
    """Check a config.json that we are about to write; raises InvalidDocument naming the JSON path."""
    shape.check(_CONFIG, tree, what=what)
    kinds = [namespace["type"] for namespace in tree.get("linux", {}).get("namespaces", ())]
    if len(kinds) != len(set(kinds)):
        raise InvalidDocument(f"{what}: $.linux.namespaces lists a type twice")
    if tree.get("linux", {}).get("uidMappings") and "user" not in kinds:
        raise InvalidDocument(f"{what}: $.linux.uidMappings needs a user namespace")
