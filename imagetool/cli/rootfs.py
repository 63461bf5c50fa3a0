"""`diff`, `ls`, `unpack`, `repack` and `squash`: the root filesystems of images."""

from __future__ import annotations

import sys
from json import dumps

from imagetool import api
from imagetool.cli.options import workplace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from imagetool.cli.commands import Globals
    from imagetool.image.difference import Difference, LayerDifference
    from imagetool.layer.entry import Entry
    from imagetool.oci.platform import Platform

_LETTERS = {"file": "-", "dir": "d", "symlink": "l", "link": "h", "char": "c", "block": "b", "fifo": "p"}


def _platform(text: str | None) -> Platform | None:
    from imagetool.oci.platform import Platform

    return Platform.parse(text) if text else None


def diff(
    globals: Globals, *, left: str, right: str, total: bool, exit_code: bool, platform: str | None, json: bool
) -> int:
    """Compare two images; return 1 for a difference when that is asked for."""
    with workplace(globals) as place:
        found = api.diff(left, right, place, platform=_platform(platform))
    steps = [] if total else [("left", step) for step in found.left] + [("right", step) for step in found.right]
    if json:
        head: dict[str, Any] = {"left": left, "right": right}
        if not total:
            head["common"] = [str(layer.descriptor.digest) for layer in found.common]
        sys.stdout.writelines(_difference_tree(head, steps, found.total, by_layer=not total))
    else:
        for side, step in steps:
            name = {"left": left, "right": right}[side]
            _show(f"layer {step.layer.descriptor.digest} of {name}", step.difference)
        _show(f"from {left} to {right}", found.total)
    return int(exit_code and not found.total.is_empty)


def _difference_tree(
    head: dict[str, Any], steps: list[tuple[str, LayerDifference]], total: Difference, *, by_layer: bool
) -> Iterator[str]:
    """Yield a difference as JSON, as it comes: there may be a million paths."""
    yield "{" + "".join(f"\n  {dumps(key)}: {_indented(value, 2)}," for key, value in head.items())
    if by_layer:
        yield '\n  "layers": ['
        for number, (side, step) in enumerate(steps):
            digests = {"digest": str(step.layer.descriptor.digest), "diffID": str(step.layer.diff_id)}
            yield ("," if number else "") + "\n    {"
            yield from (f'\n      "{key}": {dumps(value)},' for key, value in {"image": side, **digests}.items())
            yield from _parts(step.difference, 6)
            yield "\n    }"
        yield "\n  ]," if steps else "],"
    yield '\n  "total": {'
    yield from _parts(total, 4)
    yield "\n  }\n}\n"


def _parts(difference: Difference, indent: int) -> Iterator[str]:
    """Yield what is in the object of a difference."""
    space = "\n" + " " * indent
    changes = ({"path": _text(change.path), "what": list(change.aspects)} for change in difference.changed)
    yield f'{space}"added": '
    yield from _listed(map(_text, difference.added), indent)
    yield f',{space}"changed": '
    yield from _listed(changes, indent)
    yield f',{space}"removed": '
    yield from _listed(map(_text, difference.removed), indent)


def _show(heading: str, difference: Difference) -> None:
    from heapq import merge

    from imagetool.cli.lines import printable
    from imagetool.cli.render import counted
    from imagetool.layer.entry import display

    count = len(difference.added) + len(difference.changed) + len(difference.removed)
    lines = merge(
        ((path, "A", "") for path in difference.added),
        ((change.path, "C", f"  ({', '.join(change.aspects)})") for change in difference.changed),
        ((path, "D", "") for path in difference.removed),
    )
    sys.stdout.write(f"{printable(heading)}: {counted(count, 'entry', 'entries')}\n")
    sys.stdout.writelines(f"{letter} /{display(path)}{why}\n" for path, letter, why in lines)


def _text(path: bytes) -> str:
    """Return a path as JSON can hold it: bytes that are not UTF-8 as \\xNN."""
    return path.decode("utf-8", "backslashreplace")


