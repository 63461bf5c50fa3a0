"""The commands that move images from place to place."""

from __future__ import annotations

from imagetool.cli.commands import COPYING, HABIT, JSON, PLACES, PLATFORM, PROGRESS, RECOMPRESS, image
from imagetool.cli.grammar import Argument, Command, Option

_QUIET = Option("--quiet", "-q", kind="flag", help="Show nothing but the digest; --progress quiet.")

COMMANDS = (
    Command(
        "push",
        "moving:push",
        "Push an image to a registry; print its digest.",
        *RECOMPRESS,
        _QUIET,
        PROGRESS,
        image("source"),
        Argument(
            "destination", kind="image", required=False, help="Where to. [default: the registry that the name says]"
        ),
    ),
    Command(
        "pull",
        "moving:pull",
        "Pull an image into the local store; print its digest. Of an index comes the image for one platform.",
        Option("--platform", help="The image of this os/arch[/variant]. [default: this machine's]"),
        Option("--all-platforms", kind="flag", help="All images of an index."),
        _QUIET,
        PROGRESS,
        Argument("reference", kind="image", help="The image's name in its registry."),
    ),
    Command(
        "copy",
        "moving:copy",
        "Copy an image between any two places, byte for byte, or files into a working container as COPY does; "
        "print the image's or the layer's digest.",
        PLATFORM,
        *RECOMPRESS,
        *COPYING,
        Option("--parents", kind="flag", help="Keep the directories of the sources, from /./ on."),
        HABIT,
        Option("--quiet", "-q", kind="flag", help="Print no digest, nor what happens."),
        PROGRESS,
        image("source", or_container=True),
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
        "Convert between OCI images and ACIs; print the image ID or digest. What cannot be carried is told on stderr.",
        PROGRESS,
        image("source"),
        Argument("destination", kind="image", help="Where to: aci:FILE, or any place of `copy`."),
    ),
    Command(
        "save",
        "systems:save",
        "Write images as one archive, which docker, podman, containerd and skopeo load.",
        Option("--output", "-o", kind="file", help="The file to write. [default: stdout]"),
        Option(
            "--format",
            default="docker",
            choices=("docker", "oci", "aci"),
            help="docker or oci (one archive is both), or aci for appc.",
        ),
        PROGRESS,
        Argument("references", kind="image", many=True, help=f"Images: {PLACES}."),
    ),
    Command(
        "load",
        "moving:load",
        "Take the images of an archive of docker, podman or OCI into the local store; print their names.",
        Option("--input", "-i", kind="file", help="The archive. [default: stdin]"),
        Option("--quiet", "-q", kind="flag", help="Show nothing but the names; --progress quiet."),
        PROGRESS,
    ),
    Command(
        "tags",
        "moving:tags",
        "List the tags of a repository in a registry.",
        JSON,
        Argument("repository", kind="image", help="The repository's name, docker:// before it or not."),
    ),
    Command(
        "delete",
        "moving:delete",
        "Delete an image from its registry, and with it every tag there that means it; print its digest.",
        Argument("reference", kind="image", help="docker://NAME:TAG or docker://NAME@DIGEST."),
    ),
)
