"""The MetaStore in SQLite: one file, WAL, synced before a write is acknowledged."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

from imagetool.errors import StorageError
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from registry_server.metadata import InUse, Missing, StoredBlob, StoredManifest

_SCHEMA: Final = 1
_REPOSITORY: Final = "(SELECT id FROM repository WHERE name = ?)"
_MANIFEST: Final = "digest, media_type, body, subject, artifact_type, annotations"
_CLAIM_SECONDS: Final = 600  # a claim younger than this is not written again: it would cost a sync each time


class SqliteMetadata:
    """Safe for several threads and processes: each thread has its own connection, writers take turns.

    Args:
        clock: tells the time, in seconds, that claims are dated with.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._local = threading.local()
        self._writing = threading.Lock()
        with self._transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                script = resources.files(__package__).joinpath("0001.sql").read_text()
                for statement in script.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_SCHEMA}")
            elif version != _SCHEMA:
                raise StorageError(f"{path} was made by another version of this server (schema {version})")

    def _connection(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self._path, isolation_level=None, timeout=30)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            self._local.db = db
        return db

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin as a writer, so that nothing that is read here can change before it is acted on."""
        with self._writing, self._refusals():
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._refusals():
            return self._connection().execute(query, values).fetchall()

    def _one(self, query: str, *values: Any) -> Any:
        return next(iter(self._rows(query, *values)), None)

    @staticmethod
    def _repository(db: sqlite3.Connection, name: str) -> int:
        db.execute("INSERT OR IGNORE INTO repository (name) VALUES (?)", (name,))
        (number,) = db.execute(f"SELECT {_REPOSITORY}", (name,)).fetchone()
        return int(number)

    def _link(self, db: sqlite3.Connection, repository: int, digest: str) -> None:
        db.execute("INSERT OR REPLACE INTO repository_blob VALUES (?, ?, ?)", (repository, digest, self._clock()))

    def blob(self, repository: str, digest: Digest) -> StoredBlob | None:
        """Return a blob; see `MetaStore`."""
        found = self._blob(repository, digest)
        return found[0] if found else None

    def _blob(self, repository: str, digest: Digest) -> tuple[StoredBlob, float] | None:
        row = self._one(
            "SELECT size, locator, last_ref FROM blob JOIN repository_blob USING (digest)"
            f" WHERE digest = ? AND repository = {_REPOSITORY}",
            str(digest),
            repository,
        )
        return (StoredBlob(digest, row[0], row[1]), row[2]) if row else None

    def claim(self, repository: str, digest: Digest) -> StoredBlob | None:
        """Return a blob and keep it; see `MetaStore`."""
        found = self._blob(repository, digest)
        if found is None or found[1] > self._clock() - _CLAIM_SECONDS:
            return found[0] if found else None
        with self._transaction() as db:
            query = f"UPDATE repository_blob SET last_ref = ? WHERE digest = ? AND repository = {_REPOSITORY}"
            kept = db.execute(query, (self._clock(), str(digest), repository)).rowcount
        return found[0] if kept else None

    def add_blob(self, repository: str, blob: StoredBlob) -> str:
        """Let a repository hold a blob; see `MetaStore`."""
        with self._transaction() as db:
            row = (str(blob.digest), blob.size, blob.locator)
            db.execute("INSERT OR IGNORE INTO blob VALUES (?, ?, ?)", row)
            self._link(db, self._repository(db, repository), str(blob.digest))
            (kept,) = db.execute("SELECT locator FROM blob WHERE digest = ?", (str(blob.digest),)).fetchone()
            return str(kept)

    def mount(self, repository: str, digest: Digest, source: str | None) -> StoredBlob | None:
        """Let a repository hold a blob of another; see `MetaStore`."""
        where, values = ("", ()) if source is None else (f" AND repository = {_REPOSITORY}", (source,))
        query = f"SELECT size, locator FROM blob JOIN repository_blob USING (digest) WHERE digest = ?{where} LIMIT 1"
        with self._transaction() as db:
            row = db.execute(query, (str(digest), *values)).fetchone()
            if row is None:
                return None
            self._link(db, self._repository(db, repository), str(digest))
        return StoredBlob(digest, row[0], row[1])

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob out of a repository; see `MetaStore`."""
        with self._transaction() as db:
            self._check_unused(db, repository, digest)
            query = f"DELETE FROM repository_blob WHERE digest = ? AND repository = {_REPOSITORY}"
            return db.execute(query, (str(digest), repository)).rowcount > 0

    @staticmethod
    def _check_unused(db: sqlite3.Connection, repository: str, digest: Digest) -> None:
        query = f"SELECT parent FROM manifest_ref WHERE child = ? AND repository = {_REPOSITORY} LIMIT 1"
        row = db.execute(query, (str(digest), repository)).fetchone()
        if row:
            raise InUse(Digest.parse(row[0]))

    def manifest(self, repository: str, digest: Digest) -> StoredManifest | None:
        """Return a manifest; see `MetaStore`."""
        query = f"SELECT {_MANIFEST} FROM manifest WHERE digest = ? AND repository = {_REPOSITORY}"
        row = self._one(query, str(digest), repository)
        return _stored(row) if row else None

    def put_manifest(
        self,
        repository: str,
        manifest: StoredManifest,
        *,
        blobs: Sequence[Descriptor] = (),
        manifests: Sequence[Descriptor] = (),
        tags: Sequence[str] = (),
    ) -> None:
        """Store a manifest; see `MetaStore`."""
        digest = str(manifest.digest)
        subject = str(manifest.subject) if manifest.subject else None
        fields = (manifest.media_type, manifest.body, subject, manifest.artifact_type, manifest.annotations)
        with self._transaction() as db:
            number = self._repository(db, repository)
            for child in blobs:
                _check_child(db, number, child, "SELECT size FROM blob JOIN repository_blob USING (digest)")
            for child in manifests:
                _check_child(db, number, child, "SELECT length(body) FROM manifest")
            db.execute("INSERT OR IGNORE INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?)", (number, digest, *fields))
            children = {str(child.digest) for child in (*blobs, *manifests)}
            rows = [(number, child, digest) for child in children]
            db.executemany("INSERT OR IGNORE INTO manifest_ref VALUES (?, ?, ?)", rows)
            db.executemany("INSERT OR REPLACE INTO tag VALUES (?, ?, ?)", [(number, tag, digest) for tag in tags])

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and its tags; see `MetaStore`. What it referred to is kept for the grace."""
        with self._transaction() as db:
            self._check_unused(db, repository, digest)
            values = (str(digest), repository)
            db.execute(
                "UPDATE repository_blob SET last_ref = ? WHERE (repository, digest) IN"
                f" (SELECT repository, child FROM manifest_ref WHERE parent = ? AND repository = {_REPOSITORY})",
                (self._clock(), *values),
            )
            query = f"DELETE FROM manifest WHERE digest = ? AND repository = {_REPOSITORY}"
            return db.execute(query, values).rowcount > 0

    def tagged(self, repository: str, tag: str) -> StoredManifest | None:
        """Return what a tag points at; see `MetaStore`."""
        row = self._one(
            f"SELECT {_MANIFEST} FROM manifest JOIN tag USING (repository, digest)"
            f" WHERE name = ? AND repository = {_REPOSITORY}",
            tag,
            repository,
        )
        return _stored(row) if row else None

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; see `MetaStore`."""
        with self._transaction() as db:
            query = f"DELETE FROM tag WHERE name = ? AND repository = {_REPOSITORY}"
            return db.execute(query, (tag, repository)).rowcount > 0

    def tags(self, repository: str, last: str, count: int) -> list[str] | None:
        """Return tags; see `MetaStore`."""
        row = self._one(f"SELECT {_REPOSITORY}", repository)
        if row[0] is None:
            return None
        query = "SELECT name FROM tag WHERE repository = ? AND name > ? ORDER BY name LIMIT ?"
        return [name for (name,) in self._rows(query, row[0], last, count)]

    def repositories(self, last: str, count: int) -> list[str]:
        """Return repositories; see `MetaStore`."""
        query = (
            "SELECT name FROM repository WHERE name > ?"
            " AND EXISTS (SELECT 1 FROM manifest WHERE repository = repository.id) ORDER BY name LIMIT ?"
        )
        return [name for (name,) in self._rows(query, last, count)]

    def referrers(
        self, repository: str, subject: Digest, artifact_type: str | None, last: str, count: int
    ) -> Sequence[StoredManifest]:
        """Return referrers; see `MetaStore`."""
        query = (
            f"SELECT {_MANIFEST} FROM manifest WHERE subject = ? AND repository = {_REPOSITORY} AND digest > ?"
            " AND (? IS NULL OR artifact_type = ?) ORDER BY digest LIMIT ?"
        )
        values = (str(subject), repository, last, artifact_type, artifact_type, count)
        return [_stored(row) for row in self._rows(query, *values)]

    def condemn(self, before: float) -> int:
        """Drop what nothing refers to; see `MetaStore`."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM repository_blob WHERE last_ref < ? AND NOT EXISTS (SELECT 1 FROM manifest_ref AS held"
                " WHERE held.repository = repository_blob.repository AND held.child = repository_blob.digest)",
                (before,),
            )
            orphans = "NOT EXISTS (SELECT 1 FROM repository_blob AS held WHERE held.digest = blob.digest)"
            db.execute(f"INSERT INTO garbage SELECT locator FROM blob WHERE {orphans}")
            return db.execute(f"DELETE FROM blob WHERE {orphans}").rowcount

    def garbage(self, count: int) -> Sequence[str]:
        """Return garbage; see `MetaStore`."""
        return [locator for (locator,) in self._rows("SELECT locator FROM garbage LIMIT ?", count)]

    def buried(self, locators: Sequence[str]) -> None:
        """Forget garbage; see `MetaStore`."""
        with self._transaction() as db:
            db.executemany("DELETE FROM garbage WHERE locator = ?", [(locator,) for locator in locators])

    def knows(self, locator: str) -> bool:
        """Say whether a locator is in use; see `MetaStore`."""
        query = "SELECT 1 FROM blob WHERE locator = ? UNION SELECT 1 FROM garbage WHERE locator = ?"
        return self._one(query, locator, locator) is not None


def _check_child(db: sqlite3.Connection, repository: int, child: Descriptor, query: str) -> None:
    row = db.execute(f"{query} WHERE repository = ? AND digest = ?", (repository, str(child.digest))).fetchone()
    if row is None or row[0] != child.size:
        raise Missing(child, row[0] if row else None)


def _stored(row: Sequence[Any]) -> StoredManifest:
    digest, media_type, body, subject, artifact_type, annotations = row
    known = Digest.parse(subject) if subject else None
    return StoredManifest(Digest.parse(digest), media_type, bytes(body), known, artifact_type, annotations)
