"""Where working containers are kept: a folder of one store.

FOLDER/NAME/container.json   the record; see `working`
FOLDER/NAME/edit-HEX/        what is changed by hand below its mount: an overlay's directories
FOLDER/NAME/root             where it is mounted
FOLDER/.new/                 containers being made or removed
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from imagetool import limits
from imagetool.build.working import WorkingContainer
from imagetool.content.folders import STAGED, new_folder, remove_folder, sweep
from imagetool.content.staging import make_folder, open_stored, replace_file, storage_errors, sync_folder
from imagetool.dockerfile.wording import did_you_mean
from imagetool.errors import NotFound, StorageError, UsageError
from imagetool.values import replace

RECORD: Final = "container.json"
_NEW: Final = ".new"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LEAST_ID: Final = 4  # digits of an identity that are enough to name a container


class Held:
    """A container that nobody else changes meanwhile; see `Containers.held`."""

    def __init__(self, name: str, folder: Path, record: WorkingContainer) -> None:
        self.name = name
        self.folder = folder
        self.record = record

    def save(self, **changes: Any) -> None:
        """Replace fields of the record, durably."""
        record = replace(self.record, **changes)
        replace_file(self.folder / RECORD, record.render())
        self.record = record


class Containers:
    """The working containers of a folder; safe for several processes at once. Nothing is made before the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names there are, sorted."""
        try:
            listed = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self._folder}: {error.strerror}") from error
        return sorted(name for name in listed if not name.startswith("."))

    def folder(self, name: str) -> Path:
        """Return where a container's things are."""
        return self._folder / name

    def read(self, name: str) -> WorkingContainer:
        """Return a container's record as it is now. Raises NotFound when it is, or has just been, removed."""
        path = self._folder / name / RECORD
        try:
            with open_stored(path) as file:
                raw = file.read(limits.DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            raise self.unknown(name) from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        return WorkingContainer.parse(raw, what=str(path))

    def records(self) -> Iterator[tuple[str, WorkingContainer]]:
        """Yield every container, oldest first."""
        found = []
        for name in self.names():
            try:
                found.append((name, self.read(name)))
            except NotFound:  # removed meanwhile
                continue
        yield from sorted(found, key=lambda pair: (pair[1].created, pair[0]))

    def find(self, text: str) -> str | None:
        """Return the container that a name, or the beginning of an identity, means; None for none."""
        if _NAME.fullmatch(text) and (self._folder / text / RECORD).exists():
            return text
        if len(text) < _LEAST_ID or set(text) - set("0123456789abcdef"):
            return None
        found = [name for name, record in self.records() if record.identity.startswith(text)]
        return found[0] if len(found) == 1 else None

    def named(self, text: str) -> str:
        """Return the container that a name, or the beginning of an identity, means. Raises NotFound."""
        found = self.find(text)
        if found is None:
            raise self.unknown(text)
        return found

    def unknown(self, text: str) -> NotFound:
        """Make the error that says that there is no container of a name."""
        names = self.names()
        known = f"; there are: {', '.join(names[:8])}" if names else "; `imagetool from IMAGE` makes one"
        return NotFound(f"no working container {text[:80]!r}{did_you_mean(text, names)}{known}")

    def make(self, record: WorkingContainer, *, name: str = "", stem: str = "") -> str:
        """Keep a new container; return its name.

        Args:
            name: its name; raises UsageError when it cannot be one, or when there is one of that name.
            stem: what it is named after without a `name`: itself, else with a number behind it.
        """
        if name and not _NAME.fullmatch(name):
            raise UsageError(f"--name {name[:80]!r}: a name has letters, digits, dots, dashes and underscores")
        with storage_errors(f"cannot make a container in {self._folder}"):
            make_folder(self._folder)
            os.chmod(self._folder, 0o700)  # what is edited in it may be setuid
            make_folder(self._folder / _NEW)
            sweep(self._folder / _NEW)
        with new_folder(self._folder / _NEW) as folder:
            replace_file(folder / RECORD, record.render())
            for wanted in [name] if name else _numbered(stem):
                if self._placed(folder, wanted):
                    return wanted
        raise UsageError(
            f"there is a working container {name!r} already; take another --name, or `imagetool rm {name}`"
        )

    def _placed(self, folder: Path, name: str) -> bool:
        with storage_errors(f"cannot make the container {name}"):
            try:
                os.rename(folder, self._folder / name)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return False
            sync_folder(self._folder)
        return True

    @contextmanager
    def held(self, text: str, *, waiting: Callable[[str], None]) -> Iterator[Held]:
        """Hold a container, by name or the beginning of its identity, against all others.

        `waiting` is told when somebody else has it. Raises NotFound.
        """
        name = self.named(text)
        folder = self._folder / name
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self.unknown(text) from None
        try:
            with storage_errors(f"cannot lock {folder}"):
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waiting(f"waiting for the container {name}, which another imagetool works in")
                    fcntl.flock(fd, fcntl.LOCK_EX)
            if not os.fstat(fd).st_nlink or not _is_at(fd, folder):
                raise self.unknown(text)
            yield Held(name, folder, self.read(name))
        finally:
            os.close(fd)

    def remove(self, held: Held) -> None:
        """Remove a container that is held, with all that is in its folder."""
        with storage_errors(f"cannot remove the container {held.name}"):
            make_folder(self._folder / _NEW)
            gone = self._folder / _NEW / f"{STAGED}{secrets.token_hex(8)}"  # swept when we are killed from here on
            os.rename(held.folder, gone)
            sync_folder(gone.parent)
            sync_folder(self._folder)
        remove_folder(gone.parent, gone.name)


def _numbered(stem: str) -> Iterator[str]:
    """Yield names without end: a stem made a name, then with 1, 2, … behind it."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-_.")[:100] or "working-container"
    yield cleaned
    yield from (f"{cleaned}-{number}" for number in itertools.count(1))


def _is_at(fd: int, folder: Path) -> bool:
    """Say whether an open folder is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(folder))
    except FileNotFoundError:
        return False
