"""What a build works with: made only when a step needs it, and ended with the build."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from imagetool.config.environment import cdi_folders, source_date_epoch, source_date_epoch_text
from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.errors import NetworkError, NotFound
from imagetool.image.image import this_platform
from imagetool.oci.platform import Platform
from imagetool.progress import Note, Observer
from imagetool.transports import find
from imagetool.transports.local import is_identity, resolve
from imagetool.values import replace
from imagetool.verbs.buildoptions import BuildOptions
from imagetool.verbs.workplace import Workplace, pull_into

if TYPE_CHECKING:
    from imagetool.build.contexts import Opened
    from imagetool.build.solver import BuildRequest
    from imagetool.build.worker import Download, Witness, Worker
    from imagetool.image.image import Image
    from imagetool.runtime.executors import Executor
    from imagetool.runtime.network import Network
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.snapshot.overlay import OverlaySnapshotter

#: What SOURCE_DATE_EPOCH may be instead of seconds.
_OF_CONTEXT: Final = "context"


class OnDemand:
    """What a build makes once, for all its threads, when the first step needs it; all of it ends with the context.

    namespaced: whether the build is root of a user namespace only.
    """

    def __init__(self, options: BuildOptions, place: Workplace, *, namespaced: bool) -> None:
        self._options = options
        self._place = place
        self.namespaced = namespaced
        self._first = threading.Lock()
        self._ending = ExitStack()
        self._snapshotter: OverlaySnapshotter | None = None
        self._executor: Executor | None = None
        self._networks: dict[str, Network] = {}
        self._emulated: set[str] = set()

    def __enter__(self) -> Self:
        self._ending.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._ending.__exit__(*problem)

    def snapshots(self) -> OverlaySnapshotter:
        """Return what makes root filesystems."""
        from imagetool.layer.unpack import Ownership
        from imagetool.snapshot.overlay import OverlaySnapshotter

        with self._first:
            if self._snapshotter is None:
                self._snapshotter = OverlaySnapshotter(
                    self._place.root / "snapshots",
                    user_xattr=self.namespaced,
                    ownership=Ownership(lenient=self.namespaced),
                    warn=self._warn,
                )
            return self._snapshotter

    def executor(self) -> Executor:
        """Return what runs commands."""
        from imagetool.runtime.executors import executor_of

        with self._first:
            if self._executor is None:
                made = executor_of(self._options.isolation, self._options.runtime, warn=self._warn)
                self._executor = self._ending.enter_context(made)
            return self._executor

    @property
    def sandbox(self) -> Sandbox:
        """What holds for every step."""
        from imagetool.runtime.sandbox import Sandbox

        return _sandbox(self._options, namespaced=self.namespaced) or Sandbox(userns="default")

    def network(self, asked: str) -> Network:
        """Return what a network that a step asks for is here; warn once where that is not what a user may think."""
        from imagetool.runtime.network import network_of

        executor, sandbox = self.executor(), self.sandbox
        with self._first:
            if asked not in self._networks:
                chosen, warning = network_of(
                    asked,  # type: ignore[arg-type]
                    executor,
                    sandbox,
                    fallback=self._options.network_fallback,
                )
                if warning:
                    self._warn(warning)
                self._networks[asked] = chosen
            return self._networks[asked]

    def emulate(self, platform: Platform) -> None:
        """Have programs of another architecture run until the build ends."""
        host = this_platform()
        if platform.architecture in ("", host.architecture):
            return
        from imagetool.runtime.emulation import emulated

        executor, sandbox = self.executor(), self.sandbox
        with self._first:
            if str(platform) not in self._emulated:
                register = partial(executor.emulate, sandbox=sandbox)
                self._ending.enter_context(emulated(platform, host, register=register))
                self._emulated.add(str(platform))

    def stop(self) -> None:
        """End what is running."""
        with self._first:
            if self._executor is not None:
                self._executor.stop()

    def _warn(self, text: str) -> None:
        self._place.observer(Note(text, "warning"))


def worker_of(
    opened: Opened,
    options: BuildOptions,
    place: Workplace,
    store: LayoutStore,
    witness: Witness,
    made: OnDemand,
    *,
    declared: str = "",
) -> Worker:
    """Return the worker of one build, over a store whose session is the caller's; `made` is entered already.

    declared: what the Dockerfile says that SOURCE_DATE_EPOCH is.
    """
    from imagetool.build.filestates import FileStates
    from imagetool.build.worker import Times, Worker
    from imagetool.content.folders import of_these_ids
    from imagetool.streams.codecs import Codec

    epoch, told = _epoch(opened, options, place, witness, declared)
    return Worker(
        store=store,
        snapshots=made.snapshots,
        executor=made.executor,
        emulate=made.emulate,
        network=made.network,
        cache=place.cache,
        known=None if opened.foreign else lambda context: FileStates(place.root / "cache", context),
        base=lambda name, platform: _base(name, platform, options.pull, place, store, witness),
        download=download,
        scratch=place.root / "scratch",
        caches=of_these_ids(place.root / "cache-mounts"),
        codec=options.codec or Codec(),
        times=Times(epoch, options.preserve_times, options.rewrite_times, told=told),
        user_namespace=made.namespaced,
        single_id=made.namespaced and _has_single_id(),
        sandbox=_sandbox(options, namespaced=made.namespaced),
        witness=witness,
        stop=made.stop,
        device_folders=cdi_folders(),
    )


def _epoch(
    opened: Opened, options: BuildOptions, place: Workplace, witness: Witness, declared: str
) -> tuple[int, bool]:
    """Return the moment of the build, and whether it was told; else it is that of the context's commit, or a fixed one.

    An option tells it, else a build argument, the environment, the Dockerfile. Any of the last three may say
    `context`, which means the commit.
    """
    from imagetool.build.commit import commit_time
    from imagetool.build.graph import EPOCH_ARG
    from imagetool.build.worker import DEFAULT_EPOCH

    def untimed(text: str) -> None:
        witness.opaque()  # it hangs on more than the commit
        place.observer(Note(text, "warning"))

    text = options.build_args.get(EPOCH_ARG, source_date_epoch_text() or declared)
    if text != _OF_CONTEXT:
        told = source_date_epoch({EPOCH_ARG: text}) if options.epoch is None else options.epoch
        if told is not None:
            return told, True
    epoch = opened.time if opened.foreign else commit_time(opened.folder, warn=untimed)
    return DEFAULT_EPOCH if epoch is None else epoch, text == _OF_CONTEXT and epoch is not None


def _sandbox(options: BuildOptions, *, namespaced: bool) -> Sandbox | None:
    """Return the settings of containers; in a user namespace already, none is made for each."""
    if options.sandbox is None or not namespaced:
        return options.sandbox
    return replace(options.sandbox, userns="host")


def enter_namespace(request: BuildRequest, observer: Observer) -> str:
    """Become root of a user namespace when there are RUN steps and we are not root; say so."""
    from imagetool.dockerfile import Run

    steps = (step for stage in request.dockerfile.stages for step in stage.instructions)
    return become_root(observer, needed=any(isinstance(step, Run) for step in steps))


def become_root(observer: Observer, *, needed: bool) -> str:
    """Become root of a user namespace when that is needed and we are not root; say so.

    Returns "root" for the host's root and for who need not be root, else as `enter_user_namespace`.
    """
    from imagetool.runtime.capabilities import holds

    if os.geteuid() == 0 and holds("CAP_SYS_ADMIN"):
        return "root" if _is_initial_namespace() else "range"
    if not needed:
        return "root"
    from imagetool.runtime.namespaces import enter_user_namespace

    ordinary = os.geteuid() != 0
    kind = enter_user_namespace()
    if kind == "range" and ordinary:
        observer(Note("building without root: other users of the image are subordinate ids of this one"))
    if kind == "single":
        observer(Note("building without root and without subordinate ids: all files will belong to root", "warning"))
    return kind


def _is_initial_namespace() -> bool:
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def _has_single_id() -> bool:
    from imagetool.runtime.namespaces import has_single_id

    return has_single_id()


def _base(name: str, platform: Platform, pull: str, place: Workplace, store: LayoutStore, witness: Witness) -> Image:
    """Find a base image in the local store, else in its registry; `pull` as of --pull."""
    from imagetool.image.image import load

    if name.startswith("oci-layout://"):
        return _from_layout(name, platform, place, store)
    name = name.removeprefix("docker-image://")
    if pull in ("always", "newer"):
        witness.opaque()  # it hangs on the registry
        try:
            place.observer(Note(f"pulling {name}"))
            pull_into(name, place, store, platform)
        except (NotFound, NetworkError) as error:
            if pull == "always":
                raise
            place.observer(Note(f"{name} is taken as it is here: {error}", "warning"))
    try:
        root = resolve(store, name)
        image = load(store, root, platform=platform)
    except NotFound as error:
        if is_identity(name):
            raise
        if pull == "never":
            error.add_note("--pull never forbids to look in its registry")
        if pull != "missing":
            raise
        place.observer(Note(f"pulling {name}"))
        try:
            pull_into(name, place, store, platform)
        except NetworkError as problem:
            known = ", ".join(list(store.names())[:8]) or "no image"
            problem.add_note(f"hint: the local store has {known}; `imagetool base` makes one without a registry")
            raise
        root = resolve(store, name)
        image = load(store, root, platform=platform)
    witness.based(name, root.annotations.get(REF_NAME, ""), str(root.digest))
    return image


def _from_layout(name: str, platform: Platform, place: Workplace, store: LayoutStore) -> Image:
    """Take an image of an OCI layout into the local store: oci-layout://DIR[:TAG] or oci-layout://DIR@DIGEST."""
    from imagetool.image.image import load
    from imagetool.transfer import copy as transfer

    reader, rest = find("oci:" + name.removeprefix("oci-layout://").replace("@sha256:", ":sha256:"))
    with reader.source(rest, place.surroundings) as source:
        options: dict[str, Any] = {"tags": (), "observer": place.observer}
        report = transfer(source.store, store, source.root, platform=platform, **options)
        return load(store, report.root, platform=platform)


@contextmanager
def download(url: str) -> Iterator[Download]:
    """Open what ADD and contexts name by a URL."""
    from imagetool.build.worker import Download
    from imagetool.remote.url import open_url

    with open_url(url) as (name, modified, chunks):
        yield Download(name, modified, chunks)
