"""`build --check`: the lint of a Dockerfile, with what the local store knows of its base images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from imagetool import __version__
from imagetool.build.cache import key_of
from imagetool.errors import ChecksFailed, DockerfileError, InvalidReference, NotFound
from imagetool.progress import CheckFound, Note
from imagetool.transports.local import resolve
from imagetool.verbs.buildoptions import BuildOptions, dockerfile_of, shown_name
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.dockerfile import Dockerfile, IgnoreRules
    from imagetool.dockerfile.lint import Report
    from imagetool.image.image import Image


def check(context: Path | str, options: BuildOptions, place: Workplace, *, stdin: BinaryIO | None = None) -> Report:
    """Lint the Dockerfile of a context. Nothing is built or pulled: of base images only local ones are known.

    Args:
        context, stdin: as of `build`.
    """
    from imagetool.build.contexts import find_ignore
    from imagetool.build.worker import Unwatched
    from imagetool.dockerfile import parse
    from imagetool.verbs.contexts import opened_context

    with opened_context(context, options, place, stdin=stdin) as opened:
        path, text = dockerfile_of(opened, options, Unwatched())
        dockerfile = parse(text, file=shown_name(path, opened, options))
        return _lint(dockerfile, find_ignore(opened, path, Unwatched()), options, place)


def refuse_findings(dockerfile: Dockerfile, ignore: IgnoreRules, options: BuildOptions, place: Workplace) -> None:
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


def tell_findings(
    dockerfile: Dockerfile, ignore: IgnoreRules, options: BuildOptions, place: Workplace, image: Image | None
) -> None:
    """Tell the observer what the lint finds in a Dockerfile that has been built, to `image`, or has failed to.

    The lint takes as long as half a cached build, so what it found is remembered for the image that came out.
    """
    key = ""
    found: list[list[Any]] | None = None
    if image is not None:
        source = dockerfile.stages[0].base.source.lines
        about = [source, repr(ignore), sorted(options.build_args.items()), str(image.config.descriptor.digest)]
        key = key_of(checks=about, program=__version__)
        remembered = (place.cache.facts(key) or {}).get("found")
        found = remembered if isinstance(remembered, list) else None
    if found is None:
        try:
            findings = _lint(dockerfile, ignore, options, place).findings
        except DockerfileError as error:
            place.observer(Note(f"the checks were not carried out: {error}", "warning"))
            return
        found = [[finding.rule.name, finding.detail, finding.line] for finding in findings]
        if key:
            place.cache.record_facts(key, {"found": found})
    if found:
        count = "1 warning" if len(found) == 1 else f"{len(found)} warnings"
        place.observer(Note(f"{count} found (build --check shows more):"))
    for rule, text, line in found:
        place.observer(CheckFound(rule, text, dockerfile.file, line))


def _lint(dockerfile: Dockerfile, ignore: IgnoreRules, options: BuildOptions, place: Workplace) -> Report:
    from imagetool.dockerfile.lint import BaseImage, lint
    from imagetool.image.image import load, this_platform

    platform = options.platform or this_platform()

    def known(name: str) -> BaseImage | None:
        if not place.root.exists():
            return None
        try:
            config = load(place.store, resolve(place.store, name), platform=platform).config
        except (NotFound, InvalidReference):
            return None
        return BaseImage(str(config.platform), config.run.environment, shell=bool(config.run.shell))

    return lint(dockerfile, ignore=ignore, build_args=options.build_args, platform=platform, bases=known)
