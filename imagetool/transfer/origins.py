"""Where blobs were seen: which repositories of a registry have a blob, for mounting it instead of sending it."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from imagetool.errors import InvalidReference
from imagetool.oci.digest import Digest
from imagetool.oci.reference import check_repository

_REMEMBERED: Final = 4  # repositories a blob, newest first
_LONGEST: Final = 2048
_DAY: Final = 86_400.0
_KEPT_SECONDS: Final = 90 * _DAY  # a blob that nobody moved for so long is forgotten
_KEPT_BLOBS: Final = 10_000  # of a registry, those moved last
_STAMP: Final = ".pruned"


class Origins(Protocol):
    """Hints, never promises: a registry that does not have the blob there is sent it."""

    def find(self, registry: str, digest: Digest) -> tuple[str, ...]:
        """Return repositories of a registry that had the blob, the likeliest first."""
        ...

    def record(self, registry: str, repository: str, digest: Digest) -> None:
        """Remember that a repository has the blob."""
        ...


class FolderOrigins:
    """Origins in a folder, a small file for each blob of a registry; once a day the old ones are removed.

    Losing some costs an upload, nothing else; so nothing is synced or locked, and a folder that
    cannot be read or written is one that remembers nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, registry: str, digest: Digest) -> tuple[str, ...]:
        """Return repositories; see `Origins`."""
        try:
            with open(self._path(registry, digest), encoding="ascii", errors="replace") as file:
                lines = file.read(_LONGEST).splitlines()
        except OSError:
            return ()
        return tuple(line for line in lines if _is_repository(line))

    def record(self, registry: str, repository: str, digest: Digest) -> None:
        """Remember a repository; see `Origins`."""
        known = self.find(registry, digest)
        path = self._path(registry, digest)
        with contextlib.suppress(OSError):
            if known[:1] == (repository,):
                os.utime(path)
                return
            lines = [repository, *(name for name in known if name != repository)][:_REMEMBERED]
            staged = path.with_name(f".{secrets.token_hex(8)}")
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
            os.replace(staged, path)
            self._prune()

    def _prune(self) -> None:
        """Forget what is old or too much, unless that was done within a day."""
        now = time.time()
        stamp = self._folder / _STAMP
        if _age(stamp, now) < _DAY:
            return
        stamp.touch()
        for folder in self._folder.iterdir():
            if folder.name == _STAMP:
                continue
            ages = sorted((_age(path, now), path) for path in folder.iterdir())
            for number, (age, path) in enumerate(ages):
                if age > (_DAY if path.name.startswith(".") else _KEPT_SECONDS) or number >= _KEPT_BLOBS:
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there are others in it
                folder.rmdir()

    def _path(self, registry: str, digest: Digest) -> Path:
        return self._folder / quote(registry, safe="").replace(".", "%2E") / f"{digest.algorithm}-{digest.hex}"


def _age(path: Path, now: float) -> float:
    """Return how many seconds ago a file was written; of one that is not there, that it is very old."""
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return now


def _is_repository(text: str) -> bool:
    try:
        check_repository(text)
    except InvalidReference:
        return False
    return True
