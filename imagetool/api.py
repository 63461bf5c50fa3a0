"""The verbs as plain functions: what the command line calls, and what CI scripts import."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from imagetool.config.environment import source_date_epoch
from imagetool.content.layout import REF_NAME, LayoutStore
from imagetool.errors import ChecksFailed, InvalidReference, NetworkError, NotFound, UsageError
from imagetool.image.image import Image, load
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.platform import Platform
from imagetool.progress import Note, Observer, phase, silent
from imagetool.transports import Surroundings, find
from imagetool.transports.local import local_name, resolve

if TYPE_CHECKING:
    from imagetool.build.cache import FolderCache
    from imagetool.build.contexts import Opened
    from imagetool.build.secrets import Secrets
    from imagetool.build.worker import Witness
    from imagetool.distribution.auth import Credentials
    from imagetool.dockerfile import Dockerfile, IgnoreRules
    from imagetool.dockerfile.lint import Report
    from imagetool.image.contents import ImageDifference
    from imagetool.image.verify import Check
    from imagetool.layer.entry import Entry
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.snapshot.bundle import Bundle
    from imagetool.snapshot.overlay import OverlaySnapshotter
    from imagetool.streams.codecs import Codec
    from imagetool.transfer import CopyReport, Origins
    from imagetool.verbs.buildcache import CachePlace
    from imagetool.verbs.rootfs import Repacked


@dataclass(frozen=True, slots=True)
class Workplace:
    """The local store and how to reach registries; everything below one directory.

    root: made when missing. tls_verify: whether registries must prove who they are.
    authfile: the only file that credentials are taken from; None for the usual ones.
    """

    root: Path
    tls_verify: bool = True
    observer: Observer = silent
    authfile: Path | None = None

    @property
    def store(self) -> LayoutStore:
        """The local store, an OCI layout."""
        return LayoutStore.create(self.root / "layout")

    @property
    def cache(self) -> FolderCache:
        """The build cache."""
        from imagetool.build.cache import FolderCache

        return FolderCache(self.root / "cache")

    @property
    def origins(self) -> Origins:
        """Which registries' repositories have which blobs."""
        from imagetool.transfer.origins import FolderOrigins

        return FolderOrigins(self.root / "origins")

    @property
    def surroundings(self) -> Surroundings:
        """What transports need."""
        epoch = source_date_epoch()
        return Surroundings(
            self.store,
            self.root / "scratch",
            self._repository,
            315_532_800 if epoch is None else epoch,
            self.observer,
        )

    def _repository(self, registry: str, repository: str) -> Any:
        from imagetool.config.certificates import tls_for
        from imagetool.config.credentials import trusted_realms
        from imagetool.remote.registry import open_repository

        return open_repository(
            registry,
            repository,
            credentials=self._credentials,
            tls=tls_for(registry, verify=self.tls_verify),
            trusted_realms=trusted_realms(),
        )

    def _credentials(self, registry: str, repository: str) -> Credentials | None:
        from imagetool.config.credentials import find as find_credentials

        found = find_credentials(registry, repository, authfile=self.authfile)
        return found.credentials if found else None


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build; see `imagetool build --help`.

    text: a Dockerfile that is in no file.
    contexts: what --build-context gives, by name.
    epoch: the moment of the build, in seconds; None for SOURCE_DATE_EPOCH or the commit's.
    """

    file: Path | None = None
    text: bytes | None = None
    tags: Sequence[str] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    platform: Platform | None = None
    use_cache: bool = True
    preserve_times: bool = False
    codec: Codec | None = None
    isolation: str = "auto"
    runtime: str | None = None
    network: str = "default"
    network_fallback: Literal["host", "refuse"] = "host"
    sandbox: Sandbox | None = None
    jobs: int | None = None
    secrets: Secrets | None = None
    contexts: Mapping[str, str] = field(default_factory=dict)
    pull: str = "missing"
    uncached: Sequence[str] = ()
    explain: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    unset_env: Sequence[str] = ()
    unset_labels: Sequence[str] = ()
    squash: str = ""
    epoch: int | None = None
    cache_from: Sequence[CachePlace] = ()
    cache_to: Sequence[CachePlace] = ()


def build(
    context: Path | str,
    options: BuildOptions,
    place: Workplace,
    *,
    witness: Witness | None = None,
    stdin: BinaryIO | None = None,
) -> Image:
    """Build the Dockerfile of a context; name the image in the local store and return it.

    Args:
        context: a directory, or what else `build.contexts.open_context` takes.
        witness: is told of all that the build looks at.
        stdin: what the context `-` is read from.
    """
    from imagetool.build.contexts import is_foreign, open_context
    from imagetool.build.worker import Unwatched

    witness = witness or Unwatched()
    if is_foreign(str(context)) or options.contexts:
        witness.opaque()
    token = options.secrets.git_token if options.secrets else b""
    with ExitStack() as stack:
        opening: dict[str, Any] = {"scratch": place.root / "scratch", "download": _download, "token": token}
        opened = stack.enter_context(open_context(str(context), stdin=stdin, **opening))
        named = {name.lower(): _named(value, opening, stack) for name, value in options.contexts.items()}
        return _build(opened, named, options, place, witness)


def build_index(
    context: Path | str, platforms: Sequence[Platform], options: BuildOptions, place: Workplace
) -> Descriptor:
    """Build for several platforms, one after the other; name the index of the images and return its descriptor.

    Raises UsageError for a platform that comes twice and for a context that can be read only once.
    """
    from imagetool.oci.manifest import Index

    if str(context) == "-":
        raise UsageError("a build for several platforms cannot read its context from stdin: it is needed for each")
    if len(set(map(str, platforms))) < len(platforms):
        raise UsageError("a platform is named twice")
    entries = []
    store = place.store
    with store.session():  # nothing is collected before the index names it
        for platform in platforms:
            with phase(place.observer, f"building for {platform}"):
                image = build(context, replace(options, platform=platform, tags=()), place)
            entries.append(replace(image.descriptor, platform=image.config.platform))
        index = Index.make(entries)
        store.push(index.descriptor, [index.raw])
        for name in [local_name(tag) for tag in options.tags] or [""]:
            store.tag(index.descriptor, name)
    return index.descriptor


def _named(value: str, opening: dict[str, Any], stack: ExitStack) -> Any:
    """Return what a named build context is: a directory, or an image by its name."""
    from imagetool.build.contexts import folder_ignore, open_context
    from imagetool.build.files import FolderSource

    if value.startswith(("docker-image://", "oci-layout://")):
        return value
    opened = stack.enter_context(open_context(value, **opening))
    return FolderSource(opened.folder, folder_ignore(opened.folder))


def _build(opened: Opened, named: dict[str, Any], options: BuildOptions, place: Workplace, witness: Witness) -> Image:
    from imagetool.build.contexts import find_ignore
    from imagetool.build.finish import Finish
    from imagetool.build.secrets import Secrets
    from imagetool.build.solver import BuildRequest, default_jobs
    from imagetool.dockerfile import parse

    path, text = _dockerfile(opened, options, witness)
    names = [local_name(tag) for tag in options.tags]
    host = Platform.parse(f"linux/{os.uname().machine}")
    dockerfile = parse(text, file=_shown(path, options))
    ignore = find_ignore(opened, path, witness)
    _refuse_findings(dockerfile, ignore, options, place)
    request = BuildRequest(
        dockerfile=dockerfile,
        context=opened.folder,
        ignore=ignore,
        build_args=options.build_args,
        finish=Finish(
            labels=options.labels,
            annotations=options.annotations,
            unset_env=frozenset(options.unset_env),
            unset_labels=frozenset(options.unset_labels),
            squash=options.squash,
        ),
        target=options.target,
        platform=options.platform or host,
        host=host,
        use_cache=options.use_cache,
        network=options.network,
        jobs=options.jobs or default_jobs(),
        secrets=options.secrets or Secrets(),
        named=named,
        uncached=frozenset(name.lower() for name in options.uncached),
        explain=options.explain,
    )
    in_namespace = _enter_namespace(request, place.observer)
    store = place.store
    with ExitStack() as stack:
        stack.enter_context(store.session())
        worker = _worker(opened, options, place, store, witness, in_namespace=in_namespace, stack=stack)
        image = _solved(request, worker, options, place, store)
        for name in names or [""]:
            store.tag(image.descriptor, name)
    return image


def _solved(request: Any, worker: Any, options: BuildOptions, place: Workplace, store: LayoutStore) -> Image:
    """Build, with the caches of other places where that is asked for."""
    from imagetool.build.solver import solve

    if not options.cache_from and not options.cache_to:
        return solve(request, worker, observer=place.observer)
    from imagetool.verbs.buildcache import export_cache, shared

    around = place.surroundings
    with shared(worker.cache, store, options.cache_from, around, place.observer) as cache:
        image = solve(request, replace(worker, cache=cache), observer=place.observer)
    for one in options.cache_to:
        with phase(place.observer, f"writing the cache to {one.place}"):
            export_cache(cache, image.layers, one, store, around, place.observer)
    return image


def check(context: Path, options: BuildOptions, place: Workplace) -> Report:
    """Lint the Dockerfile of a directory. Nothing is built or pulled: of base images only local ones are known."""
    from imagetool.build.contexts import Opened, find_ignore
    from imagetool.build.worker import Unwatched
    from imagetool.dockerfile import parse

    opened = Opened(context)
    path, text = _dockerfile(opened, options, Unwatched())
    dockerfile = parse(text, file=_shown(path, options))
    return _lint(dockerfile, find_ignore(opened, path, Unwatched()), options, place)


def _lint(dockerfile: Dockerfile, ignore: IgnoreRules, options: BuildOptions, place: Workplace) -> Report:
    from imagetool.dockerfile.lint import BaseImage, lint

    platform = options.platform or Platform.parse(f"linux/{os.uname().machine}")

    def known(name: str) -> BaseImage | None:
        if not place.root.exists():
            return None
        try:
            config = load(place.store, resolve(place.store, name), platform=platform).config
        except (NotFound, InvalidReference):
            return None
        return BaseImage(str(config.platform), config.run.environment, shell=bool(config.run.shell))

    return lint(dockerfile, ignore=ignore, build_args=options.build_args, platform=platform, bases=known)


def _refuse_findings(dockerfile: Dockerfile, ignore: IgnoreRules, options: BuildOptions, place: Workplace) -> None:
    """Refuse to build what the lint finds something in, where `# check=error=true` wants that."""
    if dockerfile.directives.check is None and not options.build_args:
        return  # the lint takes longer to load than a cached build takes
    from imagetool.dockerfile.lint.run import CHECK_ARG

    if dockerfile.directives.check is None and CHECK_ARG not in options.build_args:
        return
    report = _lint(dockerfile, ignore, options, place)
    if report.error and report.findings:
        found = ", ".join(f"{finding.rule.name} (line {finding.line})" for finding in report.findings[:10])
        raise ChecksFailed(f"{report.file}: check has error=true, and the lint finds {found}; build --check shows it")


def _dockerfile(opened: Opened, options: BuildOptions, witness: Witness) -> tuple[Path, bytes]:
    from imagetool.build.contexts import find_dockerfile

    if options.text is not None:
        witness.opaque()
        return options.file or opened.folder / "Dockerfile", options.text
    return find_dockerfile(opened, options.file, witness)


def _shown(path: Path, options: BuildOptions) -> str:
    """Return how messages call the Dockerfile: as the user did, or from where the user is."""
    if options.text is not None:
        return "Dockerfile"
    return str(path) if options.file else os.path.relpath(path)


def _enter_namespace(request: Any, observer: Observer) -> str:
    """Become root of a user namespace when there are RUN steps and we are not root; say so."""
    from imagetool.dockerfile import Run
    from imagetool.runtime.capabilities import holds

    if os.geteuid() == 0 and holds("CAP_SYS_ADMIN"):
        return "root" if _is_initial_namespace() else "range"
    if not any(isinstance(step, Run) for stage in request.dockerfile.stages for step in stage.instructions):
        return "root"
    from imagetool.runtime.namespaces import enter_user_namespace

    kind = enter_user_namespace()
    if kind == "single":
        observer(Note("building without root and without subordinate ids: all files will belong to root", "warning"))
    return kind


def _is_initial_namespace() -> bool:
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def _has_single_id() -> bool:
    from imagetool.runtime.namespaces import has_single_id

    return has_single_id()


def _sandbox(options: BuildOptions, *, namespaced: bool) -> Sandbox | None:
    """Return the settings of containers; in a user namespace already, none is made for each."""
    if options.sandbox is None or not namespaced:
        return options.sandbox
    return replace(options.sandbox, userns="host")


def _worker(
    opened: Opened,
    options: BuildOptions,
    place: Workplace,
    store: LayoutStore,
    witness: Witness,
    *,
    in_namespace: str,
    stack: ExitStack,
) -> Any:
    from imagetool.build.commit import commit_time
    from imagetool.build.filedigests import FileDigests
    from imagetool.build.graph import EPOCH_ARG
    from imagetool.build.worker import DEFAULT_EPOCH, Times, Worker
    from imagetool.streams.codecs import Codec

    def untimed(text: str) -> None:
        witness.opaque()  # it hangs on more than the commit
        place.observer(Note(text, "warning"))

    given = {EPOCH_ARG: options.build_args[EPOCH_ARG]} if EPOCH_ARG in options.build_args else os.environ
    epoch = source_date_epoch(given) if options.epoch is None else options.epoch
    if epoch is None:
        epoch = opened.time if opened.foreign else commit_time(opened.folder, warn=untimed)
    namespaced = in_namespace != "root"
    kept: dict[str, Any] = {}
    first = threading.Lock()

    def snapshots() -> OverlaySnapshotter:
        from imagetool.layer.unpack import Ownership
        from imagetool.snapshot.overlay import OverlaySnapshotter

        with first:
            if "snapshots" not in kept:
                kept["snapshots"] = OverlaySnapshotter(
                    place.root / "snapshots",
                    user_xattr=namespaced,
                    ownership=Ownership(lenient=namespaced),
                    warn=lambda text: place.observer(Note(text, "warning")),
                )
            snapshotter: OverlaySnapshotter = kept["snapshots"]
            return snapshotter

    def executor() -> Any:
        from imagetool.runtime.executors import executor_of

        with first:
            if "executor" not in kept:
                made = executor_of(
                    options.isolation, options.runtime, warn=lambda text: place.observer(Note(text, "warning"))
                )
                kept["executor"] = stack.enter_context(made)
            return kept["executor"]

    def network(asked: str) -> Any:
        from imagetool.runtime.network import network_of

        with first:
            if f"network {asked}" not in kept:
                chosen, warning = network_of(
                    asked,  # type: ignore[arg-type]
                    isolation=options.isolation,
                    runtime=options.runtime,
                    fallback=options.network_fallback,
                )
                if warning:
                    place.observer(Note(warning, "warning"))
                kept[f"network {asked}"] = chosen
            return kept[f"network {asked}"]

    def emulate(platform: Platform) -> None:
        """Have programs of another architecture run until the build ends."""
        host = Platform.parse(f"linux/{os.uname().machine}")
        if platform.architecture in ("", host.architecture):
            return
        from imagetool.runtime.emulation import emulated

        with first:
            if str(platform) not in kept:
                kept[str(platform)] = stack.enter_context(emulated(platform, host))

    def stop() -> None:
        with first:
            if "executor" in kept:
                kept["executor"].stop()

    return Worker(
        store=store,
        snapshots=snapshots,
        executor=executor,
        emulate=emulate,
        network=network,
        cache=place.cache,
        known=None if opened.foreign else lambda context: FileDigests(place.root / "cache", context),
        base=lambda name, platform: _base(name, platform, options.pull, place, store, witness),
        download=_download,
        scratch=place.root / "scratch",
        caches=place.root / "cache-mounts",
        codec=options.codec or Codec(),
        times=Times(DEFAULT_EPOCH if epoch is None else epoch, options.preserve_times),
        user_namespace=namespaced,
        single_id=namespaced and _has_single_id(),
        sandbox=_sandbox(options, namespaced=namespaced),
        witness=witness,
        stop=stop,
    )


def _base(name: str, platform: Platform, pull: str, place: Workplace, store: LayoutStore, witness: Witness) -> Image:
    """Find a base image in the local store, else in its registry; `pull` as of --pull."""
    if name.startswith("oci-layout://"):
        return _from_layout(name, platform, place, store)
    name = name.removeprefix("docker-image://")
    if pull in ("always", "newer"):
        witness.opaque()  # it hangs on the registry
        try:
            place.observer(Note(f"pulling {name}"))
            _pull_into(name, place, store)
        except (NotFound, NetworkError) as error:
            if pull == "always":
                raise
            place.observer(Note(f"{name} is taken as it is here: {error}", "warning"))
    try:
        root = resolve(store, name)
        image = load(store, root, platform=platform)
    except NotFound as error:
        if pull == "never":
            error.add_note("--pull never forbids to look in its registry")
        if pull != "missing":
            raise
        place.observer(Note(f"pulling {name}"))
        try:
            _pull_into(name, place, store)
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
    from imagetool.transfer import copy as transfer

    reader, rest = find("oci:" + name.removeprefix("oci-layout://").replace("@sha256:", ":sha256:"))
    with reader.source(rest, place.surroundings) as source:
        transfer(source.store, store, source.root, platform=platform, tags=(), observer=place.observer)
        return load(store, source.root, platform=platform)


@contextmanager
def _download(url: str) -> Iterator[Any]:
    from imagetool.build.worker import Download
    from imagetool.remote.url import open_url

    with open_url(url) as (name, modified, chunks):
        yield Download(name, modified, chunks)


def _pull_into(name: str, place: Workplace, store: LayoutStore) -> CopyReport:
    from imagetool.transfer import copy as transfer
    from imagetool.transports.docker import Docker

    with Docker().source(name, place.surroundings) as source:
        tags = (local_name(name),)
        return transfer(source.store, store, source.root, tags=tags, observer=place.observer, origins=place.origins)


def pull(name: str, place: Workplace) -> CopyReport:
    """Copy an image from its registry to the local store, under the same name."""
    store = place.store
    with store.session():
        return _pull_into(name.removeprefix("docker://"), place, store)


def login(registry: str, username: str, password: str, place: Workplace) -> str:
    """Ask a registry whether it takes a user name and password; keep them, and return where.

    Raises AuthError when it does not take them; then nothing is kept.
    """
    from imagetool.config import credentials
    from imagetool.config.certificates import tls_for
    from imagetool.distribution.auth import Credentials
    from imagetool.oci.reference import check_registry
    from imagetool.remote.registry import Registry

    check_registry(registry)
    given = Credentials(username, password)
    realms = credentials.trusted_realms()
    tls = tls_for(registry, verify=place.tls_verify)
    with Registry(registry, credentials=lambda _, __: given, tls=tls, trusted_realms=realms) as asked:
        asked.login()
    return credentials.login(registry, given, authfile=place.authfile)


def push(source: str, destination: str | None, place: Workplace, *, codec: Codec | None = None) -> CopyReport:
    """Copy a local image, or one of any transport, to a registry (or any transport)."""
    target = destination or source
    if "://" not in target and not target.startswith(("oci:", "oci-archive:", "docker-archive:", "dir:", "aci:")):
        target = f"docker://{target}"
    return copy(source, target, place, codec=codec)


def copy(
    source: str,
    destination: str,
    place: Workplace,
    *,
    platform: Platform | None = None,
    codec: Codec | None = None,
) -> CopyReport:
    """Copy an image between any two places, byte for byte; with a codec, its layers get another compression."""
    from imagetool.transfer import copy as transfer

    around = place.surroundings
    reader, from_rest = find(source)
    writer, to_rest = find(destination)
    with reader.source(from_rest, around) as opened, writer.destination(to_rest, around) as target:
        options: dict[str, Any] = {"tags": target.tags, "observer": place.observer, "origins": place.origins}
        if codec is None:
            return transfer(opened.store, target.store, opened.root, platform=platform, **options)
        with _recompressed(opened, target.store, codec, place, platform) as image:
            return transfer(image.content, target.store, image.root, **options)


@contextmanager
def _recompressed(
    source: Any, destination: Any, codec: Codec, place: Workplace, platform: Platform | None
) -> Iterator[Any]:
    """Compress an image's layers anew, right at the destination when that is a layout; say what changed."""
    from imagetool.transfer.recompress import recompress
    from imagetool.transports.scratch import scratch_folder

    around = place.surroundings
    with ExitStack() as stack:
        scratch = destination
        if not isinstance(destination, LayoutStore):
            scratch = LayoutStore.create(stack.enter_context(scratch_folder(around)) / "layout")
        image = recompress(source.store, source.root, scratch, codec, platform=platform, observer=place.observer)
        for before, after in image.layers:
            sizes = f"{before.size} → {after.size} bytes"
            place.observer(Note(f"layer {before.digest.short} → {after.digest.short} ({codec.format}, {sizes})"))
        if image.root.digest != source.root.digest:
            place.observer(Note(f"image {source.root.digest} → {image.root.digest}"))
        yield image


