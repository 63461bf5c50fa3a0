"""The lint: BuildKit's build checks, by their names, as pure functions over a parsed Dockerfile.

`lint` finds, `imagetool.dockerfile.lint.report` draws. docs/reference/lint.md shows a bad and a good example per rule.
"""

from imagetool.dockerfile.lint.finding import Finding, Rule
from imagetool.dockerfile.lint.options import CheckOptions
from imagetool.dockerfile.lint.report import FORMATS, render
from imagetool.dockerfile.lint.rules import RULES
from imagetool.dockerfile.lint.run import Report, lint
from imagetool.dockerfile.lint.subject import BaseImage

__all__ = ["FORMATS", "RULES", "BaseImage", "CheckOptions", "Finding", "Report", "Rule", "lint", "render"]
