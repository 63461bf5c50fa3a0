"""Editing a Dockerfile: dockerfile-parse's editor over our own parser.

dockerfile-parse keeps a file's lines and changes base images, labels and variables in them; all of that rests on one
property, `structure`, and its own takes heredoc bodies for instructions. Here `structure` is what our parser reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, cast

from dockerfile_parse import DockerfileParser
from dockerfile_parse.constants import COMMENT_INSTRUCTION

from imagetool.dockerfile.lines import Lines, read_lines
from imagetool.dockerfile.statement import split_fields, split_first, split_statement, split_words
from imagetool.dockerfile.words import SPACE, expand
from imagetool.errors import DockerfileError

_LINE_ENDS: Final = r"(?<=\n)"


class Dockerfile(DockerfileParser):  # type: ignore[misc]
    """An editable Dockerfile; its constructor and methods are those of dockerfile_parse.DockerfileParser.

    Properties raise DockerfileError where the file cannot be split into instructions. Instructions that do not exist
    are let through: an editor need not understand what it does not touch.
    """

    @property
    def lines(self) -> list[str]:
        """The physical lines with their line ends; only a newline ends one."""
        try:
            lines = cast("list[str]", super().lines)
        except UnicodeDecodeError as error:
            raise DockerfileError(f"not UTF-8 text, so it cannot be edited: {error.reason}") from None
        return [line for line in re.split(_LINE_ENDS, "".join(lines)) if line]

    @lines.setter
    def lines(self, lines: list[str]) -> None:
        DockerfileParser.lines.fset(self, lines)

    @property
    def structure(self) -> list[dict[str, Any]]:
        """The comments, and the instructions that have a value; a comment inside an instruction comes before it.

        Each has `instruction` (upper case, or COMMENT), `startline` and `endline` (0-based, heredocs included),
        `content` (the lines as written, without comments inside) and `value` (the logical line after the keyword).
        """
        lines = self.lines
        found = read_lines("".join(lines))
        entries: list[dict[str, Any]] = []
        at = 0
        for line in found.logical:
            comments = _comments(found, at, line.text_last_line)
            entries += [_comment(number, lines) for number in comments]
            _, value = split_first(line.text.strip(SPACE))
            if value:
                keyword, _, _ = split_statement(line.text, found.directives.escape)
                written = range(line.first_line - 1, line.last_line)
                content = "".join(lines[number] for number in written if number not in comments)
                entries.append(_entry(keyword, written[0], written[-1], content, value))
            at = line.last_line
        return entries + [_comment(number, lines) for number in _comments(found, at, len(found.physical))]

    @property
    def parent_images(self) -> list[str]:
        """The image or stage each FROM names, global ARGs and build arguments put in."""
        found = read_lines("".join(self.lines))
        escape = found.directives.escape
        env: dict[str, str] = {}
        images: list[str] = []
        for line in found.logical:
            keyword, _, arguments = split_statement(line.text, escape)
            try:
                if keyword == "FROM" and arguments:
                    images.append(expand(split_fields(arguments)[0], env, escape))
                elif keyword == "ARG" and not images:
                    self._declare(split_words(arguments, escape), env, escape)
            except DockerfileError as error:
                raise line.source("Dockerfile", found.physical, escape).placed(error) from None
        return images

    @parent_images.setter
    def parent_images(self, images: Iterable[str]) -> None:
        """Rewrite the image of every FROM that changes; flags and stage name stay as written."""
        wanted = list(images)
        old = self.parent_images
        if len(wanted) != len(old):
            raise ValueError(f"{len(wanted)} images for {len(old)} stages")
        lines = self.lines
        froms = [entry for entry in self.structure if entry["instruction"] == "FROM" and entry["value"]]
        for entry, before, after in reversed(list(zip(froms, old, wanted, strict=True))):
            if before != after:
                lines[entry["startline"] : entry["endline"] + 1] = [_from_line(entry["value"], after)]
        self.lines = lines

    def _declare(self, words: Iterable[str], env: dict[str, str], escape: str) -> None:
        for word in words:
            name, equals, default = word.partition("=")
            if name in self.build_args:
                env[name] = self.build_args[name]
            elif equals:
                env[name] = expand(default, env, escape)


def _from_line(value: str, image: str) -> str:
    """Return a FROM line with another image. What stands before and after the image is kept."""
    fields = split_fields(value)
    at = next(number for number, field in enumerate(fields) if not field.startswith("--"))
    return " ".join(["FROM", *fields[:at], image, *fields[at + 1 :]]) + "\n"


def _comments(found: Lines, first: int, end: int) -> list[int]:
    return [at for at in range(first, end) if found.physical[at].lstrip(SPACE).startswith("#")]


def _comment(at: int, lines: list[str]) -> dict[str, Any]:
    text = lines[at].lstrip(SPACE + "\ufeff").removeprefix("#")
    return _entry(COMMENT_INSTRUCTION, at, at, lines[at], text.lstrip(SPACE).rstrip("\r\n"))


def _entry(instruction: str, start: int, end: int, content: str, value: str) -> dict[str, Any]:
    return {"instruction": instruction, "startline": start, "endline": end, "content": content, "value": value}