def convert(source: str, destination: str, place: Workplace) -> str:
    """Convert an image to `aci:FILE`, an ACI to any other place, or copy between places of one format.

    Returns the ACI's image ID, or the digest of the OCI image; what cannot be carried is told the observer.
    """
    if not destination.startswith("aci:"):
        return str(copy(source, destination, place).root.digest)
    from imagetool.transports.aci import export_aci
    from imagetool.transports.docker import Docker
    from imagetool.transports.local import Local

    around = place.surroundings
    path = Path(destination.removeprefix("aci:"))
    name = source if isinstance(find(source)[0], Local | Docker) else path.stem  # a path is no name
    with opened(source, place) as (store, root):
        identity = export_aci(load(store, root), path, name, epoch=around.epoch, observer=around.observer)
    return f"{identity.algorithm}-{identity.hex}"


@contextmanager
def opened(reference: str, place: Workplace) -> Iterator[tuple[Any, Descriptor]]:
    """Open an image of any transport to read: its store and root."""
    transport, rest = find(reference)
    with transport.source(rest, place.surroundings) as source:
        yield source.store, source.root


def verify(reference: str, place: Workplace) -> Iterator[Check]:
    """Recompute every digest, size and diff ID of an image; yield a check for each."""
    from imagetool.image.verify import Watched
    from imagetool.image.verify import verify as checks

    with opened(reference, place) as (store, root):
        yield from checks(Watched(store, place.observer), root)


