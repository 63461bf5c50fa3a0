"""Digests of the context's files, remembered by what `stat` says: a file that has not changed is not read again.

As git does: device, inode, mode, size, mtime and ctime tell a file's state. One that changed less
than two seconds before the build began may change again without their showing it, so its digest is
kept for telling what changed, but not believed.

A context may have a hundred thousand files, so all that is known of them is three strings of bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from imagetool.content.staging import StagedFile, storage_errors
from imagetool.oci.digest import Digest

SUFFIX: Final = ".files"
#: What is in a digest's place: SHA-256.
TOKEN_BYTES: Final = 32
_RACY_NS: Final = 2_000_000_000
_STATE: Final = struct.Struct("<6Q")
_WORD: Final = (1 << 64) - 1  # times before 1970 and after 2262 are taken modulo this
_ANY: Final = bytes(_STATE.size)
#: magic, count of files, bytes of their names; then all names, each with a NUL, all states, all digests
_HEADER: Final = struct.Struct("<16sQQ")
_MAGIC: Final = b"imagetool files2"


class _Known(NamedTuple):
    places: dict[bytes, int]
    states: bytes
    digests: bytes
    used: bytearray


class FileDigests:
    """What is known of the files of one directory; for several threads at once.

    Losing it costs reading the files again, so it is renamed into place but not synced.
    """

    def __init__(self, folder: Path, context: Path) -> None:
        self._folder = folder
        self._context = context
        self._path = folder / f"{Digest.of(os.fsencode(os.path.realpath(context))).hex}{SUFFIX}"
        self._newest = time.time_ns() - _RACY_NS
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._new: dict[bytes, bytes] = {}  # state and digest, one after the other

    def find(self, name: bytes, status: os.stat_result) -> bytes | None:
        """Return what was noted of a file in this very state, or None."""
        state = _state(status)
        found = self._new.get(name)
        known = self._loaded
        place = known.places.get(name)
        if place is not None:
            known.used[place] = 1
            if found is None and known.states[place * _STATE.size : (place + 1) * _STATE.size] == state:
                return known.digests[place * TOKEN_BYTES : (place + 1) * TOKEN_BYTES]
        return found[_STATE.size :] if found is not None and found.startswith(state) else None

    def note(self, name: bytes, status: os.stat_result, digest: bytes) -> None:
        """Note a file's digest, of `TOKEN_BYTES`; `status` is from before it was read."""
        racy = status.st_mtime_ns > self._newest or status.st_ctime_ns > self._newest
        self._new[name] = (_ANY if racy else _state(status)) + digest

    def difference(self, names: Iterable[bytes]) -> str:
        """Say which of these paths is not as an earlier build noted it; "" when all are."""
        known = self._loaded
        for name in names:
            now, place = self._new.get(name), known.places.get(name)
            before = b"" if place is None else known.digests[place * TOKEN_BYTES : (place + 1) * TOKEN_BYTES]
            if now is not None and now[_STATE.size :] != before:
                return f"{os.fsdecode(name)} {'changed' if before else 'is new'}"
        return next((f"{os.fsdecode(name)} is gone" for name in self.gone()), "")

    def gone(self) -> Iterator[bytes]:
        """Yield paths that an earlier build noted and that are not there any more."""
        known = self._loaded
        for name, place in known.places.items():
            if not known.used[place] and name not in self._new:
                if os.path.lexists(os.path.join(os.fsencode(self._context), name)):
                    known.used[place] = 1  # not asked for, but there
                else:
                    yield name

    def save(self) -> None:
        """Keep what was noted, and what there was of files that are still there."""
        if not self._new:
            return
        known = self._loaded
        gone = set(self.gone())
        kept = [name for name in known.places if name not in gone and name not in self._new]
        names = [*kept, *self._new]
        text = b"".join(name + b"\0" for name in names)
        places = [known.places[name] for name in kept]
        with storage_errors(f"cannot make the build cache {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
        with StagedFile(self._folder / ".staging") as file:
            file.write(_HEADER.pack(_MAGIC, len(names), len(text)) + text)
            file.write(b"".join(known.states[place * _STATE.size : (place + 1) * _STATE.size] for place in places))
            file.write(b"".join(new[: _STATE.size] for new in self._new.values()))
            file.write(b"".join(known.digests[place * TOKEN_BYTES : (place + 1) * TOKEN_BYTES] for place in places))
            file.write(b"".join(new[_STATE.size :] for new in self._new.values()))
            file.place(self._path, durable=False)

    @property
    def _loaded(self) -> _Known:
        known = self._known
        if known is None:
            with self._lock:
                known = self._known = self._known or self._read()
        return known

    def _read(self) -> _Known:
        with contextlib.suppress(OSError, struct.error):  # not there, or cut by a crash: the files are read
            raw = self._path.read_bytes()
            magic, count, length = _HEADER.unpack_from(raw)
            states = _HEADER.size + length
            digests = states + count * _STATE.size
            names = raw[_HEADER.size : states].split(b"\0")[:-1]
            if magic == _MAGIC and len(names) == count and len(raw) == digests + count * TOKEN_BYTES:
                places = dict(zip(names, range(count), strict=True))
                return _Known(places, raw[states:digests], raw[digests:], bytearray(count))
        return _Known({}, b"", b"", bytearray())


def _state(status: os.stat_result) -> bytes:
    return _STATE.pack(
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns & _WORD,
        status.st_ctime_ns & _WORD,
    )
