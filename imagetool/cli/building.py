"""`build` and `base`: make images."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from imagetool.api import BuildOptions
    from imagetool.build.unchanged import Answer, Watch
    from imagetool.cli.commands import Globals
    from imagetool.cli.outputs import Output
    from imagetool.image.image import Image
    from imagetool.progress import Observer


class _Telling:
    """Where a build tells what it does and what it gave: what the options of these names say."""

    __slots__ = ("iidfile", "metadata_file", "progress", "timeline")

    def __init__(self, progress: str, timeline: str | None, iidfile: str | None, metadata_file: str | None) -> None:
        self.progress = progress
        self.timeline = timeline
        self.iidfile = iidfile
        self.metadata_file = metadata_file


def build(
    globals: Globals,
    *,
    context: str,
    check: bool,
    no_cache: bool,
    no_cache_filter: Sequence[str],
    explain_cache: bool,
    cache_from: Sequence[str],
    cache_to: Sequence[str],
    jobs: str | None,
    keep_on_failure: bool,
    output: Sequence[str],
    push: bool,
    iidfile: str | None,
    metadata_file: str | None,
    timeline: str | None,
    progress: str,
    quiet: bool,
    **wanted: Any,
) -> None:
    """Build an image; print its ID, or nothing but the tar when an output is stdout.

    `wanted` are the options that the image depends on, so that a new one does not go unnoticed
    when an unchanged build is looked for. What is done first loads next to nothing and answers a build
    that nothing has changed for; only then is one carried out.
    """
    if check:
        _check(globals, context, wanted)
        return
    from imagetool.build.unchanged import Watch, find

    if iidfile:
        from imagetool.cli.resultfiles import forget

        forget(iidfile)
    telling = _Telling("quiet" if quiet else progress, timeline, iidfile, metadata_file)
    root, asked = _request(globals, context, wanted)
    output = [*output, *_pushed(wanted["tag"], push=push)]
    known = None if no_cache or no_cache_filter or explain_cache or cache_to or output else find(root, asked)
    if known is not None:
        _answer(known, context, wanted, telling)
        return
    from imagetool.cli.buildoptions import cache_options, job_count

    how = cache_options(no_cache, no_cache_filter, explain_cache, cache_from, cache_to)
    how |= {"jobs": job_count(jobs), "keep_on_failure": keep_on_failure}
    _carry_out(globals, context, wanted, how, output, Watch(root, asked), telling)


def _request(globals: Globals, context: str, wanted: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Return where unchanged builds are recorded and what this one is there, with `wanted` brought into that form."""
    from imagetool.build.unchanged import request
    from imagetool.config.environment import build_argument, source_date_epoch_text, store_root_text

    wanted["file"] = _one_file(wanted["file"])
    wanted["platform"] = ",".join(wanted["platform"]) or None
    wanted["build_arg"] = dict(pair for text in wanted["build_arg"] if (pair := build_argument(text)))
    return store_root_text(globals.root), request(context, epoch=source_date_epoch_text(), **wanted)


def _answer(known: Answer, context: str, wanted: Mapping[str, Any], telling: _Telling) -> None:
    """Answer a build that nothing has changed for."""
    _show(known, telling.progress)
    if telling.timeline:
        from imagetool.cli.buildoptions import build_secrets, redacting
        from imagetool.cli.replay import draw

        secrets = build_secrets(wanted["secret"], wanted["ssh"])
        draw(known, telling.timeline, title=_title(context, wanted["tag"]), redact=redacting(secrets))
    _record(known, wanted["tag"], telling, answered=True)
    sys.stdout.write(f"{known.identity}\n")


def _carry_out(
    globals: Globals,
    context: str,
    wanted: Mapping[str, Any],
    how: Mapping[str, Any],
    output: Sequence[str],
    watch: Watch,
    telling: _Telling,
) -> None:
    """Build; `wanted` and `how` are the options that the image depends on, and those that it does not."""
    from imagetool.cli.buildoptions import build_options, redacting
    from imagetool.cli.display import watched
    from imagetool.cli.outputs import Output

    if context == "-" and wanted["file"] == "-":
        from imagetool.errors import UsageError

        raise UsageError("the Dockerfile and the build context cannot both be stdin")
    outputs = [Output.parse(text) for text in output]
    platforms = (wanted["platform"] or "").split(",")
    options = build_options(how, **{**wanted, "platform": platforms[0] or None})
    title, redact = _title(context, options.tags), redacting(options.secrets)
    seen = watched(telling.progress, telling.timeline, title=title, redact=redact)
    if len(platforms) > 1:
        answer = _build_for(globals, context, platforms, options, outputs, seen)
    else:
        answer = _build_one(globals, context, options, outputs, watch, seen)
    _record(answer, options.tags, telling)
    result = sys.stderr if any(one.is_stdout for one in outputs) else sys.stdout
    result.write(f"{answer.identity}\n")


