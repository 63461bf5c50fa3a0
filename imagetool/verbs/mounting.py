"""`mount`, `umount` and `unshare`: the root filesystem of a working container where other programs can change it.

What is changed there becomes a layer at the next step, or at umount; see `verbs.mountpoint`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagetool.errors import HostError
from imagetool.runtime.capabilities import holds
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.mountpoint import attach, mountpoint

if TYPE_CHECKING:
    from imagetool.verbs.workplace import Workplace


def mount(names: Sequence[str], place: Workplace) -> Iterator[tuple[str, Path]]:
    """Mount containers in this mount namespace; yield each one's name and path. One that is mounted stays so.

    Raises HostError for an ordinary user, who may mount only where `imagetool unshare` leads to.
    """
    from imagetool.verbs.bench import at_bench

    known = place.containers
    for name in [known.named(name) for name in names]:
        if os.geteuid() != 0 or not holds("CAP_SYS_ADMIN"):
            raise HostError("an ordinary user can mount only in a namespace: run `imagetool unshare`, and mount there")
        path = mountpoint(known.folder(name))
        if path is None:
            with at_bench(name, place, BuildOptions(), root=True) as bench:
                path = attach(bench.held, bench.worker)
        yield name, path


def mounted(place: Workplace) -> Iterator[tuple[str, Path]]:
    """Yield the containers that are mounted in this mount namespace, and where."""
    for name in place.containers.names():
        if path := mountpoint(place.containers.folder(name)):
            yield name, path


def umount(names: Sequence[str], place: Workplace) -> Iterator[str]:
    """Unmount containers and make layers of what was changed there; yield each one's identity."""
    from imagetool.verbs.bench import at_bench

    known = place.containers
    for name in [known.named(name) for name in names]:
        with at_bench(name, place, BuildOptions(), remounts=False) as bench:
            identity = bench.held.record.identity
        yield identity


def unshare(command: Sequence[str], place: Workplace) -> None:
    """Become what `command` runs: in a mount namespace of its own, as root of a user namespace unless root already.

    It sees the same store. Returns only by raising: HostError when this machine allows no namespace or
    has no such program.
    """
    from imagetool.runtime import syscalls
    from imagetool.verbs.buildworker import become_root

    become_root(place.observer, needed=True)
    try:
        syscalls.unshare(syscalls.CLONE["mount"])
        syscalls.make_mounts_private()
    except OSError as error:
        raise HostError(f"no mount namespace can be made here: {error.strerror}") from None
    environment = {**os.environ, "IMAGETOOL_ROOT": str(place.root)}
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        raise HostError(f"cannot run {command[0][:80]!r}: {error.strerror}") from None
