"""Reading compressed streams by what their bytes are, in bounded memory whatever they claim.

The format is sniffed and never taken from a media type. Members and frames that follow one
another are read as one stream. xz and bzip2 occur in ADD archives and ACIs only.
"""

from __future__ import annotations

import bz2
import itertools
import lzma
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from imagetool import limits
from imagetool.errors import InvalidArchive, LimitExceeded
from imagetool.streams.pump import reblock
from imagetool.streams.verify import bounded
from imagetool.streams.zstdframes import MAGIC as ZSTD_MAGIC
from imagetool.streams.zstdframes import is_skippable, whole_blocks

MAGIC: Final = {"gzip": b"\x1f\x8b", "zstd": ZSTD_MAGIC, "xz": b"\xfd7zXZ\x00", "bzip2": b"BZh"}
_SNIFFED: Final = 6  # bytes that tell the formats apart
#: How much compressed input is given to a decompressor at a time; its output is bounded anyhow.
_INPUT_BYTES: Final = 256 * limits.KIB


def sniff(head: bytes) -> str:
    """Return "gzip", "zstd", "xz", "bzip2" or "none" from a stream's first bytes (6 are enough)."""
    for name, magic in MAGIC.items():
        if head.startswith(magic):
            return name
    return "zstd" if is_skippable(head[:4]) else "none"


def decompress(
    chunks: Iterable[bytes],
    *,
    where: str,
    limit: int | None = None,
    ratio: int | None = None,
    window: int | None = None,
) -> Iterator[bytes]:
    """Yield the plain bytes of a stream whose format is sniffed; a plain stream passes as it is.

    Args:
        where: the stream's place for errors, for example "layer sha256:…".
        limit: bytes that may come out; None for `limits.LAYER_BYTES`.
        ratio: bytes that may come out per byte that went in, from `limits.LAYER_RATIO_FLOOR` on;
            None for that of the format. Nothing that gzip or zstd can say in good faith, such as a
            large file of zeros, passes those: against such bombs the limit stands.
        window: bytes of memory that a zstd frame may ask of its decoder; None for `limits.ZSTD_WINDOW_LOG`.

    Output comes in pieces of about `limits.CHUNK` at most, so memory stays flat.

    Raises InvalidArchive for a damaged or cut stream, LimitExceeded for a limit.
    """
    limit_name = "LAYER_BYTES" if limit is None else ""
    limit = limits.LAYER_BYTES if limit is None else limit
    window = 1 << limits.ZSTD_WINDOW_LOG if window is None else window
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= _SNIFFED:
            break
    kind = sniff(head)
    whole = itertools.chain([head] if head else [], source)
    if kind == "none":
        yield from bounded(whole, limit, where=where, name=limit_name)
        return
    allowed = limits.named(limit_name) if limit_name else f"the {limit} bytes allowed"
    ratio, bomb = _bomb(kind, ratio)
    counted = _Counted(whole)
    pieces = _zstd(counted, window, where) if kind == "zstd" else _members(counted, kind, where)
    seen = 0
    for piece in pieces:
        seen += len(piece)
        if seen > limit:
            raise LimitExceeded(f"{where}: unpacks to more than {allowed}")
        if seen > max(ratio * counted.seen, limits.LAYER_RATIO_FLOOR):
            raise LimitExceeded(f"{where}: unpacks to more than {ratio} times its size, {bomb}")
        yield piece


def _bomb(kind: str, ratio: int | None) -> tuple[int, str]:
    """Return the ratio above which a stream is refused, that of its format when it is None, and what it then is."""
    if ratio is not None:
        return ratio, "a decompression bomb"
    name = "ZSTD_RATIO" if kind == "zstd" else "LAYER_RATIO"
    return int(getattr(limits, name)), f"a decompression bomb by {limits.named(name)}"


class _Counted:
    """An iterator that remembers how many bytes it has given."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.seen = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.seen += len(chunk)
            yield chunk


def _zstd(chunks: Iterable[bytes], window: int, where: str) -> Iterator[bytes]:
    """Yield the output of frames, a few blocks at a time, because libzstd's object does not bound it."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=window).decompressobj(read_across_frames=True)
    for blocks in whole_blocks(chunks, window=window, where=where):
        try:
            piece = decompressor.decompress(blocks)
        except zstandard.ZstdError as error:
            raise InvalidArchive(f"{where}: damaged zstd stream: {error}") from None
        if piece:
            yield piece


class _Member(Protocol):
    """One member being read; what the decompressor objects of bz2, lzma and igzip offer."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _gzip_member() -> Any:
    from isal import igzip_lib

    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _xz_member() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=limits.XZ_MEMORY)


_MEMBERS: Final[dict[str, Callable[[], _Member]]] = {
    "gzip": _gzip_member,
    "xz": _xz_member,
    "bzip2": bz2.BZ2Decompressor,
}
#: After a member, zeros may fill the stream up to some block size.
_PADDED: Final = frozenset({"gzip", "xz"})


def _members(chunks: Iterable[bytes], kind: str, where: str) -> Iterator[bytes]:
    """Yield the output of member after member."""
    new = _MEMBERS[kind]
    member: _Member | None = new()
    padded = False
    for block in reblock(chunks, _INPUT_BYTES):
        data = block
        while data:
            if member is None:
                if kind in _PADDED:
                    rest = data.lstrip(b"\0")
                    padded = padded or len(rest) < len(data)
                    data = rest
                if not data:
                    break
                if padded and kind == "gzip":
                    raise InvalidArchive(f"{where}: something follows the zeros after the last gzip member")
                member = new()
            yield from _drain(member, data, kind, where)
            data = b""
            if member.eof:
                data = member.unused_data
                member = None
    if member is not None:
        raise InvalidArchive(f"{where}: the {kind} stream ends in the middle")


def _drain(member: _Member, data: bytes, kind: str, where: str) -> Iterator[bytes]:
    """Yield what `data` makes a member give, in bounded pieces."""
    from isal import igzip_lib

    refusals: Any = (OSError, EOFError, ValueError, lzma.LZMAError, igzip_lib.IsalError)
    while True:
        try:
            piece = member.decompress(data, limits.CHUNK)
        except refusals as error:
            if isinstance(error, lzma.LZMAError) and "limit" in str(error):
                raise LimitExceeded(
                    f"{where}: the xz stream needs more memory than {limits.named('XZ_MEMORY')}"
                ) from None
            raise InvalidArchive(f"{where}: damaged {kind} stream: {error}") from None
        if piece:
            yield piece
        if member.eof or member.needs_input:
            return
        data = b""
