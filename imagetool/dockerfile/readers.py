"""One reader per instruction: from a statement to its typed value. Errors are DockerfileErrors without a place.

Source: Dockerfile reference; BuildKit frontend/dockerfile/instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from imagetool.dockerfile import instructions as typed
from imagetool.dockerfile.flags import Flags, Kind, one, read_flags, switch
from imagetool.dockerfile.heredoc import marker, with_bodies
from imagetool.dockerfile.instructions import Command, ExecForm, Heredoc, Instruction, ShellForm
from imagetool.dockerfile.mounts import parse_device, parse_mount
from imagetool.dockerfile.source import Source
from imagetool.dockerfile.statement import json_form, split_fields, split_first, split_statement, split_words
from imagetool.dockerfile.values import is_remote, parse_duration
from imagetool.dockerfile.wording import did_you_mean, printable, quoted
from imagetool.dockerfile.words import SPACE, expand
from imagetool.errors import DockerfileError
from imagetool.values import dataclass

_STAGE_NAME: Final = r"[a-z][a-z0-9-_.]*"
_NO_TRIGGERS: Final = ("ONBUILD", "FROM", "MAINTAINER")
_INT32: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Piece:
    """What a reader gets: a logical line taken apart, its heredocs, the escape character and the place."""

    keyword: str
    words: tuple[str, ...]  # the flags
    arguments: str
    heredocs: tuple[Heredoc, ...]
    escape: str
    source: Source

    @classmethod
    def of(cls, line: str, heredocs: tuple[Heredoc, ...], escape: str, source: Source) -> Piece:
        """Take a logical line apart."""
        return cls(*split_statement(line, escape), heredocs, escape, source)

    @property
    def written(self) -> str:
        """The keyword in the case in which it is written, if that is one of the usual two."""
        return self.keyword if self.keyword in self.source.text else self.keyword.lower()

    def flags(self, **known: Kind) -> Flags:
        """Read the flags; a keyword's underscores stand for dashes."""
        return read_flags(self.words, {name.replace("_", "-"): kind for name, kind in known.items()})

    def words_or_fail(self, words: Sequence[str] | str | None) -> None:
        """Refuse an instruction without arguments."""
        if not words:
            raise DockerfileError(f"{self.keyword} requires at least one argument")


def read_instruction(piece: Piece) -> Instruction:
    """Read any instruction; raises DockerfileError without a place."""
    reader = _READERS.get(piece.keyword)
    if reader is None:
        keyword = piece.keyword
        meant = did_you_mean(keyword, _READERS)
        hint = "" if meant else f"if it belongs to the instruction above, the line before it must end in {piece.escape}"
        raise DockerfileError(f"unknown instruction: {printable(keyword)}{meant}", about=piece.written, hint=hint)
    return reader(piece)


def read_trigger(piece: Piece) -> Instruction:
    """Read what follows ONBUILD; FROM, MAINTAINER and ONBUILD itself may not."""
    keyword = piece.keyword
    if keyword in _NO_TRIGGERS:
        raise DockerfileError(f"{keyword} isn't allowed as an ONBUILD trigger", about=piece.written)
    return read_instruction(piece)


def _from(piece: Piece) -> typed.From:
    flags = piece.flags(platform=Kind.ONE)
    fields = split_fields(piece.arguments)
    name = None
    if len(fields) == 3 and fields[1].lower() == "as":
        name = fields[2].lower()
        if not re.fullmatch(_STAGE_NAME, name):
            raise DockerfileError(
                f"invalid name for a build stage: {quoted(fields[2])}; it begins with a letter and has only letters, "
                "digits and - _ .",
                about=fields[2],
            )
    elif len(fields) != 1:
        raise DockerfileError("FROM requires either one or three arguments: FROM image [AS name]")
    return typed.From(image=fields[0], platform=one(flags, "platform"), name=name, source=piece.source)


def _command(arguments: str) -> Command:
    argv = json_form(arguments)
    return ShellForm(arguments) if argv is None else ExecForm(argv)


def _run(piece: Piece) -> typed.Run:
    flags = piece.flags(mount=Kind.MANY, network=Kind.ONE, security=Kind.ONE, device=Kind.MANY)
    command = _command(piece.arguments)
    if command in (ShellForm(""), ExecForm(())):
        raise DockerfileError("RUN requires at least one argument")
    return typed.Run(
        command=command,
        heredocs=piece.heredocs,
        mounts=tuple(_mount(text, piece.escape) for text in flags.get("mount", ())),
        network=_choice(flags, "network", "default", "none", "host"),
        security=_choice(flags, "security", "sandbox", "insecure"),
        devices=tuple(map(parse_device, flags.get("device", ()))),
        source=piece.source,
    )


