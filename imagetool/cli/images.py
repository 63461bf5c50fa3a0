"""`images`, `inspect`, `history`, `verify`, `tag` and `rmi`: look at images and keep the local store."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from imagetool.cli.options import workplace
from imagetool.cli.render import amount_of, printable, table

Reference = Annotated[str, typer.Argument(help="An image: a local name, docker://…, oci:DIR[:TAG], …")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (images, inspect, history, verify, tag, rmi):
        app.command()(command)


def images(ctx: typer.Context, as_json: Json = False) -> None:
    """List the images of the local store."""
    from imagetool.image.image import load

    store = workplace(ctx).store
    found: list[dict[str, Any]] = []
    for root in store.index().manifests:
        name = root.annotations.get("org.opencontainers.image.ref.name", "<none>")
        image = load(store, root)
        size = sum(layer.descriptor.size for layer in image.layers)
        entry: dict[str, Any] = {"name": name, "digest": str(root.digest), "id": str(image.config.descriptor.digest)}
        found.append(entry | {"created": image.config.created, "size": size})
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    rows = [("NAME", "IMAGE ID", "CREATED", "SIZE")]
    for entry in found:
        rows.append((entry["name"], entry["id"][7:19], entry["created"][:10], amount_of(int(entry["size"]))))
    sys.stdout.write(table(rows))


def inspect(
    ctx: typer.Context,
    reference: Reference,
    raw: Annotated[bool, typer.Option("--raw", help="Print the manifest, byte for byte.")] = False,
    config: Annotated[bool, typer.Option("--config", help="Print the config, byte for byte.")] = False,
) -> None:
    """Describe an image as JSON."""
    from imagetool import api
    from imagetool.content.store import fetch_bytes
    from imagetool.image.image import load

    with api.opened(reference, workplace(ctx)) as (store, root):
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
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")


def history(ctx: typer.Context, reference: Reference, as_json: Json = False) -> None:
    """Show how an image was made, newest step first."""
    from imagetool import api
    from imagetool.image.image import load

    with api.opened(reference, workplace(ctx)) as (store, root):
        image = load(store, root)
    layers = iter(image.layers)
    entries = []
    for step in image.config.history:
        layer = None if step.empty_layer else next(layers)
        size = layer.descriptor.size if layer else 0
        entries.append({"created": step.created, "created_by": step.created_by, "size": size, "comment": step.comment})
    entries.reverse()
    if as_json:
        sys.stdout.write(json.dumps(entries, indent=2) + "\n")
        return
    rows = [("CREATED", "SIZE", "CREATED BY")]
    for entry in entries:
        made = printable(str(entry["created_by"])).replace("\n", " ")[:120]
        rows.append((str(entry["created"])[:19], amount_of(int(str(entry["size"]))), made))
    sys.stdout.write(table(rows))


def verify(ctx: typer.Context, reference: Reference, as_json: Json = False) -> None:
    """Recompute every digest, size and diff ID of an image; exit with 6 when one does not hold."""
    from imagetool import api

    failed = 0
    found = []
    for check in api.verify(reference, workplace(ctx)):
        failed += bool(check.problem)
        entry = {"what": check.what, "digest": str(check.descriptor.digest), "size": check.descriptor.size}
        found.append(entry | {"ok": not check.problem, "problem": check.problem})
        if not as_json:
            verdict = f"FAILED  {printable(check.problem)}" if check.problem else "ok"
            sys.stdout.write(f"{check.what:<8} {check.descriptor.digest}  {verdict}\n")
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if failed:
        sys.stderr.write(f"imagetool: {failed} of {len(found)} checks failed\n")
        raise typer.Exit(6)


def tag(ctx: typer.Context, source: Reference, name: Annotated[str, typer.Argument(help="The new name.")]) -> None:
    """Give a local image one more name."""
    from imagetool import api

    sys.stdout.write(f"{api.tag(source, name, workplace(ctx))}\n")


def rmi(ctx: typer.Context, names: Annotated[list[str], typer.Argument(help="Images to remove.")]) -> None:
    """Remove images from the local store, and blobs that nothing needs any more."""
    from imagetool import api

    gone, count, freed = api.remove(names, workplace(ctx))
    for name in gone:
        sys.stdout.write(f"{name}\n")
    sys.stderr.write(f"removed {count} blobs, {amount_of(freed)}\n")