def _check(globals: Globals, context: str, wanted: Mapping[str, Any]) -> None:
    """Lint instead of building."""
    from imagetool.cli import checking

    platform = ",".join(wanted["platform"]).partition(",")[0] or None
    about = {"build_arg": wanted["build_arg"], "file": _one_file(wanted["file"]), "platform": platform}
    checking.check(globals, context=context, **about)


def _show(known: Answer, progress: str) -> None:
    """Show what a build showed that nothing has changed for."""
    if progress == "plain" or (progress == "auto" and not sys.stderr.isatty()):
        from imagetool.cli.lines import answered_lines

        sys.stderr.write("".join(f"{line}\n" for line in answered_lines(known.shown)))
    elif progress != "quiet":
        from imagetool.cli.replay import replay

        replay(known, progress)


def _build_one(
    globals: Globals,
    context: str,
    options: BuildOptions,
    outputs: Sequence[Output],
    watch: Watch,
    seen: AbstractContextManager[tuple[Observer, Callable[[str], None]]],
) -> Answer:
    """Build, write the outputs, and record what was built."""
    from imagetool import api
    from imagetool.cli.display import tee
    from imagetool.cli.options import plain_workplace
    from imagetool.cli.replay import noting

    with seen as (shown, built):
        place = plain_workplace(globals, tee(noting(watch), shown))
        image = api.build(context, options, place, witness=watch, stdin=sys.stdin.buffer)
        for one in outputs:
            one.write(image, place, name=options.tags[0] if options.tags else "")
        built(str(image.config.descriptor.digest))
    return _remember(watch, image, options.tags)


def _build_for(
    globals: Globals,
    context: str,
    platforms: Sequence[str],
    options: BuildOptions,
    outputs: Sequence[Output],
    seen: AbstractContextManager[tuple[Observer, Callable[[str], None]]],
) -> Answer:
    """Build for several platforms and write the outputs; the answer's identity is the index's digest."""
    from imagetool import api
    from imagetool.build.unchanged import Answer
    from imagetool.cli.options import plain_workplace
    from imagetool.errors import Unsupported
    from imagetool.oci.platform import Platform

    if any(one.kind not in ("oci", "registry") or one.is_stdout for one in outputs):
        raise Unsupported("several platforms are written to type=oci,dest=PATH and type=registry,ref=NAME only")
    with seen as (shown, built):
        place = plain_workplace(globals, shown)
        index = api.build_index(context, [Platform.parse(text) for text in platforms], options, place)
        for one in outputs:
            packed = one.archive or one.dest.endswith(".tar")
            prefix = "docker://" if one.kind == "registry" else "oci-archive:" if packed else "oci:"
            name = f":{options.tags[0]}" if options.tags and one.kind == "oci" else ""
            api.copy(str(index.digest), f"{prefix}{one.dest}{name}", place)
        built(str(index.digest))
    return Answer(str(index.digest), index.tree(), [])


def _title(context: str, tags: Sequence[str]) -> str:
    """Return what a build is called where people read of it."""
    from os.path import abspath, isdir

    return ", ".join(tags) or (abspath(context) if isdir(context) else context)


def _pushed(tags: Sequence[str], *, push: bool) -> list[str]:
    """Return the outputs that --push means."""
    if push and not tags:
        from imagetool.errors import UsageError

        raise UsageError("--push needs a --tag: it says which registry and what name")
    return [f"type=registry,ref={tag}" for tag in tags] if push else []


def _one_file(files: Sequence[str]) -> str | None:
    """Return the Dockerfile; buildah joins several, which nobody else does."""
    if len(files) > 1:
        from imagetool.errors import UsageError

        raise UsageError(f"--file is given twice: join them, as in cat {' '.join(files)} | imagetool build --file - …")
    return files[0] if files else None


def _remember(watch: Watch, image: Image, tags: Sequence[str]) -> Answer:
    """Record what the build gave, so that the same one need not be carried out again; return it."""
    from imagetool.build.unchanged import Answer
    from imagetool.transports.local import local_name

    root, config = image.descriptor, image.config.descriptor
    answer = Answer(str(config.digest), root.tree(), watch.shown)
    names: list[tuple[str | None, str]] = [(local_name(tag), str(root.digest)) for tag in tags]
    blobs = [(str(one.digest), one.size) for one in (root, config, *(layer.descriptor for layer in image.layers))]
    watch.record(answer, names=names or [(None, str(root.digest))], blobs=blobs)
    return answer


def _record(answer: Answer, tags: Sequence[str], telling: _Telling, *, answered: bool = False) -> None:
    """Write the files that were asked for; see `resultfiles.record`, which few builds need."""
    if telling.iidfile or telling.metadata_file:
        from imagetool.cli.resultfiles import record

        record(answer, tags, telling.iidfile, telling.metadata_file, answered=answered)


def base(globals: Globals, *, what: str, tag: str | None, progress: str) -> None:
    """Make a base image; print its name."""
    from imagetool import api
    from imagetool.cli.options import workplace

    with workplace(globals, progress) as place:
        name, _ = api.base(what, tag, place)
    sys.stdout.write(f"{name}\n")
