"""`build`: the Dockerfile of a context becomes an image in the local store, or an index of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from imagetool.content.layout import LayoutStore
from imagetool.errors import ImagetoolError, StepFailed, UsageError
from imagetool.image.image import this_platform
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.platform import Platform
from imagetool.progress import phase
from imagetool.transports.local import local_name
from imagetool.values import replace
from imagetool.verbs.buildoptions import BuildOptions, dockerfile_of, shown_name
from imagetool.verbs.buildworker import OnDemand, enter_namespace, worker_of
from imagetool.verbs.check import refuse_findings, tell_findings
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.build.contexts import Opened
    from imagetool.build.solver import BuildRequest
    from imagetool.build.worker import Witness, Worker
    from imagetool.dockerfile import Dockerfile, IgnoreRules
    from imagetool.image.image import Image


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
    from imagetool.build.redaction import redaction
    from imagetool.build.worker import Unwatched

    witness = witness or Unwatched()
    with redaction(options.secrets, place.observer) as observer:
        return _opened(context, options, replace(place, observer=observer), witness, stdin)


def _opened(
    context: Path | str, options: BuildOptions, place: Workplace, witness: Witness, stdin: BinaryIO | None
) -> Image:
    from imagetool.build.contexts import is_foreign
    from imagetool.verbs.contexts import opened_context, opening

    if is_foreign(str(context)) or options.contexts:
        witness.opaque()
    with ExitStack() as stack:
        opened = stack.enter_context(opened_context(context, options, place, stdin=stdin))
        how = opening(options, place)
        named = {name.lower(): _named(value, how, stack) for name, value in options.contexts.items()}
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
    entries: list[Descriptor] = []
    store = place.store
    with store.session():  # nothing is collected before the index names it
        known = store.unnamed()
        for platform in platforms:
            with phase(place.observer, f"building for {platform}"):
                checks = options.checks and not entries  # once says it
                image = build(context, replace(options, platform=platform, tags=(), checks=checks), place)
            entries.append(replace(image.descriptor, platform=image.config.platform))
        index = Index.make(entries)
        store.push(index.descriptor, [index.raw])
        for name in [local_name(tag) for tag in options.tags] or [""]:
            store.tag(index.descriptor, name)
        store.forget({entry.digest for entry in entries} - known)  # the index has them
    return index.descriptor


def _named(value: str, how: dict[str, Any], stack: ExitStack) -> Any:
    """Return what a named build context is: a directory, or an image by its name."""
    from imagetool.build.contexts import folder_ignore, open_context
    from imagetool.build.files import FolderSource

    if value.startswith(("docker-image://", "oci-layout://")):
        return value
    opened = stack.enter_context(open_context(value, **how))
    return FolderSource(opened.folder, folder_ignore(opened.folder))


def _build(opened: Opened, named: dict[str, Any], options: BuildOptions, place: Workplace, witness: Witness) -> Image:
    from imagetool.build.contexts import find_ignore
    from imagetool.build.graph import EPOCH_ARG
    from imagetool.dockerfile import parse

    path, text = dockerfile_of(opened, options, witness)
    names = [local_name(tag) for tag in options.tags]
    dockerfile = parse(text, file=shown_name(path, opened, options))
    ignore = find_ignore(opened, path, witness)
    refuse_findings(dockerfile, ignore, options, place)
    request = _request(opened, dockerfile, ignore, named, options)
    in_namespace = enter_namespace(request, place.observer)
    store = place.store
    with ExitStack() as stack:
        stack.enter_context(store.session())
        made = stack.enter_context(OnDemand(options, place, namespaced=in_namespace != "root"))
        declared = dict(pair for arg in dockerfile.global_args for pair in arg.pairs).get(EPOCH_ARG)
        worker = worker_of(opened, options, place, store, witness, made, declared=declared or "")
        try:
            image = _solved(request, worker, options, place, store)
        except ImagetoolError as error:
            if options.keep_on_failure and isinstance(error, StepFailed):
                from imagetool.verbs.debug import keep_remains

                keep_remains(error, opened, options, worker, place)
            if options.checks:
                tell_findings(dockerfile, ignore, options, place, None)
            raise
        if options.checks:
            tell_findings(dockerfile, ignore, options, place, image)
        for name in names or [""]:
            store.tag(image.descriptor, name)
    return image


def _request(
    opened: Opened, dockerfile: Dockerfile, ignore: IgnoreRules, named: dict[str, Any], options: BuildOptions
) -> BuildRequest:
    """Return what the solver is asked for."""
    from imagetool.build.entitlements import Entitlements
    from imagetool.build.finish import Finish
    from imagetool.build.secrets import Secrets
    from imagetool.build.solver import BuildRequest, default_jobs

    host = this_platform()
    return BuildRequest(
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
        keeps=options.keep_on_failure,
        entitlements=options.allow or Entitlements(network_host=options.network == "host"),
    )


def _solved(
    request: BuildRequest, worker: Worker, options: BuildOptions, place: Workplace, store: LayoutStore
) -> Image:
    """Build, with the caches of other places where that is asked for."""
    from imagetool.build.graph import INLINE_CACHE_ARG
    from imagetool.build.solver import solve

    inline = options.is_on(INLINE_CACHE_ARG) or any(not one.place for one in options.cache_to)
    if not options.cache_from and not options.cache_to and not inline:
        return solve(request, worker, observer=place.observer)
    from imagetool.verbs.buildcache import export_cache, shared

    around = place.surroundings
    with shared(worker.cache, store, options.cache_from, around, place.observer) as cache:
        asking = replace(worker, cache=cache, asks_others=bool(options.cache_from))
        image = solve(request, asking, observer=place.observer)
    if inline:
        from imagetool.verbs.inlinecache import with_inline_cache

        image = with_inline_cache(image, cache.used, cache.used_facts, store, annotations=options.annotations)
    for one in options.cache_to:
        if not one.place:
            continue
        with phase(place.observer, f"writing the cache to {one.place}"):
            export_cache(cache, image.layers, one, store, around, place.observer)
    return image
