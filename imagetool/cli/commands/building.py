"""The commands that build, and what goes with building: lint, graph, cache."""

from __future__ import annotations

from imagetool.cli.commands import (
    CODECS,
    EDITS,
    EXECUTOR,
    JSON,
    NETWORK,
    NETWORKS,
    OUTPUT,
    PROGRESS,
    QUIET,
    REPRODUCIBLE,
    RESULTS,
    SANDBOX,
)
from imagetool.cli.grammar import Argument, Command, Option

_BUILD_ARG = Option("--build-arg", many=True, help="KEY=VALUE, or KEY for the environment's value.")
_BUILT_FOR = Option("--platform", help="The platform that would be built for. [default: this machine's]")

COMMANDS = (
    Command(
        "build",
        "building:build",
        "Build an image from a Dockerfile; print its ID.",
        Option("--tag", "-t", many=True, help="Name the image; may be given several times."),
        Option(
            "--file",
            "-f",
            kind="file",
            many=True,
            help="The Dockerfile, - for stdin. [default: CONTEXT/Dockerfile]",
        ),
        _BUILD_ARG,
        *EDITS,
        Option("--squash", kind="flag", help="Make one layer of those that the build adds to its base."),
        Option("--squash-all", kind="flag", help="Make one layer of all, the base's too."),
        Option(
            "--timestamp",
            "--source-date-epoch",
            help="The moment of the build, seconds since 1970. [default: SOURCE_DATE_EPOCH]",
        ),
        Option("--target", help="The stage to build. [default: the last]"),
        Option(
            "--platform",
            many=True,
            help="Build for os/arch[/variant]; several with commas, or given again. [default: this machine's]",
        ),
        Option(
            "--build-context",
            many=True,
            help="NAME=DIR, =URL, =docker-image://IMAGE or =oci-layout://DIR[:TAG]: what FROM and --from mean.",
        ),
        Option(
            "--pull",
            default="missing",
            choices=("missing", "always", "newer", "never"),
            bare="always",
            help="When to pull base images, alone always; newer takes the local one when the registry fails.",
        ),
        Option("--secret", many=True, help="id=ID,src=FILE or id=ID,env=NAME, for RUN --mount=type=secret."),
        Option("--ssh", many=True, help="default[=SOCKET]: an SSH agent for RUN --mount=type=ssh."),
        Option("--no-cache", kind="flag", help="Do every step anew."),
        Option(
            "--cache-from",
            many=True,
            help="type=local,src=DIR, type=registry,ref=NAME, or NAME: a cache, or an image with one, to use.",
        ),
        Option(
            "--cache-to",
            many=True,
            help="type=local,dest=DIR or type=registry,ref=NAME[,mode=max]: write the cache; max: all stages. "
            "type=inline: put it into the image.",
        ),
        Option("--no-cache-filter", many=True, help="A stage, or several with commas, to do anew."),
        Option(
            "--explain-cache",
            kind="flag",
            help="Tell of each step whether the cache had it, and if not, what changed.",
        ),
        Option("--jobs", help="Steps done at once, of stages that do not wait. [default: the processors, at least 4]"),
        OUTPUT,
        Option(
            "--keep-on-failure",
            kind="flag",
            help="Keep what a failing RUN leaves as a working container, for `imagetool debug`.",
        ),
        Option("--push", kind="flag", help="Push the image to the registries that its names say."),
        *RESULTS,
        Option("--timeline", kind="file", help="Draw what was built when, as an HTML page; of failed builds too."),
        Option(
            "--timestamps",
            default="clamp",
            choices=("clamp", "rewrite", "preserve"),
            help="Times of files in new layers: at most SOURCE_DATE_EPOCH, those of the context just that; "
            "rewrite: at most that for all; preserve.",
        ),
        Option("--rewrite-timestamp", kind="flag", help="--timestamps rewrite."),
        Option("--compression", default="gzip", help=f"{CODECS}."),
        REPRODUCIBLE,
        *EXECUTOR,
        Option("--network", default="default", choices=NETWORKS, help=f"The network of RUN steps: {NETWORK}"),
        Option(
            "--allow",
            many=True,
            help="network.host, security.insecure, device or device=NAME: let RUN ask for it by --network=host, "
            "--security=insecure, --device.",
        ),
        *SANDBOX,
        PROGRESS,
        QUIET,
        Option("--check", kind="flag", help="Lint the Dockerfile instead; exit with 7 when something is found."),
        Argument(
            "context",
            kind="file",
            help="What COPY takes files from: a directory, a tar, a Git or http(s) URL, or - for stdin.",
        ),
    ),
    Command(
        "base",
        "building:base",
        "Make a base image from what this machine has, without a registry; print its name.",
        Option("--tag", "-t", help="Name of the image."),
        PROGRESS,
        Argument("what", kind="file", help="busybox, debian[:SUITE], a directory, or a root filesystem's tarball."),
    ),
    Command(
        "lint",
        "checking:lint",
        "Look Dockerfiles over for what is legal but not meant; exit with 7 when something is found.",
        Option(
            "--format",
            default="text",
            choices=("text", "json", "sarif", "github", "gitlab"),
            help="How to print what is found.",
        ),
        _BUILD_ARG,
        _BUILT_FOR,
        Argument(
            "files",
            kind="file",
            required=False,
            many=True,
            help="Dockerfiles, directories, or - for stdin. [default: the one here]",
        ),
    ),
    Command(
        "graph",
        "graphing:graph",
        "Draw the stages of a Dockerfile: what each begins with and takes files from, and what is not built.",
        Option("--file", "-f", kind="file", help="The Dockerfile, - for stdin. [default: CONTEXT/Dockerfile]"),
        _BUILD_ARG,
        Option("--build-context", many=True, help="NAME[=…]: names that a build context has."),
        Option("--target", help="The stage that would be built. [default: the last]"),
        _BUILT_FOR,
        Option("--output", "-o", kind="file", help="Where the picture goes. [default: stdout]"),
        Option(
            "--format",
            default="auto",
            choices=("auto", "svg", "json", "dot"),
            help="What to write; auto is as the name of the output says, or svg.",
        ),
        Argument(
            "context",
            kind="file",
            help="Where the Dockerfile is: a directory, a tar, a Git or http(s) URL, the file itself, or - for stdin.",
        ),
    ),
    Command(
        "cache",
        "caching:cache",
        "What is kept between builds: list cache mounts, prune them and the steps, export and import cache mounts.",
        Option("--id", many=True, help="Only the cache mount of this id; may be given several times."),
        JSON,
        PROGRESS,
        Argument("action", choices=("ls", "prune", "export", "import"), help="ls, prune, export or import."),
        Argument("place", kind="image", required=False, help="Where to or from: oci:DIR[:TAG] or docker://NAME."),
    ),
)
