"""`build` and `base`: make images."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from imagetool.api import BuildOptions
    from imagetool.build.entitlements import Entitlements
    from imagetool.build.secrets import Secrets
    from imagetool.build.unchanged import Answer, Watch
    from imagetool.cli.app import Globals
    from imagetool.cli.outputs import Output
    from imagetool.image.image import Image
    from imagetool.progress import Observer
    from imagetool.runtime.sandbox import Sandbox


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
    when an unchanged build is looked for. Long, because it is the order that saves time: the first half
    loads next to nothing and answers a build that nothing has changed for, the second carries one out.
    """
    if check:
        _check(globals, context, wanted)
        return
    from imagetool.build.unchanged import Watch, find, request
    from imagetool.config.environment import build_argument, source_date_epoch_text, store_root_text

    if iidfile:
        from imagetool.cli.resultfiles import forget

        forget(iidfile)
    progress = "quiet" if quiet else progress
    wanted["file"] = _one_file(wanted["file"])
    wanted["platform"] = ",".join(wanted["platform"]) or None
    root = store_root_text(globals.root)
    wanted["build_arg"] = dict(pair for text in wanted["build_arg"] if (pair := build_argument(text)))
    output = [*output, *_pushed(wanted["tag"], push=push)]
    asked = request(context, epoch=source_date_epoch_text(), **wanted)
    known = None if no_cache or no_cache_filter or explain_cache or cache_to or output else find(root, asked)
    if known is not None:
        _show(known, progress)
        if timeline:
            from imagetool.cli.replay import draw

            secrets = _secrets(wanted["secret"], wanted["ssh"])
            draw(known, timeline, title=_title(context, wanted["tag"]), redact=_redact(secrets))
        _record(known, wanted["tag"], iidfile, metadata_file, answered=True)
        sys.stdout.write(f"{known.identity}\n")
        return

    from imagetool.cli.display import watched
    from imagetool.cli.outputs import Output

    if context == "-" and wanted["file"] == "-":
        from imagetool.errors import UsageError

        raise UsageError("the Dockerfile and the build context cannot both be stdin")
    outputs = [Output.parse(text) for text in output]
    uncached = [name for text in no_cache_filter for name in text.split(",")]
    how: dict[str, Any] = {
        "use_cache": not no_cache,
        "uncached": uncached,
        "explain": explain_cache,
        "jobs": _jobs(jobs),
        "keep_on_failure": keep_on_failure,
    }
    if cache_from or cache_to:
        from imagetool.verbs.buildcache import CachePlace

        how["cache_from"] = [CachePlace.parse(text, "--cache-from") for text in cache_from]
        how["cache_to"] = [CachePlace.parse(text, "--cache-to") for text in cache_to]
    platforms = (wanted["platform"] or "").split(",")
    options = _options(how, **{**wanted, "platform": platforms[0] or None})
    seen = watched(progress, timeline, title=_title(context, options.tags), redact=_redact(options.secrets))
    if len(platforms) > 1:
        _build_for(globals, context, platforms, options, outputs, iidfile, metadata_file, seen)
        return
    answer = _build_one(globals, context, options, outputs, Watch(root, asked), seen)
    _record(answer, options.tags, iidfile, metadata_file)
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
    iidfile: str | None,
    metadata_file: str | None,
    seen: AbstractContextManager[tuple[Observer, Callable[[str], None]]],
) -> None:
    """Build for several platforms; print the digest of the index."""
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
    answer = Answer(str(index.digest), index.tree(), [])
    _record(answer, options.tags, iidfile, metadata_file)
    sys.stdout.write(f"{index.digest}\n")


def _title(context: str, tags: Sequence[str]) -> str:
    """Return what a build is called where people read of it."""
    from os.path import abspath, isdir

    return ", ".join(tags) or (abspath(context) if isdir(context) else context)


def _redact(secrets: Secrets | None) -> Callable[[str], str]:
    """Return what takes a build's secrets out of a text."""

    def redact(text: str) -> str:
        if secrets is None:
            return text
        redactor = secrets.redactor()
        return (redactor.feed(text.encode(errors="surrogatepass")) + redactor.end()).decode("utf-8", "replace")

    return redact


