"""The commands: every option, argument and help text, once. `grammar` says what the words mean.

A module here is a family of commands, written as data; it is loaded when one of them is meant. This one says
which module has which, and what several of them share.
"""

from __future__ import annotations

from imagetool.cli.grammar import Argument, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HELP = "Build, move, convert and verify container images, without a daemon."

#: The modules here and the commands of each, in the order of `imagetool --help`.
FAMILIES = {
    "building": ("build", "base", "lint", "graph", "cache"),
    "moving": ("push", "pull", "copy", "convert", "save", "load", "tags", "delete"),
    "images": ("images", "history", "inspect", "verify", "tag", "rmi"),
    "rootfs": ("ls", "diff", "unpack", "repack", "squash"),
    "running": ("run", "bundle"),
    "stepping": ("from", "add", "config", "commit", "mount", "umount", "unshare", "debug", "containers", "rm"),
    "host": ("limits", "doctor", "login", "logout", "completion"),
}

#: The global options; they may stand before and after the command.
GLOBALS = (
    Option("--root", kind="file", help="The local store. [env: IMAGETOOL_ROOT]"),
    Option("--tls-verify", kind="switch", default=True, help="Require registries to prove who they are."),
    Option("--authfile", kind="file", help="The only file with credentials. [env: REGISTRY_AUTH_FILE]"),
    Option("--limit", many=True, help="NAME=NUMBER of `imagetool limits`, instead of its own. [env: IMAGETOOL_LIMITS]"),
)