def ls(globals: Globals, *, reference: str, layer: str | None, platform: str | None, json: bool) -> None:
    """List what is in an image or in one of its layers."""
    with workplace(globals) as place:
        entries = api.entries(reference, place, layer=layer, platform=_platform(platform))
        if json:
            sys.stdout.writelines(_listed(_entry_tree(entry) for entry in entries))
            sys.stdout.write("\n")
        else:
            sys.stdout.writelines(_line(entry) for entry in entries)


def _listed(values: Iterable[object], indent: int = 0) -> Iterator[str]:
    """Yield a JSON list as it comes, in a text that is indented so far; there may be a million."""
    before = "["
    space = "\n" + " " * (indent + 2)
    for value in values:
        yield before + space + _indented(value, indent + 2)
        before = ","
    yield "[]" if before == "[" else "\n" + " " * indent + "]"


def _indented(value: object, indent: int) -> str:
    return dumps(value, indent=2).replace("\n", "\n" + " " * indent)


def _entry_tree(entry: Entry) -> dict[str, Any]:
    import base64

    tree: dict[str, Any] = {
        "path": _text(entry.name),
        "type": entry.kind,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime / 1e9,
    }
    if entry.linkname:
        tree["target"] = _text(entry.linkname)
    if entry.kind in ("char", "block"):
        tree["device"] = f"{entry.devmajor}:{entry.devminor}"
    if entry.xattrs:
        tree["xattrs"] = {_text(name): base64.b64encode(value).decode() for name, value in entry.xattrs.items()}
    return tree


def _line(entry: Entry) -> str:
    import stat
    import time

    from imagetool.layer.entry import display

    mode = _LETTERS[entry.kind] + stat.filemode(entry.mode | stat.S_IFREG)[1:]
    size = f"{entry.devmajor},{entry.devminor}" if entry.kind in ("char", "block") else str(entry.size)
    try:
        made = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.mtime // 10**9))
    except (ValueError, OverflowError, OSError):  # a time that the C library cannot say
        made = "-"
    link = {"symlink": " -> ", "link": " link to "}.get(entry.kind, "")
    target = display(entry.linkname) if link else ""
    return f"{mode} {entry.uid}/{entry.gid} {size:>10} {made} /{display(entry.name)}{link}{target}\n"


def unpack(
    globals: Globals,
    *,
    reference: str,
    directory: str,
    rootless: bool,
    uid_map: list[str],
    gid_map: list[str],
    no_sync: bool,
    platform: str | None,
    progress: str,
) -> None:
    """Unpack an image to be looked at or edited; print where."""
    with workplace(globals, progress) as place:
        bundle = api.unpack(
            reference,
            directory,
            place,
            rootless=rootless,
            uid_map=uid_map,
            gid_map=gid_map,
            sync=not no_sync,
            platform=_platform(platform),
        )
    sys.stdout.write(f"{bundle.rootfs}\n")


def repack(
    globals: Globals,
    *,
    directory: str,
    destination: str,
    compression: str,
    comment: str,
    refresh: bool,
    timestamps: str,
    progress: str,
) -> None:
    """Add what was edited to the image; print the new digest."""
    from imagetool.streams.codecs import Codec

    with workplace(globals, progress) as place:
        made = api.repack(
            directory,
            destination,
            place,
            codec=Codec.parse(compression),
            comment=comment,
            refresh=refresh,
            clamp_times=timestamps == "clamp",
        )
    if made.layer is None:
        sys.stderr.write("nothing was changed: the image is as it was\n")
    sys.stdout.write(f"{made.image.digest}\n")


def squash(
    globals: Globals,
    *,
    source: str,
    destination: str,
    from_: str | None,
    to: str | None,
    keep_base: str | None,
    compression: str,
    progress: str,
) -> None:
    """Merge layers of an image into one; print the new digest."""
    from imagetool.streams.codecs import Codec

    codec = Codec.parse(compression)
    with workplace(globals, progress) as place:
        made = api.squash(source, destination, place, codec=codec, first=from_, last=to, base=keep_base)
    sys.stdout.write(f"{made.digest}\n")
