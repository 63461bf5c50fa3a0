"""`run`: a command in a container of an image, over a snapshot that is thrown away afterwards."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagetool.content.staging import storage_errors
from imagetool.errors import NotFound, Unsupported, UsageError
from imagetool.image.image import Image, opener
from imagetool.layer.entry import Item
from imagetool.layer.merge import flatten, merge
from imagetool.layer.unpack import Ownership, unpack
from imagetool.oci.platform import Platform
from imagetool.progress import Note, Observer
from imagetool.runtime.emulation import emulated
from imagetool.runtime.executors import ExitStatus, Output, executor_of
from imagetool.runtime.imageprocess import ImageProcess, Wishes, process_of, volumes_of
from imagetool.runtime.namespaces import enter_user_namespace
from imagetool.runtime.network import Asked, Fallback, Network, network_of
from imagetool.runtime.rootfs import Overlay
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.security import CONTAINER_CAPABILITIES, Security
from imagetool.runtime.session import Session
from imagetool.runtime.spec import Mount, RuntimeSpec, build_step_spec
from imagetool.safefs.openat2 import open_beneath
from imagetool.snapshot.overlay import OverlaySnapshotter, Workspace
from imagetool.transports.base import Surroundings
from imagetool.values import dataclass, field, replace
from imagetool.verbs.images import found_image
from imagetool.verbs.volumes import Volume, shown

if TYPE_CHECKING:
    from imagetool.build.root import Root

_HOSTNAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run; see `imagetool run --help`. Raises UsageError for what cannot be a host name.

    tmpfs: as of `volumes.tmpfs_mount`.
    session: who sits at it; None for nobody. terminal: whether the container has one, and needs a session.
    """

    wishes: Wishes = field(default_factory=Wishes)
    platform: Platform | None = None
    volumes: Sequence[Volume] = ()
    tmpfs: Sequence[str] = ()
    readonly: bool = False
    terminal: bool = False
    hostname: str = ""
    network: Asked = "default"
    network_fallback: Fallback = "host"
    isolation: str = "auto"
    runtime: str | None = None
    sandbox: Sandbox = field(default_factory=lambda: Sandbox(Security(CONTAINER_CAPABILITIES)))

    def __post_init__(self) -> None:
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise UsageError(f"--hostname {self.hostname[:80]!r}: letters, digits, dots and dashes, 64 at most")


def run(
    reference: str,
    around: Surroundings,
    options: RunOptions,
    *,
    snapshots: Path,
    output: Output,
    session: Session | None,
    observer: Observer,
) -> ExitStatus:
    """Run the image's command, or another, to its end; return how it ended.

    An image that is not there is pulled. Changes are lost with the container, but for those in volumes.
    An ordinary user becomes root of a user namespace first, for which this process must have one
    thread. Raises BuildError when the image stands in the way, HostError when this machine does.
    """
    for volume in options.volumes:
        if not volume.source.exists():
            raise NotFound(f"--volume: {volume.source} is not there")
    namespaced = _become_root(observer)
    with ExitStack() as stack:
        image, _ = stack.enter_context(found_image(reference, around, platform=options.platform, observer=observer))
        if image.config.platform.os not in ("", "linux"):
            raise Unsupported(f"{reference} is an image for {image.config.platform.os}, which cannot run here")
        if options.platform is not None and not options.platform.runs(image.config.platform):
            raise NotFound(f"{reference} is an image for {image.config.platform}, and not for {options.platform}")
        stack.enter_context(around.store.session())
        warn = partial(_warn, observer)
        sandbox = replace(options.sandbox, userns="host") if namespaced else options.sandbox
        executor = stack.enter_context(executor_of(options.isolation, options.runtime, warn=warn))
        register = partial(executor.emulate, sandbox=sandbox)
        stack.enter_context(emulated(image.config.platform, _host(), register=register))
        network, warning = network_of(options.network, executor, sandbox, fallback=options.network_fallback)
        if warning:
            warn(warning)
        snapshotter = OverlaySnapshotter(
            snapshots,
            user_xattr=namespaced,
            ownership=Ownership(lenient=namespaced),
            warn=warn,
        )
        workspace = stack.enter_context(snapshotter.prepare(image.layers, lambda layer: opener(image.content, layer)))
        spec = _spec(image, workspace, replace(options, sandbox=sandbox), network, lenient=namespaced)
        root = Overlay(workspace.lowers, workspace.upper, workspace.work, userxattr=namespaced)
        return executor.run(spec, root, output=output, session=session)


