"""Rules about variables: in FROM and in the instructions of a stage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from imagetool.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Instruction,
    Label,
    Run,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from imagetool.dockerfile.lint.finding import Complaint
from imagetool.dockerfile.lint.subject import Step, Subject, traced
from imagetool.dockerfile.mounts import mount_values
from imagetool.dockerfile.wording import did_you_mean, printable
from imagetool.errors import InvalidReference
from imagetool.oci.platform import Platform
from imagetool.oci.reference import Reference

_OF_ONE_STEP: Final = 50  # more unknown names of one instruction are not reported
_SUGGESTIONS: Final = 30  # for so many unknown names a known one is looked for, which takes long among many
_TARGET: Final = "TARGETPLATFORM"
#: Words of a name that make it likely to hold a secret, and words that make it unlikely again.
_SECRET: Final = re.compile(
    r"(?:_|\A)(?:apikey|auth|credentials?|key|passw(?:or)?d|pword|secret|token)(?:_|\Z)", re.IGNORECASE
)
_HARMLESS: Final = re.compile(r"(?:_|\A)(?:public|file|version)(?:_|\Z)", re.IGNORECASE)


def undefined_arg_in_from(subject: Subject) -> Iterator[Complaint]:
    """Only platform arguments and ARGs before the first FROM mean anything in FROM."""
    for view in subject.stages:
        base = view.stage.base
        asked: set[str] = set()
        for word in (base.image, base.platform or ""):
            asked |= traced(base.source, word, subject.global_values).unset
        for name in sorted(asked - subject.global_names):
            message = f"no ARG before the first FROM declares {printable(name)!r}"
            yield Complaint(base.source, message + did_you_mean(name, subject.global_names), _about(base, name))


def invalid_default_arg_in_from(subject: Subject) -> Iterator[Complaint]:
    """Without any --build-arg, FROM should name an image that can exist."""
    for view in subject.stages:
        base = view.stage.base
        if "$" not in base.image:
            continue
        image = traced(base.source, base.image, subject.default_values).text
        try:
            Reference.parse(image)
        except InvalidReference:
            message = f"without build arguments {printable(base.image)!r} is {printable(image)!r}, no image's name"
            yield Complaint(base.source, message + ": give the ARG a default", base.image)


def redundant_target_platform(subject: Subject) -> Iterator[Complaint]:
    """The target platform is what FROM takes anyway."""
    for view in subject.stages:
        base = view.stage.base
        if base.platform is None:
            continue
        found = traced(base.source, base.platform, subject.global_values)
        if found.used == {_TARGET} and not found.unset and found.text == subject.global_values[_TARGET]:
            message = f"--platform={printable(base.platform)} is what FROM does without it"
            yield Complaint(base.source, message, f"--platform={base.platform}")


def from_platform_flag_const_disallowed(subject: Subject) -> Iterator[Complaint]:
    """A constant platform makes a file build for one platform only, unless the stage is named after it."""
    for view in subject.stages:
        base = view.stage.base
        if base.platform is None:
            continue
        found = traced(base.source, base.platform, subject.global_values)
        if found.used or found.unset:
            continue
        try:
            platform = Platform.parse(found.text)
        except InvalidReference:
            continue  # building says so
        name = base.name or ""
        if platform.os not in name and platform.architecture not in name:
            message = f"--platform={printable(base.platform)} is constant: use $BUILDPLATFORM or leave it to the build"
            yield Complaint(base.source, message, f"--platform={base.platform}")


def undefined_var(subject: Subject) -> Iterator[Complaint]:
    """A variable that nothing above defines is empty.

    A base image that is not at hand may define any; its variables are in upper case by custom. So one in upper case is
    reported only when one character of it makes the difference to a known one, or two that are swapped.
    """
    suggestions = _SUGGESTIONS
    for _, step in subject.steps():
        scope = step.scope
        for name in sorted(_asked(step) - scope.declared)[:_OF_ONE_STEP]:
            suggestions -= 1
            known = scope.values.keys() | scope.declared if suggestions > 0 else set()
            meant = did_you_mean(name, known)
            if scope.complete or name != name.upper() or any(_slip(name, other) for other in known):
                yield Complaint(
                    step.instruction.source,
                    f"nothing above defines ${printable(name)}{meant}",
                    _about(step.instruction, name),
                )


def _slip(name: str, other: str) -> bool:
    """Say whether one character is missing, wrong or too much, or two neighbours are swapped."""
    while name and other and name[0] == other[0]:
        name, other = name[1:], other[1:]
    while name and other and name[-1] == other[-1]:
        name, other = name[:-1], other[:-1]
    return max(len(name), len(other)) < 2 or (len(name) == 2 and name == other[::-1])


def _asked(step: Step) -> set[str]:
    """Return the variables that an instruction asks for and that have no value; not those that nobody can set."""
    asked: set[str] = set()
    values = {**dict.fromkeys(step.scope.declared, "declared"), **step.scope.values}
    arguments = isinstance(step.instruction, Arg)
    for text, is_body in _words(step.instruction):
        found = traced(step.instruction.source, text, values, is_body=is_body)
        asked |= {name for name in found.unset if name[0].isalpha() or name[0] == "_"}
        if arguments:  # each of its pairs sees those before it
            name, _, _ = text.partition("=")
            values.setdefault(name, "declared")
    return asked


def _words(instruction: Instruction) -> Iterator[tuple[str, bool]]:
    """Yield the texts of an instruction that are expanded, and whether each is the body of a heredoc."""
    texts: list[str] = []
    match instruction:
        case Copy() | Add():
            texts = [*instruction.sources, instruction.dest, instruction.chown or "", instruction.chmod or ""]
            if isinstance(instruction, Add):
                texts.append(instruction.checksum or "")
            yield from ((heredoc.body, True) for heredoc in instruction.heredocs if heredoc.expand)
        case Env() | Label():
            texts = [text for pair in instruction.pairs for text in pair]
        case Arg():
            texts = [f"{name}={default}" for name, default in instruction.pairs if default is not None]
        case Expose(ports=ports):
            texts = list(ports)
        case Volume(paths=paths):
            texts = list(paths)
        case Workdir(path=text) | User(user=text) | Stopsignal(signal=text):
            texts = [text]
        case Run(mounts=mounts):
            texts = [value for mount in mounts for value in mount_values(mount.text)]
    yield from ((text, False) for text in texts)


def _about(instruction: Instruction, name: str) -> str:
    """Return how a variable is written in an instruction: `$name`, or the beginning of `${name…}`."""
    text = instruction.source.original
    return next((form for form in (f"${{{name}", f"${name}") if form in text), "")


def secrets_used_in_arg_or_env(subject: Subject) -> Iterator[Complaint]:
    """Values of ARG and ENV stay in the image's history and configuration."""
    for _, step in subject.steps():
        if isinstance(step.instruction, Arg | Env):
            keyword = step.instruction.source.keyword.upper()
            for name, _ in step.instruction.pairs:
                if _SECRET.search(name) and not _HARMLESS.search(name):
                    yield Complaint(
                        step.instruction.source,
                        f"{keyword} {printable(name)} would keep a secret in the image: use RUN --mount=type=secret",
                        name,
                    )
