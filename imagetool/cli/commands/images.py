"""The commands that show, verify and name images."""

from __future__ import annotations

from imagetool.cli.commands import JSON, PROGRESS, image
from imagetool.cli.grammar import Argument, Command, Option

COMMANDS = (
    Command("images", "images:images", "List the images of the local store.", JSON),
    Command("history", "images:history", "Show how an image was made, newest step first.", JSON, image()),
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
)