def tag(source: str, name: str, place: Workplace) -> str:
    """Give a local image one more name; return it in full."""
    store = place.store
    full = local_name(name)
    with store.session():  # an image that loses its last name meanwhile keeps its blobs for this one
        store.tag(resolve(store, source), full)
    return full


def remove(names: Sequence[str], place: Workplace) -> tuple[list[str], int, int]:
    """Remove names from the local store, and blobs that nothing needs any more; return names, blobs and bytes."""
    store = place.store
    gone = []
    for name in names:
        root = resolve(store, name)
        removed = store.untag(root.annotations.get(REF_NAME, str(root.digest)))
        gone.append(removed.annotations.get(REF_NAME, str(removed.digest)))
    count, freed = store.collect(keep=place.cache.layers())
    return gone, count, freed


def base(what: str, name: str | None, place: Workplace) -> tuple[str, Image]:
    """Make a base image without a registry and name it; see `imagetool base --help`."""
    from imagetool.build.base import make_base
    from imagetool.build.worker import DEFAULT_EPOCH, Times
    from imagetool.streams.codecs import Codec

    store = place.store
    epoch = source_date_epoch()
    full = local_name(name or (what if what.startswith(("busybox", "debian")) else Path(what).stem.lower()))

    def warn(text: str) -> None:
        place.observer(Note(text, "warning"))

    with store.session(), phase(place.observer, f"making {what}"):
        image = make_base(
            what,
            store,
            platform=Platform.parse(f"linux/{os.uname().machine}"),
            times=Times(DEFAULT_EPOCH if epoch is None else epoch),
            codec=Codec(),
            warn=warn,
        )
        store.tag(image.descriptor, full)
    return full, image


