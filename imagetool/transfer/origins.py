"""Where blobs were seen: which repositories of a registry have a blob, for mounting it instead of sending it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from imagetool.errors import InvalidReference
from imagetool.oci.digest import Digest
from imagetool.oci.reference import check_repository

_REMEMBERED: Final = 4  # repositories a blob, newest first
_LONGEST: Final = 2048


class Origins(Protocol):
    """Hints, never promises: a registry that does not have the blob there is sent it."""

    def find(self, registry: str, digest: Digest) -> tuple[str, ...]:
        """Return repositories of a registry that had the blob, the likeliest first."""
        ...

    def record(self, registry: str, repository: str, digest: Digest) -> None:
        """Remember that a repository has the blob."""
        ...


class FolderOrigins:
    """Origins in a folder, a small file for each blob of a registry.

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
        if known[:1] == (repository,):
            return
        lines = [repository, *(name for name in known if name != repository)][:_REMEMBERED]
        path = self._path(registry, digest)
        staged = path.with_name(f".{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
            os.replace(staged, path)

    def _path(self, registry: str, digest: Digest) -> Path:
        return self._folder / quote(registry, safe="").replace(".", "%2E") / f"{digest.algorithm}-{digest.hex}"


def _is_repository(text: str) -> bool:
    try:
        check_repository(text)
    except InvalidReference:
        return False
    return True
