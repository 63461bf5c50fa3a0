"""Tar headers of any shape, for archives that no honest tool would write."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path


def header(
    name: bytes = b"file",
    flag: bytes = b"0",
    *,
    mode: bytes | int = 0o644,
    uid: bytes | int = 0,
    gid: bytes | int = 0,
    size: bytes | int = 0,
    mtime: bytes | int = 0,
    linkname: bytes = b"",
    device: tuple[bytes | int, bytes | int] = (0, 0),
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
    checksum: bytes | None = None,
) -> bytes:
    """Return one 512-byte header; a number given as bytes is written into its field as it is."""
    block = b"".join(
        [
            name.ljust(100, b"\0"),
            _field(mode, 8),
            _field(uid, 8),
            _field(gid, 8),
            _field(size, 12),
            _field(mtime, 12),
            b" " * 8,
            flag,
            linkname.ljust(100, b"\0"),
            magic.ljust(8, b"\0"),
            bytes(64),
            _field(device[0], 8),
            _field(device[1], 8),
            prefix.ljust(155, b"\0"),
            bytes(12),
        ]
    )
    assert len(block) == 512, "a field is longer than its place"
    return block[:148] + (checksum or b"%06o\0 " % sum(block)) + block[156:]


def _field(value: bytes | int, length: int) -> bytes:
    return value.ljust(length, b"\0") if isinstance(value, bytes) else b"%0*o\0" % (length - 1, value)


def base256(value: int, length: int) -> bytes:
    """Return a number as GNU tar writes what octal digits cannot say, negative ones too."""
    if value >= 0:
        return b"\x80" + value.to_bytes(length - 1, "big")
    return value.to_bytes(length, "big", signed=True)


def padded(data: bytes) -> bytes:
    """Return content filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """Return one pax record."""
    size = len(key) + len(value) + 3
    length = next(n for n in range(size + 1, size + 12) if n == size + len(str(n)))
    return b"%d %b=%b\n" % (length, key, value)


def extended(flag: bytes, body: bytes) -> bytes:
    """Return an extended header (x, g, L or K) with its body."""
    return header(b"extended", flag, size=len(body)) + padded(body)


def file(name: bytes, data: bytes = b"", **fields: object) -> bytes:
    """Return a regular file's header and content."""
    return header(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


END = bytes(1024)


def opener(tar: bytes, chunk: int = 70_000) -> Callable[[], AbstractContextManager[Iterator[bytes]]]:
    """Return a function that opens an archive in memory, as `layer.merge` takes it."""
    return lambda: contextlib.nullcontext(chunks(tar, chunk))


def chunks(tar: bytes, size: int = 70_000) -> Iterator[bytes]:
    """Yield an archive in pieces of `size` bytes."""
    return (tar[at : at + size] for at in range(0, len(tar), size))


def write_archive(path: Path, members: Mapping[str, bytes | tuple[bytes, str]]) -> None:
    """Write a tar of ordinary entries; a value is a file's content, or a pair of a link's type and where it leads."""
    with tarfile.open(path, "w") as tar:
        for name, value in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(value, bytes):
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
            else:
                member.type, member.linkname = value
                tar.addfile(member)