def export(
    image: Image, kind: str, destination: str, place: Workplace, *, name: str = "", archive: bool = False
) -> None:
    """Write a built image elsewhere.

    Args:
        kind: oci (a layout, or an archive), docker (an archive), local (a directory with the root
            filesystem), tar (a tarball of it).
    """
    from imagetool.transports import rootfs

    if kind == "tar":
        rootfs.write_tar(image, Path(destination), place.observer)
    elif kind == "local":
        rootfs.write_folder(image, Path(destination), place.observer)
    elif kind in ("oci", "docker"):
        from imagetool.transfer import copy as transfer

        packed = archive or destination.endswith(".tar")
        prefix = "docker-archive:" if kind == "docker" else "oci-archive:" if packed else "oci:"
        writer, rest = find(prefix + destination + (f":{name}" if name else ""))
        with writer.destination(rest, place.surroundings) as target:
            transfer(image.content, target.store, image.descriptor, tags=target.tags, observer=place.observer)
    elif kind == "registry":
        push(str(image.descriptor.digest), f"docker://{destination.removeprefix('docker://')}", place)
    else:
        raise UsageError(f"--output type={kind!r}: there are oci, docker, local, tar and registry")


def unpack(
    reference: str, folder: Path | str, place: Workplace, *, rootless: bool = False, platform: Platform | None = None
) -> Bundle:
    """Unpack an image to FOLDER/rootfs, to be edited and repacked; see `rootfs.unpack`. Users are always rootless."""
    from imagetool.verbs.rootfs import unpack

    rootless = rootless or os.geteuid() != 0
    around = place.surroundings
    return unpack(reference, Path(folder), around, platform=platform, rootless=rootless, observer=place.observer)


