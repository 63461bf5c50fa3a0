"""Variables put into an instruction, in exactly the fields where BuildKit puts them.

Expanded: ADD, COPY, ENV, EXPOSE, FROM, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR, the defaults of ARG, the values of
RUN --mount. Not expanded: the commands of RUN, CMD, ENTRYPOINT and HEALTHCHECK, SHELL, ONBUILD, MAINTAINER,
`COPY --from`, `--exclude`, and names of arguments.

Source: Dockerfile reference, "Environment replacement"; BuildKit frontend/dockerfile/instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast

from imagetool.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    From,
    Heredoc,
    Instruction,
    Label,
    Run,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from imagetool.dockerfile.mounts import parse_mount
from imagetool.dockerfile.readers import check_copied
from imagetool.dockerfile.values import is_remote, parse_ports, parse_signal
from imagetool.dockerfile.wording import quoted
from imagetool.dockerfile.words import expand, expand_words
from imagetool.errors import DockerfileError
from imagetool.values import replace

_CHECKSUM: Final = "[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}|[0-9a-f]{7,64}"
_I = TypeVar("_I", bound=Instruction)
_Word = Callable[[str], str]


def expand_instruction(instruction: _I, env: Mapping[str, str], escape: str = "\\") -> _I:
    """Return a copy with variables expanded and quotes taken away; instructions without any are returned as they are.

    Args:
        env: the variables in force. All pairs of one ENV, LABEL or ARG see the same ones: a caller that lets an ARG's
            earlier pair act on a later one expands them one at a time.
        escape: the file's escape character.

    Raises:
        DockerfileError: with the instruction's place: a syntax error, `${v:?message}`, or a value that cannot be.
    """
    try:
        return cast("_I", _expanded(instruction, env, escape))
    except DockerfileError as error:
        raise instruction.source.placed(error) from None


def _expanded(instruction: Instruction, env: Mapping[str, str], escape: str) -> Instruction:
    def word(text: str) -> str:
        return expand(text, env, escape)

    match instruction:
        case From():
            return _from(instruction, word)
        case Copy() | Add():
            return _copied(instruction, word, env)
        case Env() | Label():
            return replace(instruction, pairs=_pairs(instruction, word))
        case Arg():
            return replace(instruction, pairs=tuple((n, None if v is None else word(v)) for n, v in instruction.pairs))
        case Expose():
            ports = (port for field in instruction.ports for port in expand_words(field, env, escape))
            return replace(instruction, ports=parse_ports(ports))
        case Run():
            return replace(instruction, mounts=tuple(parse_mount(mount.text, word) for mount in instruction.mounts))
        case Stopsignal():
            signal = word(instruction.signal)
            parse_signal(signal)
            return replace(instruction, signal=signal)
        case User():
            return replace(instruction, user=word(instruction.user))
        case Workdir():
            return replace(instruction, path=word(instruction.path))
        case Volume():
            paths = tuple(map(word, instruction.paths))
            if not all(paths):
                raise DockerfileError("VOLUME can not be an empty string")
            return replace(instruction, paths=paths)
    return instruction


def _from(instruction: From, word: _Word) -> From:
    image = word(instruction.image)
    if not image:
        raise DockerfileError(f"base name should not be blank: {instruction.image} expands to nothing")
    return replace(instruction, image=image, platform=_optional(instruction.platform, word))


def _optional(text: str | None, word: _Word) -> str | None:
    return word(text) or None if text else None


def _pairs(instruction: Env | Label, word: _Word) -> tuple[tuple[str, str], ...]:
    pairs = tuple((word(name), word(value)) for name, value in instruction.pairs)
    if not all(name for name, _ in pairs):
        raise DockerfileError("names can not be blank")
    return pairs


def _copied(instruction: Copy | Add, word: _Word, env: Mapping[str, str]) -> Copy | Add:
    sources = tuple(map(word, instruction.sources))
    dest = word(instruction.dest)
    chown = _optional(instruction.chown, word)
    chmod = _optional(instruction.chmod, word)
    heredocs = tuple(_heredoc(heredoc, env) for heredoc in instruction.heredocs)
    if isinstance(instruction, Copy):
        check_copied(sources)
        return replace(instruction, sources=sources, dest=dest, chown=chown, chmod=chmod, heredocs=heredocs)
    checksum = _optional(instruction.checksum, word)
    if checksum and (len(sources) != 1 or not is_remote(sources[0])):
        raise DockerfileError("--checksum needs exactly one source, a URL or a Git repository")
    if checksum and not re.fullmatch(_CHECKSUM, checksum):
        message = f"--checksum is a digest such as sha256:… or a Git commit, not {quoted(checksum)}"
        raise DockerfileError(message, about=f"--checksum={instruction.checksum}")
    return replace(
        instruction, sources=sources, dest=dest, chown=chown, chmod=chmod, heredocs=heredocs, checksum=checksum
    )


def _heredoc(heredoc: Heredoc, env: Mapping[str, str]) -> Heredoc:
    """Expand a body that COPY or ADD writes to a file. Quotes stay, and the escape is a backslash in any file.

    What is returned is final: it will not be chomped or expanded once more.
    """
    content = expand(heredoc.body, env, quotes=False) if heredoc.expand else heredoc.body
    return replace(heredoc, content=content, chomp=False, expand=False)
