"""Rules about what instructions do: commands, directories, ports, files, base images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from imagetool.dockerfile.instructions import (
    Add,
    Cmd,
    Copy,
    Entrypoint,
    Expose,
    Healthcheck,
    Instruction,
    Shell,
    ShellForm,
    Workdir,
)
from imagetool.dockerfile.lint.finding import Complaint
from imagetool.dockerfile.lint.subject import Subject, traced
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.values import context_path, is_remote
from imagetool.dockerfile.wording import printable
from imagetool.errors import InvalidReference
from imagetool.oci.platform import Platform

_ABSOLUTE: Final = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_EVERYTHING: Final = ("*", "**", "**/*")


def json_args_recommended(subject: Subject) -> Iterator[Complaint]:
    """A shell between the runtime and the program keeps signals from it; a SHELL says that it is meant."""
    for view in subject.stages:
        has_shell = view.has_shell
        for step in view.steps:
            instruction = step.instruction
            has_shell = has_shell or isinstance(instruction, Shell)
            if not has_shell and isinstance(instruction, Cmd | Entrypoint):
                command = instruction.command
                if isinstance(command, ShellForm) and command.line:
                    keyword = instruction.source.keyword.upper()
                    message = f'write {keyword} in JSON form, ["program", "argument"], so that it gets signals'
                    yield Complaint(instruction.source, message)


def multiple_instructions_disallowed(subject: Subject) -> Iterator[Complaint]:
    """Of several CMD, ENTRYPOINT or HEALTHCHECK only the last one counts."""
    for view in subject.stages:
        last: dict[type, Instruction] = {}
        for step in view.steps:
            instruction = step.instruction
            if not isinstance(instruction, Cmd | Entrypoint | Healthcheck):
                continue
            hidden = last.get(type(instruction))
            if hidden:
                keyword = hidden.source.keyword.upper()
                line = instruction.source.first_line
                yield Complaint(hidden.source, f"this {keyword} has no effect: the one in line {line} replaces it")
            last[type(instruction)] = instruction


def workdir_relative_path(subject: Subject) -> Iterator[Complaint]:
    """A relative WORKDIR depends on the base image's, unless an absolute one comes before it."""
    for view in subject.stages:
        if view.has_workdir:
            continue
        first = next((step for step in view.steps if isinstance(step.instruction, Workdir)), None)
        if first is None or not isinstance(first.instruction, Workdir):
            continue
        path = first.word(first.instruction.path)
        if path is not None and not _ABSOLUTE.match(path):
            message = f"WORKDIR {printable(path)} depends on the working directory of the base image: begin it with /"
            yield Complaint(first.instruction.source, message, first.instruction.path)


def expose_proto_casing(subject: Subject) -> Iterator[Complaint]:
    """Protocols are in lower case."""
    for source, written, port in _ports(subject):
        _, _, protocol = port.partition("/")
        if protocol != protocol.lower():
            yield Complaint(source, f"the protocol in {printable(port)!r} is not in lower case", written)


def expose_invalid_format(subject: Subject) -> Iterator[Complaint]:
    """EXPOSE says where the container listens; addresses and ports of the host belong to its start."""
    for source, written, port in _ports(subject):
        host, colon, _ = port.rpartition(":")
        if colon and host.strip(":"):
            yield Complaint(source, f"{printable(port)!r} names an address or port of the host: it is ignored", written)


def _ports(subject: Subject) -> Iterator[tuple[Source, str, str]]:
    for _, step in subject.steps():
        if isinstance(step.instruction, Expose):
            for written in step.instruction.ports:
                for port in (step.word(written) or "").split():
                    yield step.instruction.source, written, port


def copy_ignored_file(subject: Subject) -> Iterator[Complaint]:
    """What the ignore file leaves out is not there to be copied. Nothing is said where it takes files back in."""
    ignore = subject.ignore
    if ignore is None or any(rule.keeps for rule in ignore.rules):
        return
    everything = any(rule.pattern in _EVERYTHING for rule in ignore.rules)
    for _, step in subject.steps():
        instruction = step.instruction
        if not isinstance(instruction, Copy | Add) or (isinstance(instruction, Copy) and instruction.from_):
            continue
        for written in instruction.sources:
            source = step.word(written)
            if source is None or is_remote(source):
                continue
            path = context_path(source)
            if ignore.excludes(path) if path else everything:
                keyword = instruction.source.keyword.upper()
                message = f"{keyword} finds no {printable(source)!r}: the ignore file leaves it out"
                yield Complaint(instruction.source, message, written)


def invalid_base_image_platform(subject: Subject) -> Iterator[Complaint]:
    """An image that is at hand is for another platform than the one the stage is built for."""
    for view in subject.stages:
        base = view.stage.base
        if view.base is None:
            continue
        try:
            text = traced(base.source, base.platform or "", subject.global_values).text
            wanted = Platform.parse(text) if text else subject.platform
            found = Platform.parse(view.base.platform)
        except InvalidReference:
            continue  # building says so
        if (found.os, found.architecture) != (wanted.os, wanted.architecture):
            message = f"{printable(base.image)!r} is an image for {found}, the build is for {wanted}"
            yield Complaint(base.source, message, base.image)
