"""The commands: every option, argument and help text, once. `grammar` says what the words mean."""

from __future__ import annotations

from imagetool.cli.grammar import Argument, Command, Option
from imagetool.cli.parameters import CODECS as _CODECS
from imagetool.cli.parameters import ENV as _ENV
from imagetool.cli.parameters import EXECUTOR as _EXECUTOR
from imagetool.cli.parameters import JSON as _JSON
from imagetool.cli.parameters import NETWORK as _NETWORK
from imagetool.cli.parameters import NETWORKS as _NETWORKS
from imagetool.cli.parameters import PLACES
from imagetool.cli.parameters import PLATFORM as _PLATFORM
from imagetool.cli.parameters import PROGRESS as _PROGRESS
from imagetool.cli.parameters import RECOMPRESS as _RECOMPRESS
from imagetool.cli.parameters import REPRODUCIBLE as _REPRODUCIBLE
from imagetool.cli.parameters import SANDBOX as _SANDBOX
from imagetool.cli.parameters import USER as _USER
from imagetool.cli.parameters import WORKDIR as _WORKDIR
from imagetool.cli.parameters import image as _image
from imagetool.cli.steptable import COPYING, step_commands

HELP = "Build, move, convert and verify container images, without a daemon."

#: The global options; they may stand before and after the command.
GLOBALS = (
    Option("--root", kind="file", help="The local store. [env: IMAGETOOL_ROOT]"),
    Option("--tls-verify", kind="switch", default=True, help="Require registries to prove who they are."),
    Option("--authfile", kind="file", help="The only file with credentials. [env: REGISTRY_AUTH_FILE]"),
    Option("--limit", many=True, help="NAME=NUMBER of `imagetool limits`, instead of its own. [env: IMAGETOOL_LIMITS]"),
)

#: What `bundle` can write for; the table of their writers is imagetool.verbs.bundle.SYSTEMS.
SYSTEMS = (
    "oci",
    "nspawn",
    "nspawn-oci",
    "lxc",
    "chroot",
    "docker",
    "podman",
    "containerd",
    "crio",
    "rkt",
    "freebsd-jail",
    "solaris-zone",
    "openvz",
    "kata",
)


