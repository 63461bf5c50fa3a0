"""What is fuzzed: functions of bytes that end in nothing but our own errors, and keep what they promise."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Final

from imagetool.errors import ImagetoolError
from imagetool.layer.merge import flatten, merge
from imagetool.layer.scanfile import parse, render
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.oci.document import decode, encode
from tests.support.tars import chunks, opener

_MOST: Final = 1 << 20  # bytes of content that one input may unpack to here


def summed(data: bytes) -> bytes:
    """Return an archive whose headers have right checksums, without which nothing else of them is looked at."""
    whole = bytearray(data[: len(data) - len(data) % 512])
    for at in range(0, len(whole), 512):
        if whole[at + 257 : at + 262] == b"ustar":
            whole[at + 148 : at + 156] = b" " * 8
            whole[at + 148 : at + 156] = b"%06o\0 " % sum(whole[at : at + 512])
    return bytes(whole) + data[len(whole) :]


def layer(data: bytes) -> None:
    """Read an archive, write what was read, and read that again: the same. Merge and flatten it: a layer again."""
    tar = summed(data)
    found = []
    with contextlib.suppress(ImagetoolError):
        left = _MOST
        for entry, content in read(chunks(tar, 700), where="fuzz"):
            assert b".." not in entry.name.split(b"/")
            assert not entry.name.startswith(b"/")
            left -= entry.size
            if left < 0:
                return
            found.append((entry, b"".join(content)))
            assert entry.size == len(found[-1][1])
    again = b"".join(write((entry, (content,)) for entry, content in found))
    assert [(entry, b"".join(content)) for entry, content in read(chunks(again), where="again")] == found
    with contextlib.suppress(ImagetoolError):
        layers = [(opener(again), "one"), (opener(tar), "two")]
        tree = merge(layers)
        flat = [entry.name for entry, _ in read(write(flatten(layers, tree)), where="flat")]
        assert len(flat) == len(set(flat))
        assert {path for path, _ in tree.walk()} <= set(flat)


def document(data: bytes) -> None:
    """Decode a document: what the standard library makes of it, which can be encoded again, or an error."""
    with contextlib.suppress(ImagetoolError):
        tree = decode(data, what="fuzz")
        assert tree == json.loads(data)
        assert decode(encode(tree), what="again") == tree


def scan(data: bytes) -> None:
    """Read a saved scan, with the right checksum: a scan that survives its file, or an error."""
    import hashlib

    with contextlib.suppress(ImagetoolError):
        found, notes = parse(data + hashlib.sha256(data).digest(), where="fuzz")
        assert parse(render(found, notes), where="again") == (found, notes)


TARGETS: dict[str, Callable[[bytes], None]] = {"layer": layer, "scan": scan, "document": document}
