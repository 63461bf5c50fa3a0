"""The commands that build by hand, a part of the table of `commands`, which has `run` and `copy`: for images too."""

from __future__ import annotations

from imagetool.cli.grammar import Argument, Command, Option
from imagetool.cli.parameters import (
    CODECS,
    ENV,
    EXECUTOR,
    JSON,
    NETWORK,
    NETWORKS,
    PLACES,
    PROGRESS,
    SANDBOX,
    USER,
    WORKDIR,
)

_CONTAINER = Argument("container", kind="container", help="A working container: its name, or the beginning of its ID.")
_SEVERAL = Argument(
    "containers", kind="container", many=True, required=False, help="Working containers: names, or beginnings of IDs."
)
_HABIT = Option("--add-history", kind="flag", help="Accepted for habit: every step is in the image's history.")
#: What COPY and ADD have; `copy` takes them for working containers.
COPYING = (
    Option("--chown", help="user[:group] of what is copied, names of the container or numbers."),
    Option("--chmod", help="Mode of what is copied: octal, or as u=rwX,go=rX."),
    Option("--from", kind="image", help="A working container or an image to copy from."),
    Option("--exclude", many=True, help="What not to copy, as in .dockerignore."),
    Option("--contextdir", kind="file", help="The directory that sources are in, and do not leave."),
    Option("--ignorefile", kind="file", help="What of it is not there. [default: its .dockerignore]"),
    Option("--link", kind="flag", help="Make a layer that does not depend on those below it."),
)


def step_commands() -> tuple[Command, ...]:
    """Return the commands of building by hand: one table, as that of `commands`, and long for the same reason."""
    return (
        Command(
            "from",
            "stepping:begin",
            "Begin to build by hand: make a working container of an image; print its name.",
            Option("--name", help="Its name. [default: the image's, and -working-container]"),
            Option("--platform", help="Build for os/arch[/variant]. [default: this machine's]"),
            Option("--arch", help="Build for this architecture."),
            Option("--os", help="Build for this operating system."),
            Option("--variant", help="Build for this variant of the architecture."),
            Option(
                "--pull",
                default="missing",
                choices=("missing", "always", "newer", "never"),
                help="When to pull the image; newer takes the local one when the registry cannot be reached.",
            ),
            Option(
                "--timestamp",
                help="The moment its image is of, seconds since 1970. [default: SOURCE_DATE_EPOCH, or as for build]",
            ),
            Option(
                "--timestamps",
                default="clamp",
                choices=("clamp", "preserve"),
                help="Times of files: clamp to that moment, or preserve.",
            ),
            Option("--compression", default="gzip", help=f"Of its layers: {CODECS}."),
            Option("--cidfile", kind="file", help="Write its ID to a file."),
            PROGRESS,
            Option("--quiet", "-q", kind="flag", help="Show nothing but the name; --progress quiet."),
            Argument("reference", kind="image", help=f"scratch, or an image: {PLACES}."),
        ),
        Command(
            "add",
            "stepping:add",
            "Copy files into a working container as ADD does: archives are unpacked, URLs fetched; print the layer's "
            "digest.",
            *COPYING,
            Option("--checksum", help="The digest that what a URL gives must have."),
            Option("--keep-git-dir", kind="flag", help="Keep .git of a Git repository."),
            Option(
                "--unpack", kind="switch", help="Unpack archives, those of URLs too, or none. [default: local ones]"
            ),
            _HABIT,
            Option("--quiet", "-q", kind="flag", help="Print nothing."),
            PROGRESS,
            _CONTAINER,
            Argument("files", kind="file", many=True, help="What to add, and last, when there are several, the path."),
        ),
        Command("config", "stepping:config", "Set what the image of a working container will say.", *_config()),
        Command(
            "commit",
            "stepping:commit",
            "Make an image of a working container; print its ID. It has a layer for each step.",
            Option("--squash", kind="flag", help="Make one layer of all, the base's too, as buildah's commit does."),
            Option("--squash-new", kind="flag", help="Make one layer of those that steps added to the base."),
            Option("--timestamp", help="The moment the image is of, seconds since 1970. [default: as `from` had it]"),
            Option("--change", "-c", many=True, help='An instruction that changes configuration, as CMD ["/app"].'),
            Option("--label", many=True, help="KEY=VALUE to put on the image."),
            Option("--annotation", many=True, help="KEY=VALUE to put on the manifest."),
            Option("--unsetenv", many=True, help="A variable that the image must not have, whoever set it."),
            Option("--unsetlabel", many=True, help="A label that the image must not have, whoever set it."),
            Option("--omit-history", kind="flag", help="Leave out how the image was made."),
            Option("--rm", kind="flag", help="Remove the container once the image is where it should be."),
            Option("--format", "-f", default="oci", choices=("oci",), help="The manifest's format."),
            Option(
                "--output",
                "-o",
                many=True,
                help="type=oci|docker|local|tar,dest=PATH[,tar=true], type=registry,ref=NAME, a directory, or -.",
            ),
            Option("--iidfile", kind="file", help="Write the image ID to a file."),
            Option("--metadata-file", kind="file", help="Write the digests to a JSON file."),
            PROGRESS,
            Option("--quiet", "-q", kind="flag", help="Show nothing but the image ID; --progress quiet."),
            _CONTAINER,
            Argument("reference", kind="image", required=False, help=f"The image's name: {PLACES}."),
        ),
        Command(
            "mount",
            "stepping:mount",
            "Mount working containers, for other programs to change; print where. Without a name, list those that are.",
            JSON,
            _SEVERAL,
        ),
        Command(
            "umount",
            "stepping:umount",
            "Unmount working containers; what was changed below is a step of theirs. Print their IDs.",
            Option("--all", "-a", kind="flag", help="All that are mounted."),
            _SEVERAL,
        ),
        Command(
            "unshare",
            "stepping:unshare",
            "Run a command, or a shell, in namespaces where an ordinary user may mount working containers.",
            Argument("command", kind="command", many=True, required=False, help="The command. [default: your shell]"),
        ),
        Command(
            "debug",
            "stepping:debug",
            "Open a shell in what a failed step left, as the step saw it but without secrets, or run a command there.",
            ENV,
            USER,
            WORKDIR,
            Option("--network", default="default", choices=NETWORKS, help=f"Its network: {NETWORK}"),
            *EXECUTOR,
            *SANDBOX,
            PROGRESS,
            Argument(
                "container",
                kind="container",
                required=False,
                help="The working container. [default: that of the step that failed last]",
            ),
            Argument("command", kind="command", many=True, required=False, help="Command in place of the shell."),
        ),
        Command(
            "containers",
            "stepping:containers",
            "List the working containers.",
            Option("--quiet", "-q", kind="flag", help="Print IDs only."),
            Option("--noheading", "-n", kind="flag", help="Leave the heading out."),
            Option("--notruncate", kind="flag", help="Print IDs in full."),
            JSON,
        ),
        Command(
            "rm",
            "stepping:rm",
            "Remove working containers, and what was changed in them and not committed; print their IDs.",
            Option("--all", "-a", kind="flag", help="All of them."),
            _SEVERAL,
        ),
    )


