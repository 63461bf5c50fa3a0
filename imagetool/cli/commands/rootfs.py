"""The commands that look into root filesystems, and change them by hand."""

from __future__ import annotations

from imagetool.cli.commands import JSON, PLACES, PLATFORM, PROGRESS, image
from imagetool.cli.grammar import Argument, Command, Option

_COMPRESSION = Option("--compression", default="gzip", help="gzip[:0-9], zstd[:1-22] or none.")

COMMANDS = (
    Command(
        "ls",
        "rootfs:ls",
        "List the files of an image, or what one of its layers holds, without unpacking it.",
        Option("--layer", help="Only this layer: its number, 1 for the base, or the beginning of its digest."),
        PLATFORM,
        JSON,
        image(),
    ),
    Command(
        "diff",
        "rootfs:diff",
        "Compare two images: entries added (A), changed (C) and removed (D), by layer and in total.",
        Option("--total", kind="flag", help="Only from image to image, not layer by layer."),
        Option("--exit-code", kind="flag", help="Exit with 1 when there is a difference."),
        PLATFORM,
        JSON,
        image("left"),
        image("right"),
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
            "--uid-map",
            many=True,
            help="CONTAINER:HOST:SIZE: which users on this host the users of the image become, for a container in "
            "such a user namespace; `repack` turns them back.",
        ),
        Option("--gid-map", many=True, help="The same for groups. [default: what they are]"),
        Option(
            "--no-sync",
            kind="flag",
            help="Do not wait until everything is on the disk: after a power cut files may be empty.",
        ),
        PLATFORM,
        PROGRESS,
        image(),
        Argument("directory", kind="file", help="Where to; must be empty or not exist."),
    ),
    Command(
        "repack",
        "rootfs:repack",
        "Add what was edited since `unpack` to the image, as a layer; print the new image's digest.",
        _COMPRESSION,
        Option("--comment", default="", help="A comment for the image's history."),
        Option("--refresh", kind="flag", help="Go on from the new image: the next repack adds to it."),
        Option(
            "--timestamps",
            default="preserve",
            choices=("clamp", "preserve"),
            help="Times of files: clamp to SOURCE_DATE_EPOCH, or preserve.",
        ),
        PROGRESS,
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
        _COMPRESSION,
        PROGRESS,
        image("source"),
        Argument("destination", kind="image", help="Where to, in the same words."),
    ),
)
