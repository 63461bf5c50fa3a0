"""Findings as text, JSON, SARIF 2.1.0, GitHub annotations and GitLab code quality. Pure: text in, text out.

Source: SARIF 2.1.0 (OASIS), section 3; GitHub, "Workflow commands"; GitLab, "Code Quality report format".
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from imagetool.dockerfile.excerpt import excerpt
from imagetool.dockerfile.lint.finding import Finding
from imagetool.dockerfile.lint.rules import RULES
from imagetool.dockerfile.lint.run import Report
from imagetool.dockerfile.wording import printable

_SARIF: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_SEVERITIES: Final = {"note": "info", "warning": "minor", "error": "major"}
_GITHUB: Final = {"note": "notice", "warning": "warning", "error": "error"}


def render(reports: Sequence[Report], form: str, *, version: str = "") -> str:
    """Return the findings of several files in one of FORMATS, ending in a newline; text may be empty.

    Args:
        version: of the program, which SARIF asks for.

    Raises:
        KeyError: there is no such format.
    """
    findings = [finding for report in reports for finding in report.findings]
    return FORMATS[form](findings, version)


def _text(findings: Sequence[Finding], _: str) -> str:
    blocks = []
    for finding in findings:
        shown = excerpt(finding.source.lines, finding.span.line, finding.span.end_line, finding.span)
        head = f"{printable(finding.file)}:{finding.line}: {finding.level}: {finding.rule.name}: {finding.detail}"
        blocks.append(f"{head}\n{shown}\n")
    return "".join(blocks)


def _json(findings: Sequence[Finding], _: str) -> str:
    rows = [
        {
            "rule": finding.rule.name,
            "level": finding.level,
            "file": finding.file,
            "line": finding.span.line,
            "column": finding.span.column,
            "endLine": finding.span.end_line,
            "endColumn": finding.span.end_column,
            "message": finding.detail,
            "summary": finding.rule.summary,
            "docs": finding.rule.anchor,
        }
        for finding in findings
    ]
    return _dumped({"findings": rows})


def _sarif(findings: Sequence[Finding], version: str) -> str:
    names = [rule.name for rule in RULES]
    rules = [
        {
            "id": rule.name,
            "shortDescription": {"text": rule.summary},
            "help": {"text": f"See {rule.anchor}."},
            "defaultConfiguration": {"level": "note" if rule.experimental else "warning"},
        }
        for rule in RULES
    ]
    results = [
        {
            "ruleId": finding.rule.name,
            "ruleIndex": names.index(finding.rule.name),
            "level": finding.level,
            "message": {"text": finding.detail},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(finding.file)},
                        "region": {
                            "startLine": finding.span.line,
                            "startColumn": finding.span.column,
                            "endLine": finding.span.end_line,
                            "endColumn": finding.span.end_column,
                        },
                    }
                }
            ],
            "partialFingerprints": {"imagetool/v1": mark},
        }
        for finding, mark in zip(findings, _fingerprints(findings), strict=True)
    ]
    driver = {"name": "imagetool", "version": version, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return _dumped({"$schema": _SARIF, "version": "2.1.0", "runs": [run]})


def _github(findings: Sequence[Finding], _: str) -> str:
    lines = []
    for finding in findings:
        span = finding.span
        places = f"line={span.line},col={span.column},endLine={span.end_line}"
        if span.end_line == span.line:  # across lines, GitHub takes no columns
            places += f",endColumn={span.end_column}"
        lines.append(
            f"::{_GITHUB[finding.level]} file={_property(finding.file)},{places},"
            f"title={_property(finding.rule.name)}::{_escaped(finding.detail)}\n"
        )
    return "".join(lines)


def _gitlab(findings: Sequence[Finding], _: str) -> str:
    rows = [
        {
            "description": f"{finding.rule.name}: {finding.detail}",
            "check_name": finding.rule.name,
            "fingerprint": mark,
            "severity": _SEVERITIES[finding.level],
            "location": {
                "path": finding.file,
                "lines": {"begin": finding.span.line, "end": finding.span.end_line},
            },
        }
        for finding, mark in zip(findings, _fingerprints(findings), strict=True)
    ]
    return _dumped(rows)


def _fingerprints(findings: Sequence[Finding]) -> list[str]:
    """Return what stays the same when lines move: rule, file, the line and the column in it, and how often before."""
    seen: Counter[str] = Counter()
    marks = []
    for finding in findings:
        text = finding.source.lines[finding.line - 1].strip() if finding.source.lines else ""
        known = "\0".join((finding.rule.name, finding.file, text, str(finding.span.column)))
        marks.append(hashlib.sha256(f"{known}\0{seen[known]}".encode("utf-8", "replace")).hexdigest())
        seen[known] += 1
    return marks


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(path)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _dumped(tree: Any) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


FORMATS: Final[dict[str, Callable[[Sequence[Finding], str], str]]] = {
    "text": _text,
    "json": _json,
    "sarif": _sarif,
    "github": _github,
    "gitlab": _gitlab,
}