def _config() -> tuple[Option | Argument, ...]:
    return (
        Option("--env", "-e", many=True, help="KEY=VALUE, KEY for the environment's value, KEY- to unset, - for all."),
        Option("--label", "-l", many=True, help="KEY=VALUE, KEY- to unset it, - to unset all."),
        Option("--annotation", "-a", many=True, help="KEY=VALUE for the manifest, KEY- to unset it, - to unset all."),
        Option("--cmd", help='The command, in words or as ["a", "b"]; "" for none.'),
        Option("--entrypoint", help='The program, ["a", "b"] or a line for the shell; "" for none.'),
        Option("--user", "-u", help='user[:group]; "" for root.'),
        Option("--workingdir", "--workdir", "-w", help='The working directory, made when missing; "" for none.'),
        Option("--port", "-p", many=True, help="PORT[-PORT][/PROTOCOL], PORT- to unset it, - to unset all."),
        Option("--volume", "-v", many=True, help="A mount point, PATH- to unset it, - to unset all."),
        Option("--stop-signal", help='The signal that ends containers; "" for the usual one.'),
        Option("--shell", help='What reads commands that are lines, in words or as ["a", "b"]; "" for /bin/sh -c.'),
        Option("--healthcheck", help='CMD command, CMD-SHELL line, NONE, or "" for none.'),
        Option("--healthcheck-interval", help="From check to check, as 30s."),
        Option("--healthcheck-timeout", help="How long a check may take."),
        Option("--healthcheck-start-period", help="For how long at the start failures do not count."),
        Option("--healthcheck-start-interval", help="From check to check in that time."),
        Option("--healthcheck-retries", help="How many failures in a row mean that it is not well."),
        Option("--onbuild", many=True, help="An instruction for builds from the image; - to unset all."),
        Option("--author", help="Who made the image."),
        Option(
            "--comment",
            help="A comment, in the last line of the image's history.",
        ),
        Option("--created-by", help="What that line says the image was made by."),
        Option("--history-comment", help="The same as --comment."),
        Option("--arch", help="The architecture the image is for."),
        Option("--os", help="The operating system it is for."),
        Option("--variant", help="The variant of the architecture."),
        Option("--os-version", help="The version of the operating system."),
        Option("--os-feature", many=True, help="What the operating system must have; - to unset all."),
        _HABIT,
        _CONTAINER,
    )
