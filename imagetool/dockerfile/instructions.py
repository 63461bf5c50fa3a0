"""The 18 instructions of a Dockerfile as values; what they do is decided elsewhere.

Text is as written, variables not expanded, until `expand_instruction` returns a copy with them expanded. Where an
instruction comes from does not take part in comparisons.

Source: Dockerfile reference.
"""

from __future__ import annotations

from typing import Literal

from imagetool.dockerfile.source import NOWHERE, Source
from imagetool.values import dataclass, field

MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]


@dataclass(frozen=True, slots=True)
class ShellForm:
    """A command line for the stage's shell to read."""

    line: str


@dataclass(frozen=True, slots=True)
class ExecForm:
    """A command without a shell: the program and its arguments, possibly none at all (`CMD []`)."""

    argv: tuple[str, ...]


Command = ShellForm | ExecForm


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document.

    Attributes:
        name: the marker without its quotes; the file name that COPY and ADD create.
        content: the lines between marker and terminator as written, each with its line end.
        expand: whether COPY and ADD expand variables in it, that is, no part of the marker is quoted.
        chomp: whether it was written `<<-`.
        fd: the file descriptor before the operator, 0 when there is none.
    """

    name: str
    content: str = ""
    expand: bool = True
    chomp: bool = False
    fd: int = 0

    @property
    def body(self) -> str:
        """The content that is meant: with `<<-` the leading tabs of every line are gone."""
        if not self.chomp:
            return self.content
        return "\n".join(line.lstrip("\t") for line in self.content.split("\n"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One `RUN --mount`.

    Before expansion, fields whose text holds a variable have their default, except `from_`, which cannot hold one.

    Attributes:
        source: the path in `from_` or in the build context; the id of a secret may be written here as well.
        target: relative to WORKDIR when it is not absolute; None is WORKDIR itself.
        size: bytes of a tmpfs, None for no limit.
        id: of a cache (default: its target), secret or SSH agent.
        env: the variable that a secret is put in; empty means the variable is named as the secret.
        text: the option as written, from which `expand_instruction` reads it again.
    """

    type: MountType = "bind"
    from_: str | None = None
    source: str | None = None
    target: str | None = None
    readonly: bool = True
    size: int | None = None
    id: str | None = None
    sharing: Sharing | None = None
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RunDevice:
    """One `RUN --device`: a CDI device name, and whether the step fails without it."""

    name: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class From:
    """Begins a stage. `name` is in lower case; `image` may name an earlier stage."""

    image: str
    platform: str | None = None
    name: str | None = None
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command of the build. With heredocs the shell form is only its first line: see `heredoc.script_of`."""

    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: Literal["default", "none", "host"] = "default"
    security: Literal["sandbox", "insecure"] = "sandbox"
    devices: tuple[RunDevice, ...] = ()
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd:
    """The default command, or default arguments of the entry point."""

    command: Command
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Labels in the order written; a later one wins."""

    pairs: tuple[tuple[str, str], ...]
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer:
    """The image's author (deprecated)."""

    name: str
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose:
    """Ports, sorted as text; after expansion each is `number/protocol` and ranges are spelled out."""

    ports: tuple[str, ...]
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """Environment variables; every value is expanded against the environment before the instruction."""

    pairs: tuple[tuple[str, str], ...]
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Files from the build context or from the stage or image `from_`. Heredocs are sources, too."""

    sources: tuple[str, ...]
    dest: str
    from_: str | None = None
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """Like Copy from the build context, and URLs, Git repositories and archives. None: the default of its kind."""

    sources: tuple[str, ...]
    dest: str
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    exclude: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    checksum: str | None = None
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint:
    """The program of the image."""

    command: Command
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Mount points."""

    paths: tuple[str, ...]
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who runs what follows: `user[:group]`, names or numbers."""

    user: str
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir:
    """The working directory, relative to the one before."""

    path: str
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """Build arguments, each a name and its default or None."""

    pairs: tuple[tuple[str, str | None], ...]
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild:
    """An instruction for builds that start from this image, as text with its heredocs: see `parse_trigger`."""

    trigger: str
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopsignal:
    """The signal that stops the container, a name or a number."""

    signal: str
    source: Source = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """A command to ask whether the container is well; None switches an inherited check off.

    Attributes:
        interval, timeout, start_period, start_interval: nanoseconds, 0 for the default.
        retries: 0 for the default.
    """

    command: Command | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    source: Source = field(default=NOWHERE, compare=False)

    @property
    def test(self) -> tuple[str, ...]:
        """The image config's `Healthcheck.Test`."""
        match self.command:
            case None:
                return ("NONE",)
            case ShellForm(line=line):
                return ("CMD-SHELL", line)
            case ExecForm(argv=argv):
                return ("CMD", *argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """The shell of the shell forms that follow."""

    argv: tuple[str, ...]
    source: Source = field(default=NOWHERE, compare=False)


Instruction = (
    From
    | Run
    | Cmd
    | Label
    | Maintainer
    | Expose
    | Env
    | Add
    | Copy
    | Entrypoint
    | Volume
    | User
    | Workdir
    | Arg
    | Onbuild
    | Stopsignal
    | Healthcheck
    | Shell
)
