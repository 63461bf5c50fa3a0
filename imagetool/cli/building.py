"""`build` and `base`: make images."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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
        from imagetool.cli import checking

        about = {"build_arg": wanted["build_arg"]}
        about["file"] = _one_file(wanted["file"])
        about["platform"] = ",".join(wanted["platform"]).partition(",")[0] or None
        checking.check(globals, context=context, **about)
        return
    from imagetool.build.unchanged import Watch, find, request
    from imagetool.config.environment import build_argument, source_date_epoch_text, store_root_text

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
        if progress == "plain" or (progress == "auto" and not sys.stderr.isatty()):
            from imagetool.cli.lines import answered_lines

            sys.stderr.write("".join(f"{line}\n" for line in answered_lines(known.shown)))
        elif progress != "quiet":
            from imagetool.cli.replay import replay

            replay(known, progress)
        if timeline:
            from imagetool.cli.replay import draw

            secrets = _secrets(wanted["secret"], wanted["ssh"])
            draw(known, timeline, title=_title(context, wanted["tag"]), redact=_redact(secrets))
        record(known, wanted["tag"], iidfile, metadata_file, answered=True)
        sys.stdout.write(f"{known.identity}\n")
        return

    from imagetool import api
    from imagetool.cli.display import tee, watched
    from imagetool.cli.options import plain_workplace
    from imagetool.cli.outputs import Output
    from imagetool.cli.replay import noting

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
    watch = Watch(root, asked)
    with seen as (shown, built):
        place = plain_workplace(globals, tee(noting(watch), shown))
        image = api.build(context, options, place, witness=watch, stdin=sys.stdin.buffer)
        for one in outputs:
            one.write(image, place, name=options.tags[0] if options.tags else "")
        built(str(image.config.descriptor.digest))
    answer = _remember(watch, image, options.tags)
    record(answer, options.tags, iidfile, metadata_file)
    result = sys.stderr if any(one.is_stdout for one in outputs) else sys.stdout
    result.write(f"{answer.identity}\n")


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
    record(answer, options.tags, iidfile, metadata_file)
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


def from_stdin() -> bytes:
    """Read a Dockerfile."""
    from imagetool import limits
    from imagetool.errors import UsageError

    text = sys.stdin.buffer.read(limits.DOCKERFILE_BYTES + 1)
    if not text.strip():
        raise UsageError("--file -: there is no Dockerfile on stdin")
    return text


def forget(iidfile: str | None) -> None:
    """Remove what an earlier build wrote to --iidfile: one that fails must not leave another image's ID, as docker."""
    from os import unlink
    from os.path import isfile

    if iidfile and isfile(iidfile):
        from imagetool.content.staging import storage_errors

        with storage_errors(f"cannot remove {iidfile}"):
            unlink(iidfile)


def record(
    answer: Answer, tags: Sequence[str], iidfile: str | None, metadata_file: str | None, *, answered: bool = False
) -> None:
    """Write --iidfile and --metadata-file, whole and only after everything else has worked.

    The names are docker's; `imagetool.steps` is ours. answered: nothing was carried out for it.
    """
    if not iidfile and not metadata_file:
        return
    import json
    from pathlib import Path

    from imagetool.content.staging import replace_file

    if iidfile:
        replace_file(Path(iidfile), answer.identity.encode())
    if metadata_file:
        from imagetool.oci.reference import Reference

        known: dict[str, Any] = {}
        if answer.identity != answer.descriptor["digest"]:  # an index has no config
            known["containerimage.config.digest"] = answer.identity
        known["containerimage.descriptor"] = answer.descriptor
        known["containerimage.digest"] = answer.descriptor["digest"]
        if tags:
            known["image.name"] = ",".join(str(Reference.parse(tag).with_default_tag()) for tag in tags)
        if answer.shown:
            known["imagetool.steps"] = list(_steps(answer, answered=answered))
        replace_file(Path(metadata_file), json.dumps(known, indent=2).encode() + b"\n")


def _steps(answer: Answer, *, answered: bool) -> Iterator[dict[str, Any]]:
    """Yield what --metadata-file tells of the steps: whether the cache had them, and how long they took."""
    names: dict[int, tuple[str, str]] = {}
    for kind, *fields in answer.shown:
        if kind == "step":
            names[fields[0]] = fields[3], fields[2]
        elif kind == "done":
            number, layer, size, key, cached, seconds = fields
            stage, name = names[number]
            known = {"number": number, "stage": stage, "name": name, "layer": layer, "size": size, "key": key}
            yield {
                **known,
                "cached": bool(layer) if answered else cached,
                "seconds": 0.0 if answered else round(seconds, 3),
            }


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