def _make() -> dict[str, Command]:
    """Return the commands by name: one table, in the order of `imagetool --help`; long as there are many."""
    commands = (
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
            Option("--build-arg", many=True, help="KEY=VALUE, or KEY for the environment's value."),
            Option("--label", many=True, help="KEY=VALUE to put on the image."),
            Option("--annotation", many=True, help="KEY=VALUE to put on the manifest."),
            Option("--unsetenv", many=True, help="A variable that the image must not have, whoever set it."),
            Option("--unsetlabel", many=True, help="A label that the image must not have, whoever set it."),
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
            Option(
                "--jobs", help="Steps done at once, of stages that do not wait. [default: the processors, at least 4]"
            ),
            Option(
                "--output",
                "-o",
                many=True,
                help="type=oci|docker|local|tar,dest=PATH[,tar=true], type=registry,ref=NAME, a directory, or -.",
            ),
            Option(
                "--keep-on-failure",
                kind="flag",
                help="Keep what a failing RUN leaves as a working container, for `imagetool debug`.",
            ),
            Option("--push", kind="flag", help="Push the image to the registries that its names say."),
            Option("--iidfile", kind="file", help="Write the image ID to a file."),
            Option("--metadata-file", kind="file", help="Write the digests to a JSON file."),
            Option("--timeline", kind="file", help="Draw what was built when, as an HTML page; of failed builds too."),
            Option(
                "--timestamps",
                default="clamp",
                choices=("clamp", "rewrite", "preserve"),
                help="Times of files in new layers: at most SOURCE_DATE_EPOCH, those of the context just that; "
                "rewrite: at most that for all; preserve.",
            ),
            Option("--rewrite-timestamp", kind="flag", help="--timestamps rewrite."),
            Option("--compression", default="gzip", help=f"{_CODECS}."),
            _REPRODUCIBLE,
            *_EXECUTOR,
            Option("--network", default="default", choices=_NETWORKS, help=f"The network of RUN steps: {_NETWORK}"),
            Option(
                "--allow",
                many=True,
                help="network.host, security.insecure, device or device=NAME: let RUN ask for it by --network=host, "
                "--security=insecure, --device.",
            ),
            *_SANDBOX,
            _PROGRESS,
            Option("--quiet", "-q", kind="flag", help="Show nothing but the image ID; --progress quiet."),
            Option("--check", kind="flag", help="Lint the Dockerfile instead; exit with 7 when something is found."),
            Argument(
                "context",
                kind="file",
                help="What COPY takes files from: a directory, a tar, a Git or http(s) URL, or - for stdin.",
            ),
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
            Option("--build-arg", many=True, help="KEY=VALUE, or KEY for the environment's value."),
            Option("--platform", help="The platform that would be built for. [default: this machine's]"),
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
            Option("--build-arg", many=True, help="KEY=VALUE, or KEY for the environment's value."),
            Option("--build-context", many=True, help="NAME[=…]: names that a build context has."),
            Option("--target", help="The stage that would be built. [default: the last]"),
            Option("--platform", help="The platform that would be built for. [default: this machine's]"),
            Option("--output", "-o", kind="file", help="Where the picture goes. [default: stdout]"),
            Option(
                "--format",
                default="auto",
                choices=("auto", "svg", "json", "dot"),
                help="What to write; auto is as the name of the output says, or svg.",
            ),
            Argument("context", kind="file", help="The directory of the Dockerfile."),
        ),
        Command(
            "cache",
            "caching:cache",
            "What is kept between builds: list cache mounts, prune them and the steps, export and import cache mounts.",
            Option("--id", many=True, help="Only the cache mount of this id; may be given several times."),
            _JSON,
            _PROGRESS,
            Argument("action", choices=("ls", "prune", "export", "import"), help="ls, prune, export or import."),
            Argument("place", kind="image", required=False, help="Where to or from: oci:DIR[:TAG] or docker://NAME."),
        ),
        Command(
            "base",
            "building:base",
            "Make a base image from what this machine has, without a registry; print its name.",
            Option("--tag", "-t", help="Name of the image."),
            _PROGRESS,
            Argument("what", kind="file", help="busybox, debian[:SUITE], a directory, or a root filesystem's tarball."),
        ),
        Command(
            "push",
            "moving:push",
            "Push an image to a registry; print its digest.",
            *_RECOMPRESS,
            _PROGRESS,
            _image("source"),
            Argument(
                "destination", kind="image", required=False, help="Where to. [default: the registry that the name says]"
            ),
        ),
        Command(
            "pull",
            "moving:pull",
            "Pull an image into the local store; print its digest.",
            _PROGRESS,
            Argument("reference", kind="image", help="The image's name in its registry."),
        ),
        Command(
            "copy",
            "moving:copy",
            "Copy an image between any two places, byte for byte, or files into a working container as COPY does; "
            "print the image's or the layer's digest.",
            _PLATFORM,
            *_RECOMPRESS,
            *COPYING,
            Option("--parents", kind="flag", help="Keep the directories of the sources, from /./ on."),
            Option("--add-history", kind="flag", help="Accepted for habit: every step is in the image's history."),
            Option("--quiet", "-q", kind="flag", help="Print no digest."),
            _PROGRESS,
            _image("source", or_container=True),
            Argument(
                "destination",
                kind="image",
                many=True,
                help="Where to, in the same words; for a container files, and last, when there are several, the path.",
            ),
        ),
        Command(
            "convert",
            "moving:convert",
            "Convert between OCI images and ACIs; print the image ID or digest. "
            "What cannot be carried is told on stderr.",
            _PROGRESS,
            _image("source"),
            Argument("destination", kind="image", help="Where to: aci:FILE, or any place of `copy`."),
        ),
        Command(
            "verify",
            "images:verify",
            "Recompute every digest, size and diff ID of an image; exit with 6 when one does not hold.",
            _JSON,
            _PROGRESS,
            _image(),
        ),
        Command(
            "inspect",
            "images:inspect",
            "Describe an image, or a working container, as JSON.",
            Option("--raw", kind="flag", help="Print the manifest, byte for byte."),
            Option("--config", kind="flag", help="Print the config, byte for byte."),
            _image(or_container=True),
        ),
        Command(
            "diff",
            "rootfs:diff",
            "Compare two images: entries added (A), changed (C) and removed (D), by layer and in total.",
            Option("--total", kind="flag", help="Only from image to image, not layer by layer."),
            Option("--exit-code", kind="flag", help="Exit with 1 when there is a difference."),
            _PLATFORM,
            _JSON,
            _image("left"),
            _image("right"),
        ),
        Command(
            "ls",
            "rootfs:ls",
            "List the files of an image, or what one of its layers holds, without unpacking it.",
            Option("--layer", help="Only this layer: its number, 1 for the base, or the beginning of its digest."),
            _PLATFORM,
            _JSON,
            _image(),
        ),
        Command(
            "unpack",
            "rootfs:unpack",
            "Unpack an image to DIRECTORY/rootfs, to look at it or to edit it and `repack` it. For a bundle with a "
            "config.json, as `umoci unpack` makes them, see `bundle --for oci`.",
            Option(
                "--rootless",
                kind="flag",
                help="Record owners in attributes (user.rootlesscontainers) instead of setting them. [default: for "
                "users who have no subordinate ids]",
            ),
            Option(
                "--no-sync",
                kind="flag",
                help="Do not wait until everything is on the disk: after a power cut files may be empty.",
            ),
            _PLATFORM,
            _PROGRESS,
            _image(),
            Argument("directory", kind="file", help="Where to; must be empty or not exist."),
        ),
        Command(
            "repack",
            "rootfs:repack",
            "Add what was edited since `unpack` to the image, as a layer; print the new image's digest.",
            Option("--compression", default="gzip", help="gzip[:0-9], zstd[:1-22] or none."),
            Option("--comment", default="", help="A comment for the image's history."),
            Option("--refresh", kind="flag", help="Go on from the new image: the next repack adds to it."),
            Option(
                "--timestamps",
                default="preserve",
                choices=("clamp", "preserve"),
                help="Times of files: clamp to SOURCE_DATE_EPOCH, or preserve.",
            ),
            _PROGRESS,
            Argument("directory", kind="file", help="What `unpack` made."),
            Argument("destination", kind="image", help=f"Where to: {PLACES}."),
        ),
        Command(
            "squash",
            "rootfs:squash",
            "Merge the layers of an image, or some of them, into one, without unpacking them; print the new image's "
            "digest.",
            Option("--from", help="The first layer to merge: its number or the beginning of its digest. [default: 1]"),
            Option("--to", help="The last one. [default: the last there is]"),
            Option("--keep-base", kind="image", help="Merge only what is on top of this image's layers."),
            Option("--compression", default="gzip", help="gzip[:0-9], zstd[:1-22] or none."),
            _PROGRESS,
            _image("source"),
            Argument("destination", kind="image", help="Where to, in the same words."),
        ),
        Command("images", "images:images", "List the images of the local store.", _JSON),
        Command("history", "images:history", "Show how an image was made, newest step first.", _JSON, _image()),
        Command(
            "tag",
            "images:tag",
            "Give a local image one more name; print it.",
            Argument("source", kind="image", help="A local image."),
            Argument("name", help="The new name."),
        ),
        Command(
            "rmi",
            "images:rmi",
            "Remove images from the local store, and blobs that nothing needs any more.",
            Argument("names", kind="image", many=True, help="Images to remove."),
        ),
        Command(
            "run",
            "running:run",
            "Run a command in a container of an image; end with its exit code. What it changes is thrown away, "
            "but in a working container it stays.",
            _ENV,
            Option("--env-file", many=True, kind="file", help="A file of KEY=VALUE lines."),
            _USER,
            _WORKDIR,
            Option("--entrypoint", help="Program in place of the image's, or a JSON array; its command falls away."),
            Option("--volume", "-v", many=True, help="HOST:CONTAINER[:ro]; what is written there stays."),
            Option("--mount", many=True, help="type=bind|cache|tmpfs,…, as of RUN; in a working container."),
            Option("--tmpfs", many=True, help="A directory of the container that is kept in memory."),
            Option("--read-only", kind="flag", help="Let nothing be written but to volumes and memory."),
            Option("--interactive", "-i", kind="flag", help="Hand our stdin on."),
            Option("--tty", "-t", "--terminal", kind="flag", help="Give the container a terminal."),
            Option("--rm", kind="flag", help="Accepted for habit: nothing of a container is ever kept."),
            Option("--hostname", "-h", help="The container's name for itself. [default: made up]"),
            Option("--network", default="default", choices=_NETWORKS, help=f"Its network: {_NETWORK}"),
            _PLATFORM,
            *_EXECUTOR,
            *_SANDBOX,
            _PROGRESS,
            Option("--add-history", kind="flag", help="Accepted for habit: every step is in the image's history."),
            _image(or_container=True),
            Argument("command", kind="command", many=True, required=False, help="Command in place of the image's."),
        ),
        Command(
            "bundle",
            "systems:bundle",
            "Write an image as what another system runs: runc, LXC, systemd-nspawn, FreeBSD, Solaris and others.",
            Option("--for", default="oci", choices=SYSTEMS, help="The system."),
            Option("--entrypoint", help="Program in place of the image's; the image's command falls away."),
            Option("--cmd", help="Command in place of the image's, as one line."),
            _ENV,
            _USER,
            _WORKDIR,
            _PLATFORM,
            Option("--rootless", kind="switch", help="For an ordinary user. [default: when you are one]"),
            Option("--ctid", default="101", help="Number of the OpenVZ container."),
            _PROGRESS,
            _image(),
            Argument("destination", kind="file", help="The directory, or for archives the file, to make."),
        ),
        Command(
            "save",
            "systems:save",
            "Write an image as one archive, which docker, podman, containerd and skopeo load.",
            Option("--output", "-o", kind="file", help="The file to write."),
            Option(
                "--format",
                default="docker",
                choices=("docker", "oci", "aci"),
                help="docker or oci (one archive is both), or aci for appc.",
            ),
            _PROGRESS,
            _image(),
        ),
        Command("limits", "limits:limits", "List the bounds on what comes from outside, and how to set them.", _JSON),
        Command(
            "doctor",
            "running:doctor",
            "Tell what this host offers, what will be used, and how to get what is missing; exit with 9 when RUN "
            "or the store cannot work.",
            _JSON,
        ),
        Command(
            "login",
            "access:login",
            "Check and keep a user name and password for a registry, where docker and podman keep theirs.",
            Option("--username", "-u", help="The user name. [default: asked for]"),
            Option("--password", "-p", help="The password; it shows in the list of processes."),
            Option("--password-stdin", kind="flag", help="Read the password from stdin."),
            Argument("registry", required=False, default="docker.io", help="HOST[:PORT]. [default: docker.io]"),
        ),
        Command(
            "logout",
            "access:logout",
            "Forget the password for a registry.",
            Argument("registry", required=False, default="docker.io", help="HOST[:PORT]. [default: docker.io]"),
        ),
        Command(
            "completion",
            "completion:script",
            "Print the completion script of a shell.",
            Argument("shell", choices=("bash", "zsh", "fish"), help="bash, zsh or fish."),
        ),
        *step_commands(),
    )
    return {command.name: command for command in commands}


COMMANDS = _make()
