"""A directory and its settings file for systemd-nspawn.

Source: systemd.nspawn(5) of systemd 252; systemd.syntax(7) for quotes.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

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

_YES_NO: Final = shape.one_of("yes", "no")
_KNOWN: Final[dict[str, dict[str, shape.Shape]]] = {
    "Exec": {
        "Boot": _YES_NO,
        "ProcessTwo": _YES_NO,
        "NoNewPrivileges": _YES_NO,
        "Parameters": shape.text,
        "Environment": shape.text,
        "WorkingDirectory": shape.absolute,
        "User": shape.text,
        "Hostname": shape.matching("[a-z][a-z0-9-]{0,62}", "a host name"),
        "KillSignal": shape.matching("SIG[A-Z0-9+]+|[0-9]+", "a signal"),
        "ResolvConf": shape.one_of("auto", "off", "copy-host", "replace-host", "bind-host"),
        "Timezone": shape.one_of("auto", "off", "copy", "bind", "symlink"),
    },
    "Files": {"ReadOnly": _YES_NO, "Bind": shape.text, "BindReadOnly": shape.text, "PrivateUsersOwnership": shape.text},
    "Network": {"Private": _YES_NO, "VirtualEthernet": _YES_NO},
}


def write_nspawn(source: BundleSource, folder: Path) -> None:
    """Write a directory named as the container, and beside it the settings, where systemd-nspawn looks for them.

    Settings that give rights are taken from there with --settings=trusted only: network, binds, user.
    """
    require_os(source, "linux", target="systemd-nspawn")
    rootfs = folder / source.label
    write_rootfs(source, rootfs)
    volumes = write_volumes(source, rootfs, folder / "volumes")
    require_plain(rootfs, (*SYSTEM_FOLDERS, "/run", "/tmp"))
    process = source.process(rootfs)
    run: list[tuple[str, str]] = [
        ("Boot", "no"),
        ("ProcessTwo", "yes"),
        ("Hostname", source.label),
        ("ResolvConf", "off"),
        ("Timezone", "off"),
        ("WorkingDirectory", process.cwd),
        ("Parameters", shlex.join(process.args)),
        *(("Environment", shlex.quote(f"{name}={value}")) for name, value in process.env.items()),
    ]
    if process.user.uid:
        run.append(("User", (source.wishes.user or source.image.config.run.user).partition(":")[0]))
        source.warn("systemd-nspawn looks the user up with getent in the image; use --for nspawn-oci when it has none")
    if signal := source.image.config.run.stop_signal:
        run.append(("KillSignal", signal))
    binds = [
        (
            "Bind",
            ":".join(
                part.replace("\\", "\\\\").replace(":", "\\:") for part in (f"{source.place}/volumes/{name}", place)
            ),
        )
        for name, place in volumes
    ]
    sections: dict[str, Pairs] = {"Exec": run, "Files": binds, "Network": [("Private", "yes")]}
    write_text(folder / f"{source.label}.nspawn", settings(sections, what=f"{source.label}.nspawn"))


def settings(sections: dict[str, Pairs], *, what: str) -> str:
    """Return a settings file; raises InvalidDocument for a section or key that systemd-nspawn does not know."""
    lines = []
    for section, pairs in sections.items():
        found = checked(pairs, _KNOWN.get(section, {}), what=f"{what} [{section}]")
        if found:
            lines += [f"[{section}]", *(f"{key}={value}" for key, value in found), ""]
    return "\n".join(lines)
