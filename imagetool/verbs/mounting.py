"""`mount` and `umount`: the root filesystem of a working container where other programs can change it.

It is an overlay over the container's layers, with a directory of changes in the container's folder.
The next step, or umount, makes a layer of what is in there; after a crash or the machine's next start
it is there still, as far as it had reached the disk.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagetool.content.staging import storage_errors
from imagetool.errors import HostError, UsageError
from imagetool.image.image import opener
from imagetool.image.write import write_layer
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
from imagetool.progress import Note
from imagetool.runtime.capabilities import holds
from imagetool.safefs.root import remove_tree
from imagetool.verbs.buildoptions import BuildOptions

if TYPE_CHECKING:
    from imagetool.verbs.bench import Bench
    from imagetool.verbs.workplace import Workplace

_ROOT: Final = "root"
_LINE: Final = "changed by hand below its mount"


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
                path = attach(bench)
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


def mountpoint(folder: Path) -> Path | None:
    """Return where the container of a folder is mounted, as this process sees it; None where it is not."""
    path = folder / _ROOT
    return path if path.is_mount() else None


def attach(bench: Bench) -> Path:
    """Mount a container over a new, empty directory of changes; return where."""
    from imagetool.runtime.mounts import attach_root

    held, worker = bench.held, bench.worker
    lowers = worker.snapshots().lowers(held.record.state.layers, lambda layer: opener(worker.store, layer))
    edit = held.folder / f"edit-{secrets.token_hex(8)}"
    target = held.folder / _ROOT
    with storage_errors(f"cannot make {edit}"):
        for folder in (edit, edit / "fs", edit / "work", target):
            folder.mkdir(exist_ok=True)
        os.chmod(edit / "fs", 0o755)  # whatever the umask: it is the container's /
    held.save(edit=edit.name)
    root = {
        "lowers": list(map(str, lowers)),
        "upper": str(edit / "fs"),
        "work": str(edit / "work"),
        "userxattr": worker.user_namespace,
    }
    try:
        for fd in attach_root(root, str(target)):
            os.close(fd)
    except OSError as error:
        raise HostError(f"the container {held.name} cannot be mounted: {error.filename}: {error.strerror}") from None
    return target


def detach(folder: Path) -> bool:
    """Unmount the container of a folder, whoever uses it; say whether it was mounted."""
    from imagetool.runtime import syscalls

    path = mountpoint(folder)
    if path is None:
        return False
    try:
        syscalls.detach_mount(os.fsencode(path))
    except OSError as error:
        raise HostError(f"cannot unmount {path}: {error.strerror}") from None
    return True


def settle(bench: Bench) -> bool:
    """Unmount a container and make a layer of what was changed below; say whether it was mounted."""
    held, worker = bench.held, bench.worker
    edit = held.record.edit
    was = detach(held.folder)
    if edit and not was and (process := _user_elsewhere(held.folder / _ROOT)):
        raise UsageError(
            f"the container {held.name} is mounted in another namespace, that of process {process}: unmount it there"
        )
    if edit and _is_changed(held.folder / edit / "fs"):
        with bench.place.store.session():
            items = scan_upper(
                held.folder / edit / "fs",
                clamp=worker.times.clamp,
                warn=lambda text: bench.place.observer(Note(text, "warning")),
            )
            layer = write_layer(write(items), worker.store, worker.codec)
            held.save(state=held.record.state.with_history(worker.times.created, _LINE, layer=layer), edit="")
    elif edit:
        held.save(edit="")
    _forget_changes(held.folder)
    return was


def _user_elsewhere(path: Path) -> int:
    """Return a process that sees something mounted at a path, in whatever namespace; 0 for none that we may look at."""
    wanted = f" {os.fspath(path).replace(' ', chr(92) + '040')} "
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is not ours
            if wanted in Path(f"/proc/{name}/mountinfo").read_text(errors="replace"):
                return int(name)
    return 0


def _is_changed(upper: Path) -> bool:
    """Say whether anything is in a directory of changes, or it is another directory itself than it was made."""
    with suppress(FileNotFoundError):  # killed before it was made
        status = os.stat(upper)
        return bool(os.listdir(upper)) or (status.st_mode & 0o7777, status.st_uid, status.st_gid) != (0o755, 0, 0)
    return False


def _forget_changes(folder: Path) -> None:
    """Remove directories of changes, which are layers by now."""
    names = [name for name in os.listdir(folder) if name.startswith("edit-")]
    if not names:
        return
    with storage_errors(f"cannot remove what is in {folder}"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)


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
