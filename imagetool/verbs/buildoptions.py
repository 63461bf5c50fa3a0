"""How an image is to be built, and which Dockerfile that names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from imagetool.errors import Unsupported
from imagetool.oci.platform import Platform
from imagetool.values import dataclass, field

if TYPE_CHECKING:
    from imagetool.build.contexts import Opened
    from imagetool.build.entitlements import Entitlements
    from imagetool.build.secrets import Secrets
    from imagetool.build.worker import Witness
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.streams.codecs import Codec
    from imagetool.verbs.buildcache import CachePlace

#: What buildah has cpp read in a file whose name ends with .in; to Dockerfiles these are comments.
_CPP_LINE: Final = re.compile(rb"^#\s*(?:include\s*[<\"]|define\s|undef\s|ifn?def\s|if\s|endif\b)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build; see `imagetool build --help`.

    text: a Dockerfile that is in no file.
    contexts: what --build-context gives, by name.
    checks: tell the observer what the lint finds, too.
    allow: what steps may have beyond the usual; None for nothing.
    keep_on_failure: make a working container of what a failing RUN leaves.
    epoch: the moment of the build, in seconds; None for SOURCE_DATE_EPOCH or the commit's.
    preserve_times, rewrite_times: see `build.worker.Times`.
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
    rewrite_times: bool = False
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
    keep_on_failure: bool = False
    allow: Entitlements | None = None
    checks: bool = True

    def is_on(self, argument: str) -> bool:
        """Whether a build argument that switches something on does so."""
        return self.build_args.get(argument, "") in ("1", "true")


def dockerfile_of(opened: Opened, options: BuildOptions, witness: Witness) -> tuple[Path, bytes]:
    """Return the path and the text of the Dockerfile; raises as `build.contexts.find_dockerfile`."""
    from imagetool.build.contexts import find_dockerfile

    if options.text is not None:
        witness.opaque()
        return options.file or opened.folder / "Dockerfile", options.text
    path, text = find_dockerfile(opened, options.file, witness)
    if path.suffix == ".in" and _CPP_LINE.search(text):
        raise Unsupported(
            f"{path} is for the C preprocessor, which is not run here: "
            f"cpp -E -P -traditional {path} | imagetool build --file - …"
        )
    return path, text


def shown_name(path: Path, opened: Opened, options: BuildOptions) -> str:
    """Return how messages call the Dockerfile: as the user did, or from where the user or the context is."""
    if options.text is not None:
        return "Dockerfile"
    if opened.foreign:
        return os.path.relpath(path, opened.folder)
    return str(path) if options.file else os.path.relpath(path)
