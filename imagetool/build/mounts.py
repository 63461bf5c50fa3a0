"""RUN --mount: files that a step sees and that never become part of the layer.

Source: Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetool.build.copying import CopyRequest, copy_items
from imagetool.build.copystep import content_digest
from imagetool.build.files import Files, FolderSource
from imagetool.build.graph import CACHE_MOUNT_ARG
from imagetool.build.inputs import Inputs
from imagetool.build.root import Root
from imagetool.content.staging import storage_errors
from imagetool.dockerfile import Run, RunMount
from imagetool.errors import BuildError
from imagetool.oci.digest import Digest

if TYPE_CHECKING:  # imported when a step is run; a cached one needs none of it
    from imagetool.runtime.spec import Mount
    from imagetool.snapshot.overlay import Workspace


def mount_inputs(inputs: Inputs, instruction: Run, mount: RunMount) -> dict[str, Any]:
    """Return what of a mount the step's result depends on: the files of a bind, the name of a cache."""
    known: dict[str, Any] = {"text": mount.text}
    if mount.type == "bind":
        with _files(inputs, instruction, mount) as files:
            known["content"] = str(content_digest(_request(mount), files))
    return known


def step_mounts(inputs: Inputs, instruction: Run, workspace: Workspace, stack: ExitStack) -> Iterator[Mount]:
    """Yield the container mounts of a RUN, but those of secrets; what they need lives until `stack` is closed."""
    from imagetool.runtime.spec import Mount

    for number, mount in enumerate(instruction.mounts):
        if mount.type in ("secret", "ssh"):
            continue  # see `secretmounts`
        target = inputs.state.path(mount.target or "").rstrip("/")
        if not target:
            raise BuildError(f"RUN --mount={mount.text}: the target cannot be /", about=mount.text)
        if mount.type == "tmpfs":
            size = (f"size={mount.size}",) if mount.size else ()
            yield Mount(target, "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=1777", *size))
        elif mount.type == "cache":
            options = ("bind", "ro") if mount.readonly else ("bind", "rw")
            yield Mount(
                target, "bind", str(_cache(inputs, instruction, mount, target, workspace, number, stack)), options
            )
        else:
            folder = workspace.work.parent / f"mount-{number}"
            options = ("bind", "ro") if mount.readonly else ("bind", "rw")
            yield Mount(target, "bind", str(_bound(inputs, instruction, mount, folder)), options)


def _request(mount: RunMount) -> CopyRequest:
    return CopyRequest((mount.source or "/",), "/source" if mount.source else "/source/")


@contextmanager
def _files(inputs: Inputs, instruction: Run, mount: RunMount) -> Iterator[Files]:
    """Open where a bind mount's files come from: the build context, a stage or an image."""
    if mount.from_ is None:
        with inputs.context_files() as files:
            yield files
        return
    source = inputs.source(mount.from_, instruction)
    if isinstance(source, FolderSource):
        with inputs.over(source).context_files() as files:
            yield files
        return
    yield inputs.trees.files(source)


def _bound(inputs: Inputs, instruction: Run, mount: RunMount, folder: Path) -> Path:
    """Copy a bind mount's files aside: what the step writes there is discarded, and no link leads out of them."""
    from imagetool.layer.unpack import Ownership, unpack

    folder.mkdir()
    with _files(inputs, instruction, mount) as files:
        unpack(
            copy_items(_request(mount), files, Root.empty()),
            folder,
            where=f"RUN --mount={mount.text}",
            ownership=Ownership(lenient=inputs.worker.user_namespace),
            warn=lambda _: None,
        )
    return folder / "source"


def _new_cache(inputs: Inputs, instruction: Run, mount: RunMount, folder: Path, aside: Path) -> None:
    """Make a cache directory, with the files that it starts from; raises FileExistsError when there is one."""
    if mount.from_ is None and mount.source is None:
        folder.mkdir(parents=True)
        return
    if folder.is_dir():
        raise FileExistsError
    filled = _bound(inputs, instruction, mount, aside)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(filled, folder)
    except OSError as error:
        if folder.is_dir():  # another build was first
            raise FileExistsError from error
        raise


def _cache(
    inputs: Inputs,
    instruction: Run,
    mount: RunMount,
    target: str,
    workspace: Workspace,
    number: int,
    stack: ExitStack,
) -> Path:
    """Return a cache directory, named by a digest so that no id leads anywhere else; locked when asked for."""
    namespace = inputs.build_args.get(CACHE_MOUNT_ARG, "")
    id = f"{namespace}/{mount.id or target}" if namespace else mount.id or target
    name = Digest.of(repr((id, mount.from_, mount.source)).encode()).hex
    folder = inputs.worker.caches / name
    with storage_errors(f"cannot make the cache mount {folder}"):
        try:
            _new_cache(inputs, instruction, mount, folder, workspace.work.parent / f"cache-source-{number}")
        except FileExistsError:
            pass
        else:
            os.chmod(folder, mount.mode if mount.mode is not None else 0o755)
            folder.with_name(f"{name}.id").write_text(id)
            if (
                mount.uid or mount.gid
            ) and not inputs.worker.single_id:  # with one id all is root's, and everybody is root
                os.chown(folder, mount.uid or 0, mount.gid or 0)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        if mount.sharing == "locked":
            fcntl.flock(fd, fcntl.LOCK_EX)
        elif mount.sharing == "private":
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return folder
            folder = workspace.work.parent / f"cache-{number}"
            folder.mkdir()
    return folder
