"""All rules over one Dockerfile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from imagetool.dockerfile.ignore import IgnoreRules
from imagetool.dockerfile.lint.comments import instruction_options
from imagetool.dockerfile.lint.finding import Complaint, Finding, Level, Rule
from imagetool.dockerfile.lint.options import CheckOptions
from imagetool.dockerfile.lint.rules import RULES
from imagetool.dockerfile.lint.subject import BaseImage, view
from imagetool.dockerfile.parser import Dockerfile
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.span import Span
from imagetool.errors import DockerfileError
from imagetool.oci.platform import Platform
from imagetool.values import dataclass

#: So many findings of one rule in one instruction are reported; more would say the same.
_OF_ONE_KIND = 20
#: The build argument that stands for a `# check=` directive, as in BuildKit.
CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"


@dataclass(frozen=True, slots=True)
class Report:
    """What the lint found in one file, in order of lines.

    Attributes:
        error: whether the file or the caller wants findings to fail a build.
    """

    file: str
    findings: tuple[Finding, ...]
    error: bool = False


def lint(
    dockerfile: Dockerfile,
    *,
    ignore: IgnoreRules | None = None,
    build_args: Mapping[str, str] | None = None,
    platform: Platform | None = None,
    bases: Callable[[str], BaseImage | None] | None = None,
    rules: Iterable[Rule] = RULES,
) -> Report:
    """Check a Dockerfile, all stages of it.

    Args:
        ignore: the rules of the context's ignore file; without them nothing is said about ignored files.
        build_args: BUILDKIT_DOCKERFILE_CHECK among them overrides the file's `# check=` directive.
        bases: what is known of an image by the name in FROM; None for one that is not at hand.

    Raises:
        DockerfileError: a `# check=` that cannot be read, or an expansion that can never work, with its place; more
            instructions or variables than the lint looks at.
    """
    given = build_args or {}
    subject = view(
        dockerfile, ignore=ignore, build_args=given, platform=platform or Platform(), bases=bases or _unknown
    )
    options = _file_options(dockerfile, given)
    directives = dockerfile.directives.last_line
    findings: list[Finding] = []
    for rule in rules:
        seen: Counter[int] = Counter()
        for complaint in rule.check(subject):
            seen[complaint.source.first_line] += 1
            if seen[complaint.source.first_line] > _OF_ONE_KIND:
                continue
            local = options.merged(instruction_options(complaint.source, directives))
            if local.wants(rule.name, experimental=rule.experimental):
                findings.append(_finding(rule, complaint, options))
    findings.sort(key=lambda finding: (finding.span, finding.rule.name))
    return Report(dockerfile.file, tuple(findings), options.error)


def _unknown(image: str) -> None:
    """Know nothing of any image."""


def _file_options(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> CheckOptions:
    if CHECK_ARG in build_args:
        try:
            return CheckOptions.parse(build_args[CHECK_ARG])
        except DockerfileError as error:
            raise DockerfileError(f"{CHECK_ARG}: {error.message}", file=dockerfile.file) from None
    try:
        return CheckOptions.parse(dockerfile.directives.check or "")
    except DockerfileError as error:
        lines = dockerfile.stages[0].base.source.lines
        directives = enumerate(lines[: dockerfile.directives.last_line], 1)
        number = next(number for number, line in directives if line.lstrip("#\ufeff \t").lower().startswith("check"))
        raise Source(dockerfile.file, number, number, lines=lines).placed(error) from None


def _finding(rule: Rule, complaint: Complaint, options: CheckOptions) -> Finding:
    level: Level = "error" if options.error else "note" if rule.experimental else "warning"
    source = complaint.source
    span = complaint.span or source.find(complaint.about) or source.find(source.keyword)
    return Finding(rule, span or Span(source.first_line, 1, source.first_line, 1), complaint.message, level, source)
