"""Rules about how a Dockerfile is written: case, names, blank lines, comments, old syntax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from imagetool.dockerfile.instructions import Arg, Env, From, Instruction, Label, Maintainer
from imagetool.dockerfile.lint.comments import description
from imagetool.dockerfile.lint.finding import Complaint
from imagetool.dockerfile.lint.subject import SCRATCH, Subject
from imagetool.dockerfile.span import Span
from imagetool.dockerfile.wording import printable
from imagetool.dockerfile.words import SPACE

_RESERVED: Final = ("context", SCRATCH)


def _written(base: From) -> tuple[str, str, str]:
    """Return FROM, AS and the stage's name as they are written; the last two empty without a name."""
    words = [token.text for token in base.source.tokens() if token.kind != "flag"]
    return (words[0], words[2], words[3]) if base.name else (words[0], "", "")


def stage_name_casing(subject: Subject) -> Iterator[Complaint]:
    """Stage names are looked up in lower case; writing them so keeps them apart from keywords."""
    for stage in subject.dockerfile.stages:
        _, _, name = _written(stage.base)
        if name != name.lower():
            yield Complaint(stage.base.source, f"stage name {name!r} is not in lower case", name)


def from_as_casing(subject: Subject) -> Iterator[Complaint]:
    """FROM … AS in one case; a FROM in mixed case is ConsistentInstructionCasing's to report."""
    for stage in subject.dockerfile.stages:
        keyword, word, _ = _written(stage.base)
        wanted = word.upper() if keyword.isupper() else word.lower() if keyword.islower() else word
        if word != wanted:
            yield Complaint(stage.base.source, f"{word!r} is not in the case of {keyword!r}", word)


def no_empty_continuation(subject: Subject) -> Iterator[Complaint]:
    """A blank line inside a continued instruction."""
    lines = {warning.line for warning in subject.dockerfile.warnings if warning.rule == "NoEmptyContinuation"}
    for instruction in _instructions(subject):
        source = instruction.source
        if lines.isdisjoint(range(source.first_line, source.last_line + 1)):
            continue
        blank = (at for at in range(source.first_line, source.last_line) if not source.lines[at].strip(SPACE))
        number = next(blank, source.first_line - 1) + 1
        yield Complaint(
            source,
            "blank line inside an instruction: it will be an error; remove it or make it a comment",
            span=Span(number, 1, number, 1),
        )


def _instructions(subject: Subject) -> Iterator[Instruction]:
    yield from subject.dockerfile.global_args
    for stage in subject.dockerfile.stages:
        yield stage.base
        yield from stage.instructions


def consistent_instruction_casing(subject: Subject) -> Iterator[Complaint]:
    """All keywords in upper or all in lower case: the case of the majority, upper when there is none."""
    found = [i.source for stage in subject.dockerfile.stages for i in (stage.base, *stage.instructions)]
    keywords = [source.keyword for source in found]
    votes = Counter("lower" if keyword.islower() else "upper" for keyword in keywords if _of_one_case(keyword))
    wanted = "lower" if votes["lower"] > votes["upper"] else "upper"
    for source, keyword in zip(found, keywords, strict=True):
        if keyword != (keyword.lower() if wanted == "lower" else keyword.upper()):
            yield Complaint(source, f"{keyword!r} is not in {wanted} case, as most instructions here are", keyword)


def _of_one_case(keyword: str) -> bool:
    return keyword in (keyword.lower(), keyword.upper())


def duplicate_stage_name(subject: Subject) -> Iterator[Complaint]:
    """Of two stages of one name, the later one hides the earlier one."""
    seen: dict[str, int] = {}
    for stage in subject.dockerfile.stages:
        if stage.name is None:
            continue
        _, _, written = _written(stage.base)
        if stage.name in seen:
            message = f"stage name {stage.name!r} is taken by the stage in line {seen[stage.name]}"
            yield Complaint(stage.base.source, message, written)
        seen.setdefault(stage.name, stage.base.source.first_line)


def reserved_stage_name(subject: Subject) -> Iterator[Complaint]:
    """Names that mean something else in FROM and --from."""
    for stage in subject.dockerfile.stages:
        if stage.name in _RESERVED:
            _, _, written = _written(stage.base)
            yield Complaint(stage.base.source, f"{stage.name!r} is reserved and cannot name a stage well", written)


def maintainer_deprecated(subject: Subject) -> Iterator[Complaint]:
    """MAINTAINER."""
    for _, step in subject.steps():
        if isinstance(step.instruction, Maintainer):
            yield Complaint(
                step.instruction.source,
                "MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors=… instead",
            )


def legacy_key_value_format(subject: Subject) -> Iterator[Complaint]:
    """`ENV name value`, without an equals sign."""
    for _, step in subject.steps():
        if isinstance(step.instruction, Env | Label):
            source = step.instruction.source
            word = next((token.text for token in source.tokens() if token.kind == "word"), "")
            if "=" not in word:
                keyword = source.keyword.upper()
                yield Complaint(source, f"write {keyword} name=value instead of the old {keyword} name value", word)


def invalid_definition_description(subject: Subject) -> Iterator[Complaint]:
    """A comment right above a named FROM or an ARG describes it, and begins with its name."""
    for instruction in _instructions(subject):
        if isinstance(instruction, Arg):
            keyword, names = "ARG", [name for name, _ in instruction.pairs]
        elif isinstance(instruction, From) and instruction.name:
            keyword, names = "FROM", [instruction.name]
        else:
            continue
        found = description(instruction.source)
        if found and found[1].split(" ")[0] not in names:
            number, text = found
            name = names[0] if len(names) == 1 else "<name>"
            yield Complaint(
                instruction.source,
                f"the comment above {keyword} should read `# {printable(name)} …`; or put a blank line below it",
                span=Span(number, 1, number, len(text) + 1),
            )
