"""Digests of the context's files, remembered by what `stat` says: a file that has not changed is not read again.

As git does: device, inode, mode, size, mtime and ctime tell a file's state. One that changed less
than two seconds before it was read may change again without their showing it, so its digest is
kept for telling what changed, but not believed.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from imagetool.content.staging import StagedFile, storage_errors
from imagetool.oci.digest import Digest

SUFFIX: Final = ".files"
_RACY_NS: Final = 2_000_000_000
_ANY: Final = "?"


class FileDigests:
    """What is known of the files of one directory; for several threads at once.

    Losing it costs reading the files again, so it is renamed into place but not synced.
    """

    def __init__(self, folder: Path, context: Path) -> None:
        self._folder = folder
        self._context = context
        self._path = folder / f"{Digest.of(os.fsencode(os.path.realpath(context))).hex}{SUFFIX}"
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, str]] | None = None
        self._new: dict[str, tuple[str, str]] = {}
        self._used: set[str] = set()

    def find(self, name: bytes, status: os.stat_result) -> str | None:
        """Return what was noted of a file in this very state, or None."""
        key = os.fsdecode(name)
        found = self._new.get(key) or self._loaded.get(key)
        self._used.add(key)
        return found[1] if found and found[0] == _state(status) else None

    def note(self, name: bytes, status: os.stat_result, digest: str) -> None:
        """Note a file's digest; `status` is from before it was read."""
        newest = time.time_ns() - _RACY_NS
        racy = status.st_mtime_ns > newest or status.st_ctime_ns > newest
        self._new[os.fsdecode(name)] = _ANY if racy else _state(status), digest

    def before(self, name: bytes) -> str | None:
        """Return the digest that an earlier build noted of a path, in whatever state."""
        found = self._loaded.get(os.fsdecode(name))
        return found[1] if found else None

    def difference(self, names: Sequence[bytes]) -> str:
        """Say which of these paths is not as an earlier build noted it; "" when all are."""
        for name in names:
            now, before = self._new.get(os.fsdecode(name)), self.before(name)
            if now is not None and now[1] != before:
                return f"{os.fsdecode(name)} {'changed' if before else 'is new'}"
        return next((f"{name} is gone" for name in self.gone()), "")

    def gone(self) -> Iterator[str]:
        """Yield paths that an earlier build noted and that are not there any more."""
        for name in self._loaded:
            if name not in self._used and name not in self._new and not os.path.lexists(self._context / name):
                yield name

    def save(self) -> None:
        """Keep what was noted, and what there was of files that are still there."""
        if not self._new:
            return
        gone = set(self.gone())
        kept = {name: pair for name, pair in self._loaded.items() if name not in gone}
        with storage_errors(f"cannot make the build cache {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
        with StagedFile(self._folder / ".staging") as file:
            file.write(json.dumps({**kept, **self._new}, separators=(",", ":")).encode("ascii"))
            file.place(self._path, durable=False)

    @property
    def _loaded(self) -> dict[str, tuple[str, str]]:
        if self._known is None:
            with self._lock:
                if self._known is None:
                    self._known = self._read()
        return self._known

    def _read(self) -> dict[str, tuple[str, str]]:
        with contextlib.suppress(OSError, ValueError):  # not there, or cut by a crash: the files are read
            tree = json.loads(self._path.read_bytes())
            if isinstance(tree, dict):
                return {name: (pair[0], pair[1]) for name, pair in tree.items() if len(pair) == 2}
        return {}


def _state(status: os.stat_result) -> str:
    return (
        f"{status.st_dev} {status.st_ino} {status.st_mode} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    )
