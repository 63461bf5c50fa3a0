"""A configuration and root filesystem for LXC.

Source: lxc.container.conf(5) of LXC 5.0; lxc-execute(1).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from imagetool.errors import Unsupported
from imagetool.runtime.bundles import shape
from imagetool.runtime.bundles.keyed import Pairs, checked
from imagetool.runtime.bundles.parts import (
    SYSTEM_FOLDERS,
    BundleSource,
    require_os,
    require_plain,
    write_rootfs,
    write_text,
    write_volumes,
)
from imagetool.runtime.security import CONTAINER_CAPABILITIES

_ID: Final = shape.matching("[0-9]{1,10}", "a number")
_KNOWN: Final[dict[str, shape.Shape]] = {
    "lxc.uts.name": shape.matching("[a-z][a-z0-9-]{0,62}", "a host name"),
    "lxc.rootfs.path": shape.matching("dir:/.*", "dir: and an absolute path"),
    "lxc.net.0.type": shape.one_of("empty", "none", "veth", "macvlan", "ipvlan", "phys"),
    "lxc.mount.auto": shape.matching("[a-z:-]+( [a-z:-]+)*", "a list of proc:…, sys:…, cgroup:…"),
    "lxc.mount.entry": shape.text,
    "lxc.autodev": shape.one_of("0", "1"),
    "lxc.pty.max": _ID,
    "lxc.tty.max": _ID,
    "lxc.apparmor.profile": shape.text,
    "lxc.cap.keep": shape.matching("[a-z_]+( [a-z_]+)*", "names of capabilities"),
    "lxc.environment": shape.matching("[^=]+=.*", "NAME=VALUE"),
    "lxc.execute.cmd": shape.text,
    "lxc.init.cwd": shape.absolute,
    "lxc.init.uid": _ID,
    "lxc.init.gid": _ID,
    "lxc.init.groups": shape.matching("[0-9]+(,[0-9]+)*", "a list of numbers"),
    "lxc.signal.halt": shape.matching("SIG[A-Z0-9+]+|[0-9]+", "a signal"),
}
#: Settings whose value LXC takes out of quotes, if it stands in them: so it always does.
_QUOTED: Final = frozenset(("lxc.environment", "lxc.execute.cmd", "lxc.init.cwd", "lxc.rootfs.path"))


def write_lxc(source: BundleSource, folder: Path) -> None:
    """Write `config` and rootfs: DEST's parent is the -P of lxc-execute or lxc-start, its last part the -n."""
    require_os(source, "linux", target="LXC")
    rootfs = folder / "rootfs"
    write_rootfs(source, rootfs)
    volumes = write_volumes(source, rootfs, folder / "volumes")
    require_plain(rootfs, SYSTEM_FOLDERS)
    process = source.process(rootfs)
    user = process.user
    pairs = [
        ("lxc.uts.name", source.label),
        ("lxc.rootfs.path", f"dir:{source.place}/rootfs"),
        ("lxc.net.0.type", "empty"),
        ("lxc.mount.auto", "proc:mixed sys:ro"),
        ("lxc.autodev", "1"),
        ("lxc.pty.max", "1024"),
        ("lxc.tty.max", "0"),
        ("lxc.apparmor.profile", "unconfined"),
        ("lxc.cap.keep", " ".join(name.removeprefix("CAP_").lower() for name in CONTAINER_CAPABILITIES)),
        *(("lxc.environment", f"{name}={value}") for name, value in process.env.items()),
        ("lxc.init.cwd", process.cwd),
        ("lxc.init.uid", str(user.uid)),
        ("lxc.init.gid", str(user.gid)),
        ("lxc.execute.cmd", command_line(process.args)),
    ]
    if user.additional_gids:
        pairs.append(("lxc.init.groups", ",".join(map(str, user.additional_gids))))
    if source.image.config.run.stop_signal:
        pairs.append(("lxc.signal.halt", source.image.config.run.stop_signal))
    for name, place in volumes:
        entry = (f"{source.place}/volumes/{name}", place.lstrip("/"))
        pairs.append(("lxc.mount.entry", f"{_fstab(entry[0])} {_fstab(entry[1])} none bind,create=dir 0 0"))
    write_text(folder / "config", config(pairs))


def config(pairs: Pairs) -> str:
    """Return a configuration; raises InvalidDocument for a key that LXC does not know."""
    found = checked(pairs, _KNOWN, what="LXC config")
    return "".join(f'{key} = "{value}"\n' if key in _QUOTED else f"{key} = {value}\n" for key, value in found)


def command_line(args: tuple[str, ...]) -> str:
    """Return a command as lxc.execute.cmd takes it: words, or words in quotes in which nothing can be escaped."""
    words = []
    for arg in args:
        if arg and not re.search(r"[\s'\"]", arg):
            words.append(arg)
        elif "'" not in arg:
            words.append(f"'{arg}'")
        elif '"' not in arg:
            words.append(f'"{arg}"')
        else:
            raise Unsupported(f"lxc.execute.cmd cannot hold {arg[:60]!r}, which has both kinds of quotes")
    return " ".join(words)


def _fstab(path: str) -> str:
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in path)
