"""Where a working container is mounted by hand, and what is changed there: an overlay over the container's layers.

The directory of changes is in the container's folder. After a crash or the machine's next start it is there
still, as far as it had reached the disk. Nothing here holds the container: who calls does.
"""

from __future__ import annotations

import os
import secrets
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
from imagetool.safefs.root import remove_tree

if TYPE_CHECKING:
    from imagetool.build.containers import Held
    from imagetool.build.worker import Worker
    from imagetool.verbs.workplace import Workplace

_ROOT: Final = "root"
_LINE: Final = "changed by hand below its mount"


def mountpoint(folder: Path) -> Path | None:
    """Return where the container of a folder is mounted, as this process sees it; None where it is not."""
    path = folder / _ROOT
    return path if path.is_mount() else None


def attach(held: Held, worker: Worker) -> Path:
    """Mount a container over a new, empty directory of changes; return where."""
    from imagetool.runtime.mounts import attach_root

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


def settle(held: Held, worker: Worker, place: Workplace) -> bool:
    """Unmount a container and make a layer of what was changed below; say whether it was mounted."""
    edit = held.record.edit
    was = detach(held.folder)
    if edit and not was and (process := _user_elsewhere(held.folder / _ROOT)):
        raise UsageError(
            f"the container {held.name} is mounted in another namespace, that of process {process}: unmount it there"
        )
    if edit and _is_changed(held.folder / edit / "fs"):
        with place.store.session():
            items = scan_upper(
                held.folder / edit / "fs",
                clamp=worker.times.clamp,
                warn=lambda text: place.observer(Note(text, "warning")),
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
