"""The commands that run containers, here or in other systems."""

from __future__ import annotations

from imagetool.cli.commands import (
    ENV,
    EXECUTOR,
    HABIT,
    NETWORK,
    NETWORKS,
    PLATFORM,
    PROGRESS,
    SANDBOX,
    USER,
    VOLUME,
    WORKDIR,
    image,
)
from imagetool.cli.grammar import Argument, Command, Option

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

COMMANDS = (
    Command(
        "run",
        "running:run",
        "Run a command in a container of an image; end with its exit code. What it changes is thrown away, "
        "but in a working container it stays.",
        ENV,
        Option("--env-file", many=True, kind="file", help="A file of KEY=VALUE lines."),
        USER,
        WORKDIR,
        Option("--entrypoint", help="Program in place of the image's, or a JSON array; its command falls away."),
        VOLUME,
        Option("--mount", many=True, help="type=bind|tmpfs,…, as of docker run; in a working container as of RUN."),
        Option("--tmpfs", many=True, help="PATH[:OPTIONS], a directory kept in memory; OPTIONS as size=64m,ro."),
        Option("--read-only", kind="flag", help="Let nothing be written but to volumes and memory."),
        Option("--interactive", "-i", kind="flag", help="Hand our stdin on."),
        Option("--tty", "-t", "--terminal", kind="flag", help="Give the container a terminal."),
        Option("--rm", kind="flag", help="Accepted for habit: nothing of a container is ever kept."),
        Option("--hostname", "-h", help="The container's name for itself. [default: made up]"),
        Option("--network", choices=NETWORKS, help=f"Its network: {NETWORK} [default: default]"),
        PLATFORM,
        *EXECUTOR,
        *SANDBOX,
        PROGRESS,
        HABIT,
        image(or_container=True),
        Argument("command", kind="command", many=True, required=False, help="Command in place of the image's."),
    ),
    Command(
        "bundle",
        "systems:bundle",
        "Write an image as what another system runs: runc, LXC, systemd-nspawn, FreeBSD, Solaris and others.",
        Option("--for", default="oci", choices=SYSTEMS, help="The system."),
        Option("--entrypoint", help="Program in place of the image's; the image's command falls away."),
        Option("--cmd", help="Command in place of the image's, as one line."),
        ENV,
        USER,
        WORKDIR,
        PLATFORM,
        Option("--rootless", kind="switch", help="For an ordinary user. [default: when you are one]"),
        Option("--ctid", default="101", help="Number of the OpenVZ container."),
        PROGRESS,
        image(),
        Argument("destination", kind="file", help="The directory, or for archives the file, to make."),
    ),
)