def _mount(text: str, escape: str) -> typed.RunMount:
    return parse_mount(text) if "$" in text else parse_mount(text, lambda value: expand(value, {}, escape))


def _choice(flags: Flags, name: str, *options: str) -> Any:
    """Return a flag's value, one of `options`, the first of which is the default."""
    value = flags.get(name, options[:1])[0]
    if value not in options:
        raise DockerfileError(
            f"--{name} is {', '.join(options[:-1])} or {options[-1]}, not {quoted(value)}", about=f"--{name}={value}"
        )
    return value


def _cmd(piece: Piece) -> typed.Cmd:
    piece.flags()
    return typed.Cmd(command=_command(piece.arguments), source=piece.source)


def _entrypoint(piece: Piece) -> typed.Entrypoint:
    piece.flags()
    return typed.Entrypoint(command=_command(piece.arguments), source=piece.source)


def _shell(piece: Piece) -> typed.Shell:
    piece.flags()
    argv = json_form(piece.arguments)
    if argv is None and piece.arguments:
        raise DockerfileError('SHELL must be in JSON form: SHELL ["program", "argument"]')
    piece.words_or_fail(argv)
    return typed.Shell(argv=argv or (), source=piece.source)


def _pairs(piece: Piece) -> tuple[tuple[str, str], ...]:
    """Read `name=value …`, or the old `name value` when the first word has no equals sign."""
    piece.flags()
    words = split_words(piece.arguments, piece.escape)
    piece.words_or_fail(words)
    keyword = piece.keyword
    if "=" not in words[0]:
        name, value = split_first(piece.arguments)
        if value is None:
            raise DockerfileError(f"{keyword} must have two arguments: {keyword} name=value")
        return ((name, value),)
    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not equals:
            raise DockerfileError(f"can't find = in {quoted(name)}: every word must be name=value", about=name)
        if not name:
            raise DockerfileError(f"{keyword} names can not be blank", about=f"={value}")
    return tuple((name, value) for name, _, value in pairs)


def _env(piece: Piece) -> typed.Env:
    return typed.Env(pairs=_pairs(piece), source=piece.source)


def _label(piece: Piece) -> typed.Label:
    return typed.Label(pairs=_pairs(piece), source=piece.source)


def _arg(piece: Piece) -> typed.Arg:
    piece.flags()
    words = split_words(piece.arguments, piece.escape)
    piece.words_or_fail(words)
    pairs = [(name, value if equals else None) for name, equals, value in (word.partition("=") for word in words)]
    if any(not name for name, _ in pairs):
        raise DockerfileError("ARG names can not be blank")
    return typed.Arg(pairs=tuple(pairs), source=piece.source)


def _single(piece: Piece) -> str:
    """Return the arguments, all of them, as the one argument that there must be."""
    piece.flags()
    if not piece.arguments:
        raise DockerfileError(f"{piece.keyword} requires exactly one argument")
    return piece.arguments


def _maintainer(piece: Piece) -> typed.Maintainer:
    return typed.Maintainer(name=_single(piece), source=piece.source)


def _user(piece: Piece) -> typed.User:
    return typed.User(user=_single(piece), source=piece.source)


def _workdir(piece: Piece) -> typed.Workdir:
    return typed.Workdir(path=_single(piece), source=piece.source)


def _stopsignal(piece: Piece) -> typed.Stopsignal:
    return typed.Stopsignal(signal=_single(piece), source=piece.source)


def _expose(piece: Piece) -> typed.Expose:
    piece.flags()
    piece.words_or_fail(piece.arguments)
    return typed.Expose(ports=tuple(sorted(split_fields(piece.arguments))), source=piece.source)


def _list(piece: Piece) -> tuple[tuple[str, ...], bool]:
    """Return the fields of a JSON array or of a plain list, and whether it was JSON."""
    fields = json_form(piece.arguments)
    return (split_fields(piece.arguments), False) if fields is None else (fields, True)


def _volume(piece: Piece) -> typed.Volume:
    piece.flags()
    fields, _ = _list(piece)
    piece.words_or_fail(fields)
    paths = tuple(field.strip(SPACE) for field in fields)
    if not all(paths):
        raise DockerfileError("VOLUME can not be an empty string")
    return typed.Volume(paths=paths, source=piece.source)