def _spec(image: Image, workspace: Workspace, options: RunOptions, network: Network, *, lenient: bool) -> RuntimeSpec:
    """Describe the container; `lenient` as of `Ownership`. What it needs besides is put beside the workspace."""
    files = cache(partial(_files, image))
    process = _process(image, files, options)
    hostname = options.hostname or secrets.token_hex(6)
    mounts = [
        *_names(options, network, workspace, hostname),
        *_working_directory(files, process, workspace),
        *(_image_volumes(image, workspace, lenient=lenient) if options.readonly else ()),
        *shown(options.tmpfs, options.volumes),
    ]
    return build_step_spec(
        args=process.args,
        env={"HOSTNAME": hostname, **({"TERM": "xterm"} if options.terminal else {}), **process.env},
        cwd=process.cwd,
        user=process.user,
        hostname=hostname,
        mounts=mounts,
        network=network,
        sandbox=options.sandbox,
        readonly=options.readonly,
        terminal=options.terminal,
    )


def _host() -> Platform:
    return Platform.parse(f"linux/{os.uname().machine}")


def _warn(observer: Observer, text: str) -> None:
    observer(Note(text, "warning"))


def _become_root(observer: Observer) -> bool:
    """Become root of a user namespace unless we are root; say whether that is not the host's root."""
    kind = enter_user_namespace()
    if kind == "single":
        observer(Note("running without root and without subordinate ids: all files belong to root", "warning"))
    return kind != "root" or Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def _files(image: Image) -> Root:
    """Return what the image's root filesystem has; few containers need to know before they are made."""
    from imagetool.build.files import Trees
    from imagetool.build.root import Root

    return Root(Trees(image.content), image.layers)


def _process(image: Image, files: Callable[[], Root], options: RunOptions) -> ImageProcess:
    """Return the process; for root no user has to be looked up, and no layer read for it."""
    wanted = image.config.run.user if options.wishes.user is None else options.wishes.user
    databases = [b"", b""]
    if wanted not in ("", "0", "root", "0:0", "root:root"):
        databases = [files().files.read(name, "PASSWD_BYTES") or b"" for name in (b"etc/passwd", b"etc/group")]
    elif wanted:
        options = replace(options, wishes=replace(options.wishes, user=""))
    return process_of(image.config, passwd=databases[0], group=databases[1], wishes=options.wishes)


def _names(options: RunOptions, network: Network, workspace: Workspace, hostname: str) -> Iterator[Mount]:
    """Yield the mounts of the files that tell a container its name servers and names."""
    names = options.sandbox.names
    try:
        host = Path("/etc/resolv.conf").read_text(errors="replace")
    except OSError:  # a host without name servers: the container has none either
        host = ""
    texts = {
        "resolv.conf": names.resolv_conf_text(host, own_network=network.own, server=network.server),
        "hosts": names.hosts_text(hostname),
        "hostname": f"{hostname}\n",
    }
    for name, text in texts.items():
        path = workspace.work.parent / name
        with storage_errors(f"cannot write {path}"):
            path.write_text(text)
            path.chmod(0o644)
        yield Mount(f"/etc/{name}", "bind", str(path), ("bind", "rw"))


def _working_directory(files: Callable[[], Root], process: ImageProcess, workspace: Workspace) -> Iterator[Mount]:
    """Yield a mount that makes a working directory which the image does not have.

    Only when no layer has it is the image as a whole looked at, which costs reading all headers.
    """
    path = os.fsencode(process.cwd.strip("/"))
    if not path or any(_has_folder(lower, path) for lower in workspace.lowers):
        return
    if files().kind(path, follow=True)[1] is None:
        folder = workspace.work.parent / "cwd"
        with storage_errors(f"cannot make {folder}"):
            folder.mkdir()
            folder.chmod(0o755)
        yield Mount(process.cwd, "bind", str(folder), ("bind", "rw"))


def _has_folder(lower: Path, path: bytes) -> bool:
    root = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_beneath(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:  # not there, or behind a link: the slow way will tell
        return False
    finally:
        os.close(root)
    return True


def _image_volumes(image: Image, workspace: Workspace, *, lenient: bool) -> Iterator[Mount]:
    """Yield a writable directory for each volume of the image, with what the image has there."""
    tree = None
    for number, path in enumerate(volumes_of(image.config)):
        tree = merge(image.openers()) if tree is None else tree
        place, _ = tree.lookup(path.encode())
        folder = workspace.work.parent / f"volume-{number}"
        with storage_errors(f"cannot make {folder}"):
            folder.mkdir()
            folder.chmod(0o755)
        unpack(
            _below(flatten(image.openers()), place),
            folder,
            where=f"volume {path}",
            ownership=Ownership(lenient=lenient),
            warn=lambda _: None,
        )
        yield Mount(path, "bind", str(folder), ("bind", "rw"))


def _below(items: Iterator[Item], place: bytes) -> Iterator[Item]:
    """Yield the entries of one directory as those of a root of its own; a link that leads out of it is left out."""
    prefix = place + b"/"
    for entry, content in items:
        if entry.name == place and entry.kind == "dir":
            yield entry._replace(name=b"."), ()
        elif entry.name.startswith(prefix):
            if entry.kind == "link" and not entry.linkname.startswith(prefix):
                continue
            linkname = entry.linkname.removeprefix(prefix) if entry.kind == "link" else entry.linkname
            yield entry._replace(name=entry.name.removeprefix(prefix), linkname=linkname), content
