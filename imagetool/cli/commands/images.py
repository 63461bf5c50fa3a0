"""The commands that show, verify and name images."""

from __future__ import annotations

from imagetool.cli.commands import JSON, PROGRESS, image
from imagetool.cli.grammar import Argument, Command, Option

COMMANDS = (
    Command(
        "images",
        "images:images",
        "List the images of the local store.",
        Option("--quiet", "-q", kind="flag", help="Print IDs only, each once."),
        Option("--noheading", "-n", kind="flag", help="Leave the heading out."),
        Option("--no-trunc", "--notruncate", kind="flag", help="Print IDs in full."),
        JSON,
        Argument("name", kind="image", required=False, help="Only those of this repository, or of this name."),
    ),
    Command(
        "history",
        "images:history",
        "Show how an image was made, newest step first.",
        Option("--no-trunc", "--notruncate", kind="flag", help="Print steps in full."),
        JSON,
        image(),
    ),
    Command(
        "inspect",
        "images:inspect",
        "Describe an image, or a working container, as JSON.",
        Option("--raw", kind="flag", help="Print the manifest, byte for byte."),
        Option("--config", kind="flag", help="Print the config, byte for byte."),
        image(or_container=True),
    ),
    Command(
        "verify",
        "images:verify",
        "Recompute every digest, size and diff ID of an image; exit with 6 when one does not hold.",
        JSON,
        PROGRESS,
        image(),
    ),
    Command(
        "tag",
        "images:tag",
        "Give a local image one more name, or several; print them.",
        Argument("source", kind="image", help="A local image."),
        Argument("names", many=True, help="The new names."),
    ),
    Command(
        "rmi",
        "images:rmi",
        "Remove images from the local store, and blobs that nothing needs any more.",
        Option("--all", "-a", kind="flag", help="All of them."),
        Option(
            "--force",
            "-f",
            kind="flag",
            help="Also what is not there is no error, and an ID stands for all names of its image.",
        ),
        Argument("names", kind="image", many=True, required=False, help="Images to remove."),
    ),
)
