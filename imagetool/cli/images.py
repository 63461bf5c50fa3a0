"""`images`, `inspect`, `history`, `verify`, `tag` and `rmi`: look at images and keep the local store."""

from __future__ import annotations

import sys
from json import dumps

from imagetool import api
from imagetool.cli.lines import printable
from imagetool.cli.options import plain_workplace, workplace
from imagetool.cli.render import amount_of, counted, table
from imagetool.progress import silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.cli.commands import Globals


def images(globals: Globals, *, name: str | None, quiet: bool, noheading: bool, no_trunc: bool, json: bool) -> None:
    """List the images of the local store."""
    from imagetool.verbs.images import listed

    store = plain_workplace(globals, silent).store
    found = list(listed(store, name))
    if json:
        sys.stdout.write(dumps(found, indent=2) + "\n")
        return
    if quiet:
        for identity in dict.fromkeys(entry["id"] for entry in found):
            sys.stdout.write(f"{identity if no_trunc else _short(identity)}\n")
        return
    rows = [] if noheading else [("NAME", "IMAGE ID", "CREATED", "SIZE")]
    for entry in found:
        identity = entry["id"] if no_trunc else _short(entry["id"])
        rows.append((printable(entry["name"]), identity, entry["created"][:10], amount_of(int(entry["size"]))))
    sys.stdout.write(table(rows))


def _short(identity: str) -> str:
    return identity.partition(":")[2][:12]


def inspect(globals: Globals, *, reference: str, raw: bool, config: bool) -> None:
    """Describe an image as JSON."""
    from imagetool.content.store import fetch_bytes
    from imagetool.errors import UsageError
    from imagetool.image.image import load

    if raw and config:
        raise UsageError("--raw and --config exclude each other: the manifest, or the config")
    from imagetool.cli.containers import container_named, inspect_container

    if (container := container_named(globals, reference)) is not None:
        inspect_container(globals, container, raw=raw, config=config)
        return
    with workplace(globals) as place, api.opened(reference, place) as (store, root):
        if raw:
            sys.stdout.buffer.write(fetch_bytes(store, root))
            return
        image = load(store, root)
    if config:
        sys.stdout.buffer.write(image.config.raw)
        return
    shown = {
        "name": reference,
        "digest": str(image.descriptor.digest),
        "id": str(image.config.descriptor.digest),
        "created": image.config.created,
        "architecture": image.config.platform.architecture,
        "os": image.config.platform.os,
        "config": image.config.run.tree(),
        "layers": [
            {**layer.descriptor.tree(), "diffID": str(layer.diff_id), "chainID": str(chain)}
            for layer, chain in zip(image.layers, image.chain, strict=True)
        ],
    }
    sys.stdout.write(dumps(shown, indent=2) + "\n")


def history(globals: Globals, *, reference: str, no_trunc: bool, json: bool) -> None:
    """Show how an image was made, newest step first."""
    from imagetool.image.image import load

    with workplace(globals) as place, api.opened(reference, place) as (store, root):
        image = load(store, root)
    layers = iter(image.layers)
    entries = []
    for step in image.config.history:
        layer = None if step.empty_layer else next(layers)
        size = layer.descriptor.size if layer else 0
        entries.append({"created": step.created, "created_by": step.created_by, "size": size, "comment": step.comment})
    entries.reverse()
    if json:
        sys.stdout.write(dumps(entries, indent=2) + "\n")
        return
    rows = [("CREATED", "SIZE", "CREATED BY")]
    for entry in entries:
        made = printable(str(entry["created_by"])).replace("\n", " ")
        made = made if no_trunc else made[:120]
        rows.append((str(entry["created"])[:19], amount_of(int(str(entry["size"]))), made))
    sys.stdout.write(table(rows))


def verify(globals: Globals, *, reference: str, json: bool, progress: str) -> int:
    """Recompute every digest, size and diff ID of an image; return 6 when one does not hold."""
    failed = 0
    found = []
    with workplace(globals, progress) as place:
        for check in api.verify(reference, place):
            failed += bool(check.problem)
            entry = {"what": check.what, "digest": str(check.descriptor.digest), "size": check.descriptor.size}
            found.append(entry | {"ok": not check.problem, "problem": check.problem})
    if not json:
        for entry in found:
            verdict = "ok" if entry["ok"] else f"FAILED  {printable(str(entry['problem']))}"
            verdict = "not here" if entry["what"] == "absent" else verdict
            sys.stdout.write(f"{entry['what']:<8} {entry['digest']}  {verdict}\n")
    else:
        sys.stdout.write(dumps(found, indent=2) + "\n")
    if failed:
        sys.stderr.write(f"imagetool: {failed} of {len(found)} checks failed\n")
        return 6
    return 0


def tag(globals: Globals, *, source: str, names: Sequence[str]) -> None:
    """Give a local image more names."""
    from imagetool.transports.local import local_name

    place = plain_workplace(globals, silent)
    for name in [local_name(name) for name in names]:  # all are names, or none is given
        sys.stdout.write(f"{api.tag(source, name, place)}\n")


def rmi(globals: Globals, *, all: bool, force: bool, names: Sequence[str]) -> None:
    """Remove images from the local store, and blobs that nothing needs any more."""
    from imagetool.errors import UsageError

    place = plain_workplace(globals, silent)
    if bool(names) == all:
        raise UsageError("rmi: name images, or give --all")
    if all:
        names, force = [str(root.digest) for root in place.store.index().manifests], True
    gone, count, freed = api.remove(names, place, force=force)
    for name in gone:
        sys.stdout.write(f"{printable(name)}\n")
    sys.stderr.write(f"removed {counted(count, 'blob')}, {amount_of(freed)}\n")
