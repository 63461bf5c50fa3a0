"""A directory for chroot(8), and everything else that needs nothing but files.

Source: chroot(8), `--userspec`, `--groups`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from imagetool.runtime.bundles.parts import (
    SYSTEM_FOLDERS,
    BundleSource,
    require_os,
    require_plain,
    write_rootfs,
    write_text,
)

_CHANGE: Final = 'cd -- "$1" && shift && exec "$@"'


def write_chroot(source: BundleSource, folder: Path) -> None:
    """Write rootfs, and `run`, a script that starts the image's command in it as the image says."""
    require_os(source, "linux", target="this system's chroot")
    rootfs = folder / "rootfs"
    write_rootfs(source, rootfs)
    require_plain(rootfs, SYSTEM_FOLDERS)
    process = source.process(rootfs)
    user = process.user
    groups = ",".join(map(str, (user.gid, *user.additional_gids)))
    environment = shlex.join(f"{name}={value}" for name, value in process.env.items())
    # Without a shell in the image the command can only start in its root.
    change = "" if process.cwd == "/" else f"/bin/sh -c {shlex.quote(_CHANGE)} sh {shlex.quote(process.cwd)} "
    lines = [
        "#!/bin/sh",
        "# Starts the image's command, or the one given. chroot isolates nothing: root in it is root outside.",
        f'[ "$#" -gt 0 ] || set -- {shlex.join(process.args)}',
        'here=$(cd -- "$(dirname -- "$0")" && pwd -P) || exit',
        f"exec env -i {environment} \\",
        f'  chroot --userspec={user.uid}:{user.gid} --groups={groups} "$here/rootfs" \\',
        f'  {change}"$@"',
    ]
    write_text(folder / "run", "\n".join(lines) + "\n", mode=0o755)
