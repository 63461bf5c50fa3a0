"""A tar and its zstd:chunked blob, as the tests of both ways need them."""

from __future__ import annotations

import random
from typing import Any

from imagetool.image.image import Layer
from imagetool.image.write import write_image
from imagetool.layer.chunked import compress
from imagetool.layer.entry import Entry
from imagetool.layer.tarcodec import write
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.streams.decompress import decompress

BIG = random.Random(5).randbytes(1000) * 9500  # five chunks


TIME = 1_700_000_000_123_000_000


ITEMS: list[tuple[Entry, bytes]] = [
    (Entry(b".", "dir", 0o755), b""),
    (Entry(b"etc", "dir", 0o755, mtime=TIME), b""),
    (Entry(b"etc/passwd", "file", 0o644, size=5, mtime=TIME), b"root\n"),
    (Entry(b"etc/link", "symlink", 0o777, linkname=b"passwd"), b""),
    (Entry(b"etc/same", "link", 0o644, linkname=b"etc/passwd"), b""),
    (Entry(b"empty", "file", 0o600, 1000, 1000), b""),
    (Entry(b"big", "file", 0o4755, size=len(BIG)), BIG),
    (Entry(b"n" * 180 + b"/" + b"long" * 20, "file", size=3), b"abc"),
    (Entry("ünïcode".encode(), "file", size=512, xattrs={b"security.capability": b"\1\0\xff"}), b"x" * 512),
    (Entry(b"null", "char", 0o666, devmajor=1, devminor=3), b""),
    (Entry(b"pipe", "fifo"), b""),
]


def tar_of(items: list[tuple[Entry, bytes]]) -> bytes:
    return b"".join(write((entry, [data] if data else []) for entry, data in items))


TAR = tar_of(ITEMS)


def chunked(tar: bytes, spec: str = "zstd:chunked", cut: int = 100_000) -> tuple[bytes, dict[str, str]]:
    annotations: dict[str, str] = {}
    pieces = (tar[at : at + cut] for at in range(0, len(tar), cut))
    return b"".join(compress(pieces, Codec.parse(spec), annotations, where="layer")), annotations


BLOB, ANNOTATIONS = chunked(TAR)


# -- CRC-64 ------------------------------------------------------------------------------------


def slow_crc64(data: bytes) -> int:
    crc = (1 << 64) - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD800000000000000 if crc & 1 else 0)
    return crc ^ ((1 << 64) - 1)


# -- in images ---------------------------------------------------------------------------------


def image_with(store: Any, blob: bytes, annotations: dict[str, str], media_type: str) -> Descriptor:
    store.push(Descriptor.of(blob, media_type), [blob])
    tar = b"".join(decompress([blob], where="x"))
    layer = Layer(Descriptor(media_type, Digest.of(blob), len(blob), annotations), Digest.of(tar))
    config = ImageConfig.make(platform=Platform(), run=RunConfig(), diff_ids=[layer.diff_id], history=[], created="")
    return write_image(store, config, [layer]).descriptor
