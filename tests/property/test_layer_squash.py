"""Some layers merged into one, among others that stay: the root filesystem is what it was."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.build.files import LayerFiles
from imagetool.build.squash import squashed
from imagetool.errors import InvalidArchive
from imagetool.layer.entry import Entry
from imagetool.layer.merge import Opener, flatten, merge
from imagetool.layer.tarcodec import write
from tests.support.tars import opener

NAMES = [b"a", b"b", b"a/c", b"a/d", b"a/c/e", b"b/f"]
Layer = list[tuple[Entry, bytes]]


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A layer of files, directories, links and whiteouts, below names that others use too."""
    items: Layer = []
    files: list[bytes] = []
    kinds = st.sampled_from(["file", "file", "dir", "symlink", "link", "gone", "opaque"])
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5)):
        folder, _, base = name.rpartition(b"/")
        inside = folder + b"/" if folder else b""
        match draw(kinds):
            case "gone":
                items.insert(0, (Entry(inside + b".wh." + base, "file"), b""))
            case "opaque":
                items += [(Entry(name, "dir", 0o755), b""), (Entry(name + b"/.wh..wh..opq", "file"), b"")]
            case "dir":
                items.append((Entry(name, "dir", draw(st.sampled_from([0o755, 0o700]))), b""))
            case "symlink":
                items.append((Entry(name, "symlink", 0o777, linkname=b"x"), b""))
            case "link" if files:
                items.append((Entry(name, "link", linkname=draw(st.sampled_from(files))), b""))
            case _:
                data = draw(st.binary(max_size=3))
                items.append((Entry(name, "file", draw(st.sampled_from([0o644, 0o600])), size=len(data)), data))
                files.append(name)
    return items


def packed(layer: Layer) -> bytes:
    return b"".join(write((entry, (data,)) for entry, data in layer))


def opened(stack: Sequence[Layer]) -> list[tuple[Opener, str]]:
    return [(opener(packed(layer)), f"layer {number}") for number, layer in enumerate(stack)]


def seen(stack: Sequence[Layer]) -> dict[bytes, tuple[Entry, bytes]]:
    """Return what is at every path of merged layers; of a hard link, the file that it is."""
    found: dict[bytes, tuple[Entry, bytes]] = {}
    for entry, content in flatten(opened(stack)):
        if entry.kind == "link":
            first, data = found[entry.linkname]
            found[entry.name] = first._replace(name=entry.name), data
        else:
            found[entry.name] = entry, b"".join(content)
    return found


def works(stack: Sequence[Layer]) -> bool:
    """Say whether layers can be merged: no link to what another layer took away, for example."""
    try:
        seen(stack)
    except InvalidArchive:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(layers(), min_size=2, max_size=4).filter(works), st.data())
def test_whatever_is_merged_the_root_filesystem_stays(stack: list[Layer], data: st.DataObject) -> None:
    low = data.draw(st.integers(0, len(stack) - 1))
    high = data.draw(st.integers(low + 1, len(stack)))
    openers = opened(stack[:high])
    items = squashed(LayerFiles(openers, lambda: merge(openers)), merge(openers[:low]), time=0)
    one = [(entry, b"".join(content)) for entry, content in items]
    assert seen([*stack[:low], one, *stack[high:]]) == seen(stack)
    assert len({entry.name for entry, _ in one}) == len(one)
