"""`build --check`: the lint of a Dockerfile, with what the local store knows of its base images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from imagetool.errors import ChecksFailed, InvalidReference, NotFound
from imagetool.oci.platform import Platform
from imagetool.transports.local import resolve
from imagetool.verbs.buildoptions import BuildOptions, dockerfile_of, shown_name
from imagetool.verbs.workplace import Workplace

if TYPE_CHECKING:
    from imagetool.dockerfile import Dockerfile, IgnoreRules
    from imagetool.dockerfile.lint import Report


def check(context: Path, options: BuildOptions, place: Workplace) -> Report:
    """Lint the Dockerfile of a directory. Nothing is built or pulled: of base images only local ones are known."""
    from imagetool.build.contexts import Opened, find_ignore
    from imagetool.build.worker import Unwatched
    from imagetool.dockerfile import parse

    opened = Opened(context)
    path, text = dockerfile_of(opened, options, Unwatched())
    dockerfile = parse(text, file=shown_name(path, options))
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


def _lint(dockerfile: Dockerfile, ignore: IgnoreRules, options: BuildOptions, place: Workplace) -> Report:
    from imagetool.dockerfile.lint import BaseImage, lint
    from imagetool.image.image import load

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
