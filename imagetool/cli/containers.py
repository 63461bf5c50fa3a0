"""`containers`, `mount`, `umount`, `unshare`, `rm`: the working containers that there are; `stepping` works in them."""

from __future__ import annotations

import sys

from imagetool.cli.options import workplace
from imagetool.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.cli.commands import Globals


def container_named(globals: Globals, text: str) -> str | None:
    """Return the working container that a name or the beginning of an ID means; None, at next to no cost, for none."""
    from os.path import isdir, join

    from imagetool.config.environment import store_root_text

    folder = join(store_root_text(globals.root), "containers")
    if not isdir(folder):
        return None
    from pathlib import Path

    from imagetool.build.containers import Containers

    return Containers(Path(folder)).find(text)


def containers(globals: Globals, *, quiet: bool, noheading: bool, notruncate: bool, json: bool) -> None:
    """List the working containers, oldest first."""
    from imagetool.cli.lines import printable
    from imagetool.cli.render import table
    from imagetool.verbs import working

    with workplace(globals) as place:
        found = working.containers(place)
    if json:
        from json import dumps

        sys.stdout.write(dumps(found, indent=2) + "\n")
        return
    shown = [
        {**one, "id": one["id"] if notruncate else one["id"][:12], "created": one["created"][:19]} for one in found
    ]
    if quiet:
        sys.stdout.write("".join(f"{one['id']}\n" for one in shown))
        return
    columns = ("id", "containername", "imagename", "created", "layers")
    heading = ("CONTAINER ID", "CONTAINER NAME", "IMAGE NAME", "CREATED", "LAYERS")
    rows = [tuple(printable(str(one[column])) for column in columns) for one in shown]
    if rows or not noheading:
        sys.stdout.write(table(rows if noheading else [heading, *rows]))


def inspect_container(globals: Globals, container: str, *, raw: bool, config: bool) -> None:
    """Describe a working container as JSON; `config`: the config that its image would have now."""
    from json import dumps

    from imagetool.verbs.working import described

    if raw:
        raise UsageError(f"inspect --raw {container}: a working container has no manifest before commit")
    with workplace(globals) as place:
        found = described(container, place)
    sys.stdout.write(dumps(found["config"] if config else found, indent=2) + "\n")


def mount(globals: Globals, *, containers: Sequence[str], json: bool) -> None:
    """Mount working containers and print where, or list those that are mounted."""
    from imagetool.verbs import mounting

    with workplace(globals, "plain") as place:
        found = list(mounting.mount(containers, place) if containers else mounting.mounted(place))
    if json:
        from json import dumps

        sys.stdout.write(dumps([{"container": name, "mountPoint": str(path)} for name, path in found], indent=2) + "\n")
    elif len(containers) == 1:
        sys.stdout.write(f"{found[0][1]}\n")
    else:
        sys.stdout.write("".join(f"{name} {path}\n" for name, path in found))


def umount(globals: Globals, *, containers: Sequence[str], all: bool) -> None:
    """Unmount working containers; print their IDs."""
    from imagetool.verbs import mounting

    if all == bool(containers):
        raise UsageError("umount: name working containers, or --all" if not all else "umount --all: name no containers")
    with workplace(globals, "plain") as place:
        for identity in mounting.umount(containers or [name for name, _ in mounting.mounted(place)], place):
            sys.stdout.write(f"{identity}\n")


def unshare(globals: Globals, *, command: Sequence[str]) -> None:
    """Become a command in namespaces of its own."""
    from os import environ

    from imagetool.cli.options import plain_workplace
    from imagetool.progress import silent
    from imagetool.verbs import mounting

    words = command[1:] if command[:1] == ["--"] else command
    mounting.unshare(words or [environ.get("SHELL") or "/bin/sh"], plain_workplace(globals, silent))


def rm(globals: Globals, *, containers: Sequence[str], all: bool) -> None:
    """Remove working containers; print their IDs."""
    from imagetool.verbs.working import remove_containers

    if all == bool(containers):
        raise UsageError("rm: name working containers, or --all" if not all else "rm --all: name no containers")
    with workplace(globals, "plain") as place:
        for identity in remove_containers(containers, place):
            sys.stdout.write(f"{identity}\n")