class Globals:
    """What the global options are, for one command."""

    __slots__ = ("authfile", "limit", "root", "tls_verify")

    def __init__(
        self,
        root: str | None = None,
        *,
        tls_verify: bool = True,
        authfile: str | None = None,
        limit: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.tls_verify = tls_verify
        self.authfile = authfile
        self.limit = limit


def find_command(name: str) -> Command | None:
    """Return the command of that name, None when there is none."""
    for family, names in FAMILIES.items():
        if name in names:
            return next(command for command in _family(family) if command.name == name)
    return None


def all_commands() -> dict[str, Command]:
    """Return the commands by name, in the order of `imagetool --help`."""
    return {command.name: command for family in FAMILIES for command in _family(family)}


def call(command: Command, globals: Globals, values: dict[str, Any]) -> int:
    """Call a command's function; its result is the exit code, None for 0."""
    from importlib import import_module

    from imagetool.config.environment import adjust_limits

    adjust_limits(globals.limit)
    module, _, name = command.target.partition(":")
    code = getattr(import_module(f"imagetool.cli.{module}"), name)(globals, **values)
    return code if isinstance(code, int) else 0


def _family(name: str) -> tuple[Command, ...]:
    from importlib import import_module

    commands: tuple[Command, ...] = import_module(f"{__name__}.{name}").COMMANDS
    return commands


PLACES = "a local name, docker://…, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:DIR or aci:FILE"

PROGRESS = Option(
    "--progress",
    default="auto",
    choices=("auto", "tty", "plain", "json", "quiet"),
    help="How to show what happens, on stderr.",
)
JSON = Option("--json", kind="flag", help="Print JSON.")
CODECS = "gzip[:0-9], zstd[:1-22][:long[=10-27]], zstd:chunked[:1-22] or none"
REPRODUCIBLE = Option(
    "--reproducible-compression",
    kind="flag",
    help="The same bytes on every machine, now and later, or an error; gzip and none only.",
)
RECOMPRESS = (
    Option("--compression", help=f"Compress the layers anew: {CODECS}. [default: every byte stays]"),
    REPRODUCIBLE,
)
PLATFORM = Option("--platform", help="Only the image of this os/arch[/variant].")
ENV = Option("--env", "-e", many=True, help="KEY=VALUE, or KEY for the environment's value.")
USER = Option("--user", "-u", help="user[:group], names of the image or numbers.")
WORKDIR = Option("--workdir", "-w", "--workingdir", help="The directory to start in.")
HABIT = Option("--add-history", kind="flag", help="Accepted for habit: every step is in the image's history.")
#: What `build` and `commit` say of the image beside what its steps say, and where it goes.
EDITS = (
    Option("--label", many=True, help="KEY=VALUE to put on the image."),
    Option("--annotation", many=True, help="KEY=VALUE to put on the manifest."),
    Option("--unsetenv", many=True, help="A variable that the image must not have, whoever set it."),
    Option("--unsetlabel", many=True, help="A label that the image must not have, whoever set it."),
)
OUTPUT = Option(
    "--output",
    "-o",
    many=True,
    help="type=oci|docker|local|tar,dest=PATH[,tar=true], type=registry,ref=NAME, a directory, or -.",
)
RESULTS = (
    Option("--iidfile", kind="file", help="Write the image ID to a file."),
    Option("--metadata-file", kind="file", help="Write the digests to a JSON file."),
)
QUIET = Option("--quiet", "-q", kind="flag", help="Show nothing but the image ID; --progress quiet.")
VOLUME = Option("--volume", "-v", many=True, help="HOST:CONTAINER[:ro]; what is written there stays.")
#: What COPY and ADD have; `copy` and `add` take them for working containers.
COPYING = (
    Option("--chown", help="user[:group] of what is copied, names of the container or numbers."),
    Option("--chmod", help="Mode of what is copied: octal, or as u=rwX,go=rX."),
    Option("--from", kind="image", help="A working container or an image to copy from."),
    Option("--exclude", many=True, help="What not to copy, as in .dockerignore."),
    Option("--contextdir", kind="file", help="The directory that sources are in, and do not leave."),
    Option("--ignorefile", kind="file", help="What of it is not there. [default: its .dockerignore]"),
    Option("--link", kind="flag", help="Make a layer that does not depend on those below it."),
)
#: What makes containers; imagetool.runtime.executors.executor_of reads it.
EXECUTOR = (
    Option(
        "--isolation",
        default="auto",
        choices=("auto", "embedded", "oci", "bwrap", "nspawn", "lxc", "chroot"),
        help="What makes the containers; auto is embedded, which needs no other program.",
    ),
    Option("--runtime", kind="file", help="The program for it, for example crun; alone it means --isolation oci."),
)
NETWORKS = ("default", "host", "none")
NETWORK = (
    "default is its own, by slirp4netns or pasta, else the host's with a warning; "
    "IMAGETOOL_NETWORK_FALLBACK=refuse forbids that."
)
#: What holds for containers; imagetool.runtime.sandbox.parse_sandbox reads them.
SANDBOX = (
    Option("--security-opt", many=True, help="seccomp=FILE, seccomp=unconfined or no-new-privileges."),
    Option("--cap-add", many=True, help="A capability that steps have, or ALL."),
    Option("--cap-drop", many=True, help="A capability that steps lack, or ALL."),
    Option("--memory", "-m", help="The most memory a step uses, for example 512m; more ends it."),
    Option("--memory-swap", help="Memory and swap together, -1 for any swap. [default: no swap]"),
    Option("--cpus", help="Processors' worth of time, for example 1.5."),
    Option("--cpu-shares", help="Weight against others; 1024 is normal."),
    Option("--cpuset-cpus", help="The processors to run on, for example 0-2,4."),
    Option("--pids-limit", help="The most processes of a step, -1 for any number. [default: 4096 for all steps]"),
    Option("--shm-size", help="Size of /dev/shm. [default: 64m]"),
    Option("--ulimit", many=True, help="NAME=SOFT[:HARD], for example nofile=1024:4096."),
    Option("--timeout", help="The longest a step runs, for example 10m."),
    Option("--add-host", many=True, help="NAME:ADDRESS to add to /etc/hosts."),
    Option("--dns", many=True, help="A name server to use instead of the host's."),
    Option(
        "--userns",
        choices=("host", "auto"),
        help="Whether root of the steps is root of this machine, or nobody there; no file changes by that. "
        "[default: auto where it can be had and no --cap-add is given]",
    ),
    Option("--stats", kind="flag", help="Tell what each step used: CPU time, memory, bytes written."),
)


def image(name: str = "reference", *, or_container: bool = False) -> Argument:
    """Return the argument that is an image, or a working container where there is one of the name."""
    if or_container:
        return Argument(name, kind="image or container", help=f"A working container, or an image: {PLACES}.")
    return Argument(name, kind="image", help=f"An image: {PLACES}.")