def _options(
    how: dict[str, Any],
    *,
    tag: Sequence[str],
    file: str | None,
    build_arg: Mapping[str, str],
    label: Sequence[str],
    target: str | None,
    platform: str | None,
    timestamps: str,
    rewrite_timestamp: bool,
    compression: str,
    reproducible_compression: bool,
    isolation: str,
    runtime: str | None,
    network: str,
    allow: Sequence[str],
    secret: Sequence[str],
    ssh: Sequence[str],
    build_context: Sequence[str],
    pull: str,
    annotation: Sequence[str],
    unsetenv: Sequence[str],
    unsetlabel: Sequence[str],
    squash: bool,
    squash_all: bool,
    timestamp: str | None,
    **sandbox: Any,
) -> BuildOptions:
    """Return what the options of the command line, one line for each, mean together with `how`."""
    from pathlib import Path

    from imagetool.api import BuildOptions
    from imagetool.cli.options import wanted_codec
    from imagetool.config.environment import network_fallback
    from imagetool.errors import UsageError
    from imagetool.oci.platform import Platform

    if rewrite_timestamp and timestamps == "preserve":
        raise UsageError("--rewrite-timestamp and --timestamps preserve exclude each other")
    return BuildOptions(
        file=Path(file) if file and file != "-" else None,
        text=from_stdin() if file == "-" else None,
        tags=tag,
        build_args=build_arg,
        labels=dict(pair(text, "--label") for text in label),
        target=target,
        platform=Platform.parse(platform) if platform else None,
        **how,
        preserve_times=timestamps == "preserve",
        rewrite_times=rewrite_timestamp or timestamps == "rewrite",
        codec=wanted_codec(compression, reproducible_compression),
        isolation=isolation,
        runtime=runtime,
        network=network,
        network_fallback=network_fallback(),
        allow=_entitlements(allow, network),
        sandbox=_sandbox(sandbox),
        secrets=_secrets(secret, ssh),
        contexts=dict(pair(text, "--build-context") for text in build_context),
        pull=pull,
        annotations=dict(pair(text, "--annotation") for text in annotation),
        unset_env=unsetenv,
        unset_labels=unsetlabel,
        squash="all" if squash_all else "new" if squash else "",
        epoch=_epoch(timestamp),
    )


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


def _entitlements(allow: Sequence[str], network: str) -> Entitlements | None:
    if not allow:
        return None
    from imagetool.build.entitlements import parse_entitlements

    return parse_entitlements(allow, network=network)


def _epoch(text: str | None) -> int | None:
    from imagetool.config.environment import source_date_epoch

    return source_date_epoch({"SOURCE_DATE_EPOCH": text}) if text else None


def _jobs(text: str | None) -> int | None:
    from imagetool.errors import UsageError

    if text is not None and (not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= 1024):
        raise UsageError(f"--jobs {text!r}: write a number from 1 to 1024")
    return int(text) if text else None


def _secrets(secret: Sequence[str], ssh: Sequence[str]) -> Secrets | None:
    if not secret and not ssh:
        return None
    from os import environ

    from imagetool.build.secrets import Secrets, parse_agent, parse_secret

    return Secrets(
        dict(parse_secret(text, environ) for text in secret), dict(parse_agent(text, environ) for text in ssh)
    )


def _sandbox(options: dict[str, Any]) -> Sandbox | None:
    """Read the options for containers; None, and nothing is loaded for them, when there are none."""
    if not any(options.values()):
        return None
    from imagetool.runtime.sandbox import parse_sandbox

    return parse_sandbox(**options)


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


def _record(
    answer: Answer, tags: Sequence[str], iidfile: str | None, metadata_file: str | None, *, answered: bool = False
) -> None:
    """Write the files that were asked for; see `resultfiles.record`, which few builds need."""
    if iidfile or metadata_file:
        from imagetool.cli.resultfiles import record

        record(answer, tags, iidfile, metadata_file, answered=answered)


def from_stdin() -> bytes:
    """Read a Dockerfile."""
    from imagetool import limits
    from imagetool.errors import UsageError

    text = sys.stdin.buffer.read(limits.DOCKERFILE_BYTES + 1)
    if not text.strip():
        raise UsageError("--file -: there is no Dockerfile on stdin")
    return text


def pair(text: str, option: str) -> tuple[str, str]:
    from imagetool.config.environment import utf8
    from imagetool.errors import UsageError

    name, equals, value = utf8(text, option).partition("=")
    if not name or (not equals and option != "--label"):
        raise UsageError(f"{option} {text!r}: write KEY=VALUE")
    return name, value


def base(globals: Globals, *, what: str, tag: str | None, progress: str) -> None:
    """Make a base image; print its name."""
    from imagetool import api
    from imagetool.cli.options import workplace

    with workplace(globals, progress) as place:
        name, _ = api.base(what, tag, place)
    sys.stdout.write(f"{name}\n")