def _sources(piece: Piece) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Return the sources that are paths, those that are heredocs, and the destination of a COPY or ADD."""
    keyword = piece.keyword
    fields, is_json = _list(piece)
    if len(fields) < 2:
        raise DockerfileError(f"{keyword} requires at least two arguments: sources and a destination")
    *sources, dest = fields
    if is_json:
        return tuple(sources), (), dest
    if marker(dest):
        raise DockerfileError(f"{keyword} cannot have a heredoc as its destination", about=dest)
    announced = [found.name for found in map(marker, sources) if found]
    if announced != [heredoc.name for heredoc in piece.heredocs]:
        raise DockerfileError(f"{keyword} cannot read its heredocs: write <<MARKER without white space or {{}} in it")
    return tuple(source for source in sources if not marker(source)), piece.heredocs, dest


def _copy(piece: Piece) -> typed.Copy:
    flags = piece.flags(
        **{"from": Kind.ONE}, chown=Kind.ONE, chmod=Kind.ONE, link=Kind.SWITCH, parents=Kind.SWITCH, exclude=Kind.MANY
    )
    sources, heredocs, dest = _sources(piece)
    check_copied(sources)
    return typed.Copy(
        sources=sources,
        dest=dest,
        from_=_copied_from(one(flags, "from"), piece.escape),
        chown=one(flags, "chown"),
        chmod=one(flags, "chmod"),
        link=switch(flags, "link") or False,
        parents=switch(flags, "parents") or False,
        exclude=flags.get("exclude", ()),
        heredocs=heredocs,
        source=piece.source,
    )


def check_copied(sources: Sequence[str]) -> None:
    """Refuse a COPY source that is not a path."""
    for source in sources:
        if is_remote(source):
            raise DockerfileError(
                f"COPY cannot fetch {quoted(source)}: use ADD for URLs and Git repositories", about=source
            )


def _copied_from(stage: str | None, escape: str) -> str | None:
    if stage and expand(stage, {}, escape) != stage:
        raise DockerfileError(
            "--from cannot hold a variable: name a stage with FROM $variable AS name and copy from it",
            about=f"--from={stage}",
        )
    return stage


def _add(piece: Piece) -> typed.Add:
    flags = piece.flags(
        chown=Kind.ONE,
        chmod=Kind.ONE,
        link=Kind.SWITCH,
        exclude=Kind.MANY,
        checksum=Kind.ONE,
        keep_git_dir=Kind.SWITCH,
        unpack=Kind.SWITCH,
    )
    sources, heredocs, dest = _sources(piece)
    return typed.Add(
        sources=sources,
        dest=dest,
        chown=one(flags, "chown"),
        chmod=one(flags, "chmod"),
        link=switch(flags, "link") or False,
        exclude=flags.get("exclude", ()),
        heredocs=heredocs,
        checksum=one(flags, "checksum"),
        keep_git_dir=switch(flags, "keep-git-dir"),
        unpack=switch(flags, "unpack"),
        source=piece.source,
    )


def _onbuild(piece: Piece) -> typed.Onbuild:
    piece.flags()
    piece.words_or_fail(piece.arguments)
    read_trigger(Piece.of(piece.arguments, piece.heredocs, piece.escape, piece.source))
    return typed.Onbuild(trigger=with_bodies(piece.arguments, piece.heredocs), source=piece.source)


def _healthcheck(piece: Piece) -> typed.Healthcheck:
    flags = piece.flags(
        interval=Kind.ONE, timeout=Kind.ONE, start_period=Kind.ONE, start_interval=Kind.ONE, retries=Kind.ONE
    )
    piece.words_or_fail(piece.arguments)
    kind, *rest = re.split(f"[{SPACE}]+", piece.arguments, maxsplit=1)
    if kind.upper() == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments", about=rest[0])
        return typed.Healthcheck(command=None, source=piece.source)
    if kind.upper() != "CMD":
        raise DockerfileError(f"unknown type {quoted(kind)} in HEALTHCHECK: use CMD or NONE", about=kind)
    command = _command(rest[0] if rest else "")
    if command in (ShellForm(""), ExecForm(())):
        raise DockerfileError("missing command after HEALTHCHECK CMD")
    return typed.Healthcheck(
        command=command,
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags),
        source=piece.source,
    )


def _interval(flags: Flags, name: str) -> int:
    written = one(flags, name) or "0"
    duration = parse_duration(written)
    if duration and duration < 1_000_000:
        raise DockerfileError(f"--{name} cannot be less than 1ms", about=f"--{name}={written}")
    return duration


def _retries(flags: Flags) -> int:
    text = one(flags, "retries") or "0"
    if not re.fullmatch("[+-]?[0-9]{1,20}", text) or abs(int(text)) > _INT32:
        raise DockerfileError(f"--retries is a number, not {quoted(text)}", about=f"--retries={text}")
    if int(text) < 0:
        raise DockerfileError(f"--retries cannot be negative ({text})", about=f"--retries={text}")
    return int(text)


_READERS: Final[dict[str, Callable[[Piece], Instruction]]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
