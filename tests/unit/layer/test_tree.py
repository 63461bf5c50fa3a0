"""The merged tree of layers: what is where, by which entry, and in how much memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imagetool.errors import InvalidArchive
from imagetool.layer.entry import Entry
from imagetool.layer.merge import Opener, flatten, merge
from imagetool.layer.tarcodec import write
from imagetool.layer.tree import Tree

FAR = 1 << 69  # nanoseconds that no 64 bits hold


def file(name: bytes, **fields: int) -> Entry:
    return Entry(name, "file", **fields)


def folder(name: bytes) -> Entry:
    return Entry(name, "dir", 0o755)


def link(name: bytes, target: bytes) -> Entry:
    return Entry(name, "link", linkname=target)


def symlink(name: bytes, target: bytes) -> Entry:
    return Entry(name, "symlink", 0o777, linkname=target)


def tree_of(*layers: list[Entry]) -> Tree:
    tree = Tree()
    for number, entries in enumerate(layers):
        tree.apply(entries, number, where=f"layer {number}")
    return tree


def opener(entries: list[Entry]) -> Opener:
    @contextmanager
    def opened() -> Iterator[Iterator[bytes]]:
        yield write((entry, [b"x" * entry.size] if entry.size else []) for entry in entries)

    return opened


def flat(*layers: list[Entry]) -> list[tuple[bytes, str, bytes]]:
    items = flatten([(opener(entries), f"layer {number}") for number, entries in enumerate(layers)])
    return [(entry.name, entry.kind, entry.linkname) for entry, content in items if all(content)]


@pytest.mark.parametrize(
    "entry",
    [
        file(b"a", mode=0o4755, uid=5, gid=6, size=7, mtime=8),
        file(b"a", uid=0xFFFFFFFE, size=1 << 38, mtime=-1),
        file(b"a", mtime=FAR),
        file(b"a", size=1 << 63),
        Entry(b"a", "file", xattrs={b"user.x": b"1"}),
        Entry(b"a", "dir", 0o1777, 1, 2, mtime=3),
        Entry(b"a", "char", 0o600, devmajor=1, devminor=3),
        Entry(b"a", "fifo", 0o600),
        symlink(b"a", b"/else/where"),
    ],
)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    deep = entry._replace(name=b"x/y/a")
    tree = tree_of([file(b"z")], [entry, deep])
    inode = tree.get(b"a")
    assert inode is not None
    assert (inode.entry, inode.layer, inode.position, inode.names) == (entry, 1, 0, (b"a",))
    assert [path for path, _ in tree.walk()] == [b"a", b"x/y/a", b"z"]
    assert tree.lookup(b"x/../x/./y/a", follow=False) == (b"x/y/a", deep)


def test_paths_come_in_order_and_directories_before_what_is_in_them() -> None:
    names = [b"b", b"a/c", b"a.c", b"a-c", b"a", b"a/b/c"]
    tree = tree_of([folder(name) if name == b"a" else file(name) for name in names] + [folder(b".")])
    assert [path for path, _ in tree.walk()] == [b".", b"a", b"a/b/c", b"a/c", b"a-c", b"a.c", b"b"]
    assert list(tree.paths()) == [b"a", b"a/b", b"a/b/c", b"a/c", b"a-c", b"a.c", b"b"]
    assert list(tree.implied()) == [b"a/b"]
    assert tree.children(b"a") == [b"b", b"c"]
    assert tree.children(b"b") == tree.children(b"nowhere") == []
    assert tree.get(b"a/b") is None
    assert tree.has(b"a/b")
    assert not tree.has(b"a/b/c/d")
    assert tree.lookup(b"a/b") == (b"a/b", folder(b"a/b"))


def test_a_copy_is_a_tree_of_its_own() -> None:
    below = tree_of([file(b"d/a"), link(b"d/b", b"d/a"), file(b"e")])
    before = [(path, inode.entry, inode.names) for path, inode in below.walk()]
    tree = below.copy()
    tree.apply([file(b"d/.wh.a"), file(b"e/f"), link(b"g", b"d/b"), file(b"d/c")], 1, where="layer 1")
    assert [(path, inode.entry, inode.names) for path, inode in below.walk()] == before
    assert [path for path, _ in tree.walk()] == [b"d/b", b"d/c", b"e/f", b"g"]
    found = tree.get(b"g")
    assert found is not None
    assert (found.names, found.layer, found.position) == ((b"d/b", b"g"), 0, 0)


def test_names_go_with_the_directory_they_are_in() -> None:
    tree = tree_of([file(b"d/e/a"), link(b"b", b"d/e/a"), link(b"d/c", b"b")], [symlink(b"d", b"nowhere")])
    found = tree.get(b"b")
    assert found is not None
    assert found.names == (b"b",)
    assert flat([file(b"d/e/a", size=3), link(b"b", b"d/e/a")], [symlink(b"d", b"x")]) == [
        (b"b", "file", b""),
        (b"d", "symlink", b"x"),
    ]


def test_a_directory_that_takes_the_place_of_the_symlink_that_led_to_it() -> None:
    """`d/d` is `d` itself, so what follows is in the directory and no longer where the symlink led."""
    layer = [symlink(b"d", b"."), folder(b"d/d"), file(b"d/f"), file(b"d/g")]
    assert [path for path, _ in tree_of(layer).walk()] == [b"d", b"d/f", b"d/g"]
    assert flat(layer) == [(b"d", "dir", b""), (b"d/f", "file", b""), (b"d/g", "file", b"")]


def test_what_a_layer_s_symlinks_lead_elsewhere_is_streamed_from_where_it_stands() -> None:
    layer = [folder(b"usr/lib"), symlink(b"lib", b"usr/lib"), file(b"lib/a", size=2), link(b"b", b"lib/a")]
    assert flat(layer, [file(b"usr/lib/c")]) == [
        (b"usr", "dir", b""),
        (b"usr/lib", "dir", b""),
        (b"lib", "symlink", b"usr/lib"),
        (b"b", "file", b""),
        (b"usr/lib/a", "link", b"b"),
        (b"usr/lib/c", "file", b""),
    ]
    assert flat(layer, [file(b"usr/lib/a"), file(b".wh.b")])[-1] == (b"usr/lib/a", "file", b"")


def test_a_whiteout_spares_what_its_own_layer_made_and_linked() -> None:
    below = [file(b"d/old"), file(b"d/sub/old"), file(b"d/kept")]
    above = [file(b"d/new"), file(b"d/sub/new"), link(b"d/kept", b"d/kept"), file(b"d/.wh..wh..opq"), file(b".wh.d")]
    assert [path for path, _ in tree_of(below, above).walk()] == [b"d/kept", b"d/new", b"d/sub/new"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ([link(b"a", b"b")], "a is a hard link to b, which is no file there is"),
        ([folder(b"b"), link(b"a", b"b")], "a is a hard link to b"),
        ([file(b"a"), file(b"a/b")], "a/b is below a, a file"),
        ([symlink(b"a", b"a"), file(b"a/b")], "a/b is below a, a symlink"),
        ([file(b".")], "the root is a file, not a directory"),
        ([file(b"a"), link(b".", b"a")], "the root is a link, not a directory"),
    ],
)
def test_what_cannot_be_is_refused(layer: list[Entry], message: str) -> None:
    with pytest.raises(InvalidArchive, match=f"layer 0: {message}"):
        tree_of(layer)


def test_a_file_of_many_names_costs_no_more_for_each_of_them() -> None:
    """Going through all names of one file for each of them would take minutes."""
    count = 50_000
    layer = [file(b"a", size=1), *(link(b"b%d" % number, b"a") for number in range(count))]
    tree = merge([(opener(layer), "layer")])
    assert sum(inode.names[0] == b"a" for _, inode in tree.walk()) == count + 1
    assert sum(kind == "link" for _, kind, _ in flat(layer)) == count


MEASURE = """
import sys
from imagetool.layer.entry import Entry
from imagetool.layer.tree import Tree
def peak(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
def entries(start):
    for number in range(start, start + int(sys.argv[1]) // 2):
        name = b"usr/lib/node_modules/package-%d/dist/module-%06d.js" % (number // 40, number)
        yield Entry(name, "file", 0o644, size=number, mtime=(1_700_000_000 + number) * 10**9)
before, tree = peak(), Tree()
for layer in range(2):
    tree.apply(entries(layer * int(sys.argv[1]) // 2), layer, where="layer")
assert sum(1 for _ in tree.walk()) == int(sys.argv[1])
print((peak() - before) * 1024 // int(sys.argv[1]))
"""


@pytest.mark.parametrize("entries", [100_000, 400_000])
def test_an_entry_takes_some_150_bytes(entries: int) -> None:
    command = [sys.executable, "-c", MEASURE, str(entries)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 40 < int(done.stdout) < 200


#: Trees that take as much memory as they can for what they say.
HOSTILE = {
    "deep": "(file(b'%d/' % n + b'd/' * 1500 + b'f') for n in itertools.count())",
    "long": "(file(b'%d' % n + b'x' * 4000) for n in itertools.count())",
    "folders": "(Entry(b'%d' % n, 'dir') for n in itertools.count())",
    "files": "(file(b'%d' % n) for n in itertools.count())",
    "owners": "(Entry(b'%d' % n, 'file', uid=n) for n in itertools.count())",
    "targets": "(Entry(b'%d' % n, 'symlink', linkname=b'%d' % n + b'x' * 1000) for n in itertools.count())",
    "attributes": "(Entry(b'%d' % n, 'file', xattrs={b'user.%d' % n: b'%d' % n}) for n in itertools.count())",
    "links": "itertools.chain([file(b'f')], (Entry(b'%d' % n, 'link', linkname=b'f') for n in itertools.count()))",
    "pairs": "(Entry(b'%d' % (n // 2), 'file') if n % 2 == 0 else Entry(b'l%d' % n, 'link', linkname=b'%d' % (n // 2))"
    " for n in itertools.count())",
    "moved": "itertools.chain([Entry(b's', 'symlink', linkname=b'd')], (file(b's/%d' % n) for n in itertools.count()))",
}
FLOOD = """
import itertools, sys
from imagetool import limits
from imagetool.errors import LimitExceeded
from imagetool.layer.entry import Entry
from imagetool.layer.tree import Tree
def peak(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
def file(name): return Entry(name, "file")
limits.TREE_BYTES = 48 << 20
before, tree = peak(), Tree()
try:
    tree.apply(eval(sys.argv[1]), 0, where="layer 3")
except LimitExceeded as error:
    print(peak() - before, error)
"""


@pytest.mark.parametrize("case", HOSTILE)
def test_a_tree_takes_no_more_memory_than_its_limit(case: str) -> None:
    done = subprocess.run([sys.executable, "-c", FLOOD, HOSTILE[case]], capture_output=True, text=True, check=True)
    peak, said = done.stdout.split(" ", 1)
    assert said.startswith("layer 3: at entry ")
    assert "the merged layers need more than the limit tree-bytes=50331648" in said
    assert 6 << 10 < int(peak) < 60 << 10, f"{peak} KiB"
