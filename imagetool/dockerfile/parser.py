"""A Dockerfile's text to its stages: the whole language, without variables, files or images looked at.

Source: Dockerfile reference; reference semantics are those of BuildKit.
"""

from __future__ import annotations

from imagetool.dockerfile.instructions import Arg, From, Instruction
from imagetool.dockerfile.lines import Directives, LogicalLine, ParseWarning, read_lines
from imagetool.dockerfile.readers import Piece, read_instruction, read_trigger
from imagetool.errors import DockerfileError
from imagetool.values import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A FROM and the instructions up to the next one."""

    base: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str | None:
        """The name after AS, in lower case."""
        return self.base.name


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile.

    Attributes:
        directives: the parser directives.
        global_args: the ARGs before the first FROM.
        stages: at least one, in order.
        warnings: what was accepted but is probably not meant, in order of lines.
        file: the name the user gave it.
    """

    directives: Directives
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[ParseWarning, ...]
    file: str = "Dockerfile"


def parse(text: bytes | str, *, file: str = "Dockerfile") -> Dockerfile:
    """Parse a whole Dockerfile.

    Raises:
        DockerfileError: anything wrong with it, with line and excerpt.
    """
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty", file=file)
    lines = read_lines(text, file=file)
    if not lines.logical:
        raise DockerfileError("file with no instructions", file=file)
    global_args: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in lines.logical:
        instruction = _read(line, lines.physical, lines.directives.escape, file, trigger=False)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise instruction.source.error(
                "no build stage yet: only ARG may stand before the first FROM", hint="begin the file with FROM image"
            )
    if not stages:
        raise DockerfileError("no stage to build: there is no FROM", file=file)
    return Dockerfile(
        lines.directives,
        tuple(global_args),
        tuple(Stage(base, tuple(instructions)) for base, instructions in stages),
        lines.warnings,
        file,
    )


def parse_trigger(text: str, *, file: str = "ONBUILD") -> Instruction:
    """Parse an ONBUILD trigger, as an image's config holds it: one instruction, heredocs included.

    Args:
        file: what to call the place in errors, such as the image's name.

    Raises:
        DockerfileError: it is not exactly one instruction, or one that cannot be a trigger.
    """
    lines = read_lines(text, file=file)
    if len(lines.logical) != 1:
        raise DockerfileError(f"a trigger is one instruction, not {len(lines.logical)}", file=file)
    return _read(lines.logical[0], lines.physical, lines.directives.escape, file, trigger=True)


def _read(line: LogicalLine, physical: tuple[str, ...], escape: str, file: str, *, trigger: bool) -> Instruction:
    source = line.source(file, physical, escape)
    piece = Piece.of(line.text, line.heredocs, escape, source)
    try:
        return read_trigger(piece) if trigger else read_instruction(piece)
    except DockerfileError as error:
        raise source.placed(error) from None
