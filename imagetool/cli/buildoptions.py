"""What the options of `build` mean: loaded only when one is carried out."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from imagetool.api import BuildOptions
    from imagetool.build.entitlements import Entitlements
    from imagetool.build.secrets import Secrets
    from imagetool.runtime.sandbox import Sandbox


def redacting(secrets: Secrets | None) -> Callable[[str], str]:
    """Return what takes a build's secrets out of a text."""

    def redact(text: str) -> str:
        if secrets is None:
            return text
        redactor = secrets.redactor()
        return (redactor.feed(text.encode(errors="surrogatepass")) + redactor.end()).decode("utf-8", "replace")

    return redact


def build_options(
    how: Mapping[str, Any],
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
    """Return what the options of the command line mean together with `how`.

    It is long because it is a table: every option has a line where it comes in and one where it goes.
    """
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
        secrets=build_secrets(secret, ssh),
        contexts=dict(pair(text, "--build-context") for text in build_context),
        pull=pull,
        annotations=dict(pair(text, "--annotation") for text in annotation),
        unset_env=unsetenv,
        unset_labels=unsetlabel,
        squash="all" if squash_all else "new" if squash else "",
        epoch=_epoch(timestamp),
    )


def _entitlements(allow: Sequence[str], network: str) -> Entitlements | None:
    if not allow:
        return None
    from imagetool.build.entitlements import parse_entitlements

    return parse_entitlements(allow, network=network)


def _epoch(text: str | None) -> int | None:
    from imagetool.config.environment import source_date_epoch

    return source_date_epoch({"SOURCE_DATE_EPOCH": text}) if text else None


def cache_options(
    no_cache: bool,
    no_cache_filter: Sequence[str],
    explain_cache: bool,
    cache_from: Sequence[str],
    cache_to: Sequence[str],
) -> dict[str, Any]:
    """Return the fields of BuildOptions that say which cache is asked and told."""
    uncached = [name for text in no_cache_filter for name in text.split(",")]
    fields: dict[str, Any] = {"use_cache": not no_cache, "uncached": uncached, "explain": explain_cache}
    if cache_from or cache_to:
        from imagetool.verbs.buildcache import CachePlace

        fields["cache_from"] = [CachePlace.parse(text, "--cache-from") for text in cache_from]
        fields["cache_to"] = [CachePlace.parse(text, "--cache-to") for text in cache_to]
    return fields


def job_count(text: str | None) -> int | None:
    """Read --jobs, None when it is not given. Raises UsageError."""
    from imagetool.errors import UsageError

    if text is not None and (not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= 1024):
        raise UsageError(f"--jobs {text!r}: write a number from 1 to 1024")
    return int(text) if text else None


def build_secrets(secret: Sequence[str], ssh: Sequence[str]) -> Secrets | None:
    """Read --secret and --ssh, and the files that they name; None when there are none."""
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


def from_stdin() -> bytes:
    """Read a Dockerfile from stdin, one byte more than may be, so that the parser refuses it. UsageError for none."""
    from imagetool import limits
    from imagetool.errors import UsageError

    text = sys.stdin.buffer.read(limits.DOCKERFILE_BYTES + 1)
    if not text.strip():
        raise UsageError("--file -: there is no Dockerfile on stdin")
    return text


def pair(text: str, option: str) -> tuple[str, str]:
    """Split KEY=VALUE; --label may have no value. Raises UsageError that names the option."""
    from imagetool.config.environment import utf8
    from imagetool.errors import UsageError

    name, equals, value = utf8(text, option).partition("=")
    if not name or (not equals and option != "--label"):
        raise UsageError(f"{option} {text!r}: write KEY=VALUE")
    return name, value