def repack(
    folder: Path | str,
    destination: str,
    place: Workplace,
    *,
    codec: Codec | None = None,
    comment: str = "",
    refresh: bool = False,
    clamp_times: bool = False,
) -> Repacked:
    """Add what was edited in an unpacked image to it, as a layer; see `rootfs.repack`."""
    from imagetool.streams.codecs import Codec
    from imagetool.verbs.rootfs import repack

    around = place.surroundings
    return repack(
        Path(folder),
        destination,
        around,
        codec=codec or Codec(),
        comment=comment,
        refresh=refresh,
        clamp=around.epoch * 10**9 if clamp_times else None,
        observer=place.observer,
    )


def squash(source: str, destination: str, place: Workplace, *, codec: Codec | None = None) -> Descriptor:
    """Make an image of one layer with the same root filesystem; see `rootfs.squash`."""
    from imagetool.streams.codecs import Codec
    from imagetool.verbs.rootfs import squash

    return squash(source, destination, place.surroundings, codec=codec or Codec(), observer=place.observer)


def diff(left: str, right: str, place: Workplace, *, platform: Platform | None = None) -> ImageDifference:
    """Compare the root filesystems of two images, layer by layer and in total."""
    from imagetool.verbs.rootfs import compare

    return compare(left, right, place.surroundings, platform=platform)


def entries(
    reference: str, place: Workplace, *, layer: str | None = None, platform: Platform | None = None
) -> Iterator[Entry]:
    """Yield what is in an image, or in one of its layers; see `rootfs.entries`."""
    from imagetool.verbs.rootfs import entries

    return entries(reference, place.surroundings, layer=layer, platform=platform)


__all__ = [
    "BuildOptions",
    "Workplace",
    "base",
    "build",
    "convert",
    "copy",
    "diff",
    "entries",
    "export",
    "login",
    "opened",
    "pull",
    "push",
    "remove",
    "repack",
    "squash",
    "tag",
    "unpack",
    "verify",
]
