"""Options and arguments that several commands have."""

from __future__ import annotations

from imagetool.cli.grammar import Argument, Option

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
