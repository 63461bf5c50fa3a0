"""What `stat` says of the context's files, remembered: what has not changed is not read again.

As git does: device, inode, mode, size, mtime and ctime tell a file's state. The states of all that
a COPY takes, together, tell the tar it becomes, so what was made of them is found without reading.
What changed just before the build began may change again without showing it, so states with such
times are not believed.

Of each file its state and a CRC are kept too. They tell whether, and which, files have changed
since the last build, to choose what to do and to explain it; nothing is ever taken for the same
because of a CRC. A context may have a hundred thousand files, so all of it is a few strings of bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from imagetool.build.unchanged import STATE_BYTES, settled
from imagetool.content.staging import StagedFile, storage_errors
from imagetool.oci.digest import Digest

if TYPE_CHECKING:
    from imagetool.build.files import TakenFiles
    from imagetool.layer.entry import Entry

SUFFIX: Final = ".files"
_CRC: Final = struct.Struct("<I")
#: A fingerprint, and the SHA-256 of the tar; the last few that were made or found are kept.
_CONTENT_BYTES: Final = 64
_KEPT_CONTENTS: Final = 256
#: magic, count of files, bytes of their names, count of contents; then all names, each with a NUL,
#: all states, all CRCs, all contents
_HEADER: Final = struct.Struct("<16sQQQ")
_MAGIC: Final = b"imagetool files3"


class Fingerprint:
    """One digest of the states of all that a COPY takes and of what it is called in the layer."""

    def __init__(self) -> None:
        self._hasher = sha256()
        self._states: list[bytes] = []

    def times(self, *times: int) -> None:
        """Add which times the layer has."""
        self._hasher.update(f"times {times} ".encode())

    def entry(self, entry: Entry, about: bytes = b"") -> None:
        """Add an entry, whose time does not count, and what else tells its content or attributes."""
        name, kind, mode, uid, gid, size, _, linkname, major, minor, _ = entry
        head = f"{kind} {mode} {uid} {gid} {size} {major} {minor} {len(name)} {len(linkname)} {len(about)} "
        self._hasher.update(head.encode() + name + linkname + about)

    def files(self, files: TakenFiles, states: list[bytes]) -> None:
        """Add files with their states."""
        packed = b"".join(states)
        names = b"\0".join((files.folder, files.target, *files.bases))
        head = f"files {len(states)} {files.owner} {files.chmod} {len(names)} "
        self._hasher.update(head.encode() + names + packed)
        self._states.append(packed)

    def state(self, state: bytes) -> None:
        """Add the state of a file whose entry was added."""
        self._hasher.update(state)
        self._states.append(state)

    def was_settled(self, moment: int) -> bool:
        """Say whether any change after a moment, in nanoseconds, would give another fingerprint."""
        return settled(b"".join(self._states), moment)

    def digest(self) -> bytes:
        """Return the digest of all that was added."""
        return self._hasher.digest()


class _Known(NamedTuple):
    places: dict[bytes, int]
    states: bytes
    crcs: bytes
    contents: dict[bytes, bytes]
    used: bytearray


class FileStates:
    """What is known of the files of one directory; for several threads at once.

    Losing it costs reading the files again, so it is renamed into place but not synced.
    """

    def __init__(self, folder: Path, context: Path) -> None:
        self._folder = folder
        self._context = context
        self._path = folder / f"{Digest.of(os.fsencode(os.path.realpath(context))).hex}{SUFFIX}"
        self._started = time.time_ns()
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._new: dict[bytes, bytes] = {}  # state and CRC, one after the other
        self._contents: dict[bytes, bytes] = {}

    def content(self, fingerprint: Fingerprint) -> Digest | None:
        """Return the digest of the tar that was made when all was in these states, None when that is not known."""
        key = fingerprint.digest()
        found = self._contents.get(key) or self._loaded.contents.get(key)
        if found is None:
            return None
        self._contents[key] = found
        return Digest("sha256", found.hex())

    def note_content(self, fingerprint: Fingerprint, content: Digest) -> None:
        """Note the tar that was made; the states are from before its files were read."""
        if fingerprint.was_settled(self._started):
            self._contents[fingerprint.digest()] = bytes.fromhex(content.hex)

    def holds(self, name: bytes, state: bytes) -> bool:
        """Say whether a file was in this state in the last build."""
        known = self._loaded
        place = known.places.get(name)
        if place is None:
            return False
        known.used[place] = 1
        return known.states[place * STATE_BYTES : (place + 1) * STATE_BYTES] == state

    def crc(self, name: bytes) -> int | None:
        """Return the CRC of a file in the last build, None when there was no such file."""
        known = self._loaded
        place = known.places.get(name)
        return None if place is None else _CRC.unpack_from(known.crcs, place * _CRC.size)[0]

    def note(self, name: bytes, state: bytes, crc: int) -> None:
        """Note what a file is like now; `state` is from before it was read."""
        self._new[name] = state + _CRC.pack(crc)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known from before."""
        return not self._loaded.places

    def difference(self, names: Iterable[bytes]) -> str:
        """Say which of these paths is not as in the last build; "" when all are."""
        for name in names:
            now, before = self._new.get(name), self.crc(name)
            if now is not None and _CRC.unpack_from(now, STATE_BYTES)[0] != before:
                return f"{os.fsdecode(name)} {'is new' if before is None else 'changed'}"
        return next((f"{os.fsdecode(name)} is gone" for name in self.gone()), "")

    def gone(self) -> Iterator[bytes]:
        """Yield paths that the last build noted and that are not there any more."""
        known = self._loaded
        for name, place in known.places.items():
            if not known.used[place] and name not in self._new:
                if os.path.lexists(os.path.join(os.fsencode(self._context), name)):
                    known.used[place] = 1  # not asked for, but there
                else:
                    yield name

    def save(self) -> None:
        """Keep what was noted, and what there was of files that are still there."""
        known = self._loaded
        contents = dict(list({**known.contents, **self._contents}.items())[-_KEPT_CONTENTS:])
        if not self._new and list(contents) == list(known.contents):
            return
        gone = set(self.gone())
        kept = [name for name in known.places if name not in gone and name not in self._new]
        places = [known.places[name] for name in kept]
        text = b"".join(name + b"\0" for name in (*kept, *self._new))
        with storage_errors(f"cannot make the build cache {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
        with StagedFile(self._folder / ".staging") as file:
            file.write(_HEADER.pack(_MAGIC, len(kept) + len(self._new), len(text), len(contents)) + text)
            for size, old, part in (
                (STATE_BYTES, known.states, slice(STATE_BYTES)),
                (_CRC.size, known.crcs, slice(STATE_BYTES, None)),
            ):
                file.write(b"".join(old[place * size : (place + 1) * size] for place in places))
                file.write(b"".join(new[part] for new in self._new.values()))
            file.write(b"".join(key + content for key, content in contents.items()))
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
            magic, count, length, contents = _HEADER.unpack_from(raw)
            states = _HEADER.size + length
            crcs = states + count * STATE_BYTES
            rest = crcs + count * _CRC.size
            names = raw[_HEADER.size : states].split(b"\0")[:-1]
            if magic == _MAGIC and len(names) == count and len(raw) == rest + contents * _CONTENT_BYTES:
                pairs = (raw[at : at + _CONTENT_BYTES] for at in range(rest, len(raw), _CONTENT_BYTES))
                return _Known(
                    dict(zip(names, range(count), strict=True)),
                    raw[states:crcs],
                    raw[crcs:rest],
                    {pair[:32]: pair[32:] for pair in pairs},
                    bytearray(count),
                )
        return _Known({}, b"", b"", {}, bytearray())
